"""Tiny Shakespeare: find it, verify it, split it, and cut it into windows.

    corpus = load_corpus()
    x, y = get_batch(corpus.train, block_size=64, batch_size=32, seed=0, step=0)

Looks in this order: the path in GPT2_DATA, data/input.txt, a download, the stand-in text of `data/standin.py`.
The file is checked by its SHA-256 each time and is never part of the repository.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import queue
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from data.tokenizer import CharTokenizer

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SIZE = 1_115_394  # bytes and characters: the text is ASCII
ADDRESSES = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@master/data/tinyshakespeare/input.txt",
    "https://storage.googleapis.com/download.tensorflow.org/data/shakespeare.txt",
)
LOCAL_FILE = Path(__file__).resolve().parent / "input.txt"

CONNECT_SECONDS = 4.0  # name look-up, connection and first answer: a machine with no network gives up this fast,
IMPATIENT_SECONDS = 1.5  # and once one address has not answered, the others get less
READ_SECONDS = 10.0  # silence in the middle of a download
TOTAL_SECONDS = 120.0  # a server that drips
SILENT = "no answer"
TRIES = 2  # per address, and only where trying again can help


class DataError(ValueError):
    """A text that cannot be used; the message names the file and what to do."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text, its 90/10 split and the ids of both parts."""

    name: str  # "tinyshakespeare", "standin", or the name of the reader's own text
    text: str
    sha256: str  # of the UTF-8 bytes of `text`
    train_text: str  # the first int(0.9 n) characters
    val_text: str
    tokenizer: CharTokenizer
    train: torch.Tensor  # (len(train_text),) int64
    val: torch.Tensor  # (len(val_text),) int64
    floor: float | None = None  # nats/char that no honest model can go below; known for the stand-in only
    floor_se: float | None = None  # standard error of the floor


def load_corpus(allow_standin: bool = True, quiet: bool = False) -> Corpus:
    """The corpus, split and encoded.

    DataError if the file that is there is wrong, or if there is none and the stand-in is not allowed. `quiet` hides
    progress; the use of the stand-in is announced on stderr all the same.
    """
    name, text = find_text(allow_standin, quiet)
    if name != "standin":
        return corpus_from_text(text, name)
    from data import standin

    floor, error = standin.floor(text)
    return corpus_from_text(text, name, floor=floor, floor_se=error)


def get_text(allow_standin: bool = True, quiet: bool = False) -> str:
    """The text alone, in the order and with the errors of `load_corpus`."""
    return find_text(allow_standin, quiet)[1]


def find_text(allow_standin: bool = True, quiet: bool = False) -> tuple[str, str]:
    """(name, text): the path in GPT2_DATA, data/input.txt, a download, the stand-in. A wrong file is a DataError."""
    if os.environ.get("GPT2_DATA"):
        path = Path(os.environ["GPT2_DATA"]).expanduser()
        return "tinyshakespeare", _read_verified(path, "correct or unset GPT2_DATA")
    if LOCAL_FILE.exists():
        return "tinyshakespeare", _read_verified(LOCAL_FILE, "delete it and run again to download it anew")
    body, reasons = download(quiet=quiet)
    if body is not None:
        return "tinyshakespeare", body.decode("ascii")
    mend = "turn on the internet, or set GPT2_DATA to a copy of the file"
    if not allow_standin:
        raise DataError(f"Tiny Shakespeare could not be downloaded ({'; '.join(reasons)}): {mend}")
    from data import standin

    _announce_standin(reasons, mend)
    return "standin", standin.make()


def corpus_from_file(path: str | os.PathLike, tokenizer: CharTokenizer | None = None, block_size: int = 1) -> Corpus:
    """A reader's own UTF-8 text file as a Corpus, named after the file. Errors as in `corpus_from_text`."""
    path = Path(path).expanduser()
    try:
        text = _read(path, "check the path").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start} does not fit): save it as UTF-8") from None
    return corpus_from_text(text.replace("\r\n", "\n"), path.name, tokenizer, block_size)


def corpus_from_text(
    text: str,
    name: str,
    tokenizer: CharTokenizer | None = None,
    block_size: int = 1,
    floor: float | None = None,
    floor_se: float | None = None,
) -> Corpus:
    """A Corpus from a string. With a `tokenizer`, the text may use its symbols only; without, it makes its own.

    DataError if the train split is shorter than one window of `block_size` and its target, if the validation split
    has fewer than two characters, or if the tokenizer lacks a symbol of the text.
    """
    train_text, val_text = split(text)
    if len(train_text) < block_size + 1 or len(val_text) < 2:
        need = max((block_size + 1) * 10 // 9 + 1, 20)
        raise DataError(
            f"{name} has {len(text)} characters, too few to train on 90% of them in windows of {block_size} "
            f"and validate on the rest: use a text of {need} or more, or a smaller context"
        )
    tokenizer = tokenizer or CharTokenizer.from_text(text)
    foreign = sorted(set(text) - set(tokenizer.chars)) if isinstance(tokenizer, CharTokenizer) else []
    if foreign:
        shown = ", ".join(ascii(c) for c in foreign[:8]) + (" ..." if len(foreign) > 8 else "")
        raise DataError(
            f"{name} has {len(foreign)} symbols that the vocabulary lacks ({shown}): "
            "take them out of the text, or train a new model with the text's own vocabulary"
        )
    sha256 = hashlib.sha256(text.encode("utf-8")).hexdigest()
    train, val = (torch.tensor(tokenizer.encode(part), dtype=torch.int64) for part in (train_text, val_text))
    return Corpus(name, text, sha256, train_text, val_text, tokenizer, train, val, floor, floor_se)


def split(x):
    """(train, val): the first int(0.9 n) of a string, list or tensor, and the rest."""
    n = int(0.9 * len(x))
    return x[:n], x[n:]


def get_batch(ids, block_size: int, batch_size: int, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, y), both (B, T) int64: windows of `ids` and the same windows one symbol later.

    A pure function of (seed, step): no state, so a resumed run sees the same data. Starts are drawn evenly from every
    legal one, 0 to len - block_size - 1, where the last target is the last symbol. DataError if `ids` is too short.
    """
    return cut(ids, batch_starts(len(ids), block_size, batch_size, seed, step), block_size)


def cut(ids, starts: np.ndarray, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, y), both (B, T) int64: the windows of `ids` at `starts` (B,), and the same one symbol later."""
    at = starts[:, None] + np.arange(block_size + 1)  # (B, T + 1)
    window = ids[torch.from_numpy(at)] if isinstance(ids, torch.Tensor) else torch.from_numpy(np.asarray(ids)[at])
    window = window.to(torch.int64)
    return window[:, :-1].contiguous(), window[:, 1:].contiguous()  # (B, T) each


def shuffled_batch(ids, block_size: int, batch_size: int, seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Like get_batch, in epochs: windows side by side, each once an epoch, in a fresh order and from a fresh offset.

    Also a pure function of (seed, step). An epoch leaves out less than two windows, others each time.
    """
    windows = (len(ids) - block_size) // block_size  # so that every offset below block_size fits
    if windows < 1:
        return get_batch(ids, block_size, batch_size, seed, step)  # too short for epochs; says so if too short for all
    place = step * batch_size + np.arange(batch_size)
    starts = [_epoch_starts(windows, block_size, seed, int(n // windows))[n % windows] for n in place]
    return cut(ids, np.array(starts), block_size)


@lru_cache(maxsize=2)
def _epoch_starts(windows: int, block_size: int, seed: int, epoch: int) -> np.ndarray:
    raw = np.random.Philox(key=seed, counter=[0, epoch, 1, 0]).random_raw(windows + 1)  # apart from batch_starts'
    return int(raw[0] % block_size) + block_size * np.argsort(raw[1:], kind="stable")


def batch_starts(length: int, block_size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """(B,) int64 starts of the batch of (seed, step) in a text of `length` symbols."""
    legal = length - block_size  # how many starts leave room for a window and its last target
    if legal < 1:
        raise DataError(
            f"the text has {length} symbols, one window of {block_size} and its target need {block_size + 1}: "
            "use a longer text or a smaller context"
        )
    if seed < 0 or step < 0:
        raise DataError(f"seed and step must be 0 or more, not {seed} and {step}")
    # counter-based, and its raw numbers are promised to stay the same in every version of numpy
    random = np.random.Philox(key=seed, counter=[0, step, 0, 0]).random_raw(batch_size)
    return (random % np.uint64(legal)).astype(np.int64)


def eval_windows(
    ids: torch.Tensor, block_size: int, batch_size: int = 1
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield (x, y), (B, T) each, that cover all len - 1 targets of `ids` once, in order, without overlap.

    B is `batch_size` (less in the last full batch) and T is `block_size`; what is left over comes last as one
    shorter window of B = 1. DataError if `ids` has no target.
    """
    targets = len(ids) - 1
    if targets < 1:
        raise DataError(f"a text of {len(ids)} symbols has nothing to predict: use a longer one")
    full = targets // block_size
    for first in range(0, full, batch_size):
        b = min(batch_size, full - first)
        start, stop = first * block_size, (first + b) * block_size
        yield ids[start:stop].view(b, block_size), ids[start + 1 : stop + 1].view(b, block_size)
    if targets % block_size:
        yield ids[full * block_size : -1][None], ids[full * block_size + 1 :][None]


# --- getting the file ---


def _read(path: Path, mend: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): {mend}") from None


def _read_verified(path: Path, mend: str) -> str:
    body = _read(path, mend)
    wrong = _what_is_wrong(body)
    if wrong:
        raise DataError(f"{path} is not Tiny Shakespeare ({wrong}): {mend}")
    return body.decode("ascii")


def _what_is_wrong(body: bytes) -> str | None:
    """None if `body` is the corpus, else what was expected and what was found."""
    found = hashlib.sha256(body).hexdigest()
    if found == SHA256:
        return None
    size = "" if len(body) == SIZE else f", {SIZE} bytes expected and {len(body)} found"
    return f"SHA-256 {SHA256} expected, {found} found{size}"


def download(addresses=None, path: Path | None = None, quiet: bool = False) -> tuple[bytes | None, list[str]]:
    """Fetch the corpus into `path` (data/input.txt): (its bytes, []), or (None, one reason an address).

    Tries each address in turn; GPT2_DATA_URL (addresses separated by spaces) replaces the list. Only a body with the
    right SHA-256 is written, and whole or not at all.
    """
    addresses = addresses or os.environ.get("GPT2_DATA_URL", "").split() or ADDRESSES
    path, reasons, patience = path or LOCAL_FILE, [], CONNECT_SECONDS
    for address in addresses:
        body, reason = _fetch_patiently(address, patience, quiet)
        if body is not None:
            _keep(path, body)
            return body, []
        patience = IMPATIENT_SECONDS if reason.startswith(SILENT) else patience
        reasons.append(f"{address}: {reason}")
        _say(quiet, f"could not use {reasons[-1]}")
    return None, reasons


def _fetch_patiently(address: str, patience: float, quiet: bool) -> tuple[bytes | None, str]:
    """A verified body, or None and why; tries again only where the server answered and broke off."""
    reason = ""
    for _ in range(TRIES):
        try:
            body = _fetch(address, patience, quiet)
        except _NoAnswer as error:
            return None, str(error)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            continue
        reason = _what_is_wrong(body)
        if reason is None:
            return body, ""
        if len(body) >= SIZE:
            break  # whole, and another text: it will be the same next time
    return None, reason


class _NoAnswer(OSError):
    """Nobody there, or a plain no: trying again would only cost time."""


def _fetch(address: str, patience: float, quiet: bool) -> bytes:
    response = _open(address, patience)
    _say(quiet, f"downloading {address}")
    body, end, shown = bytearray(), time.monotonic() + TOTAL_SECONDS, 0
    with response:
        while chunk := response.read1(1 << 16):
            body += chunk
            if len(body) > 2 * SIZE:
                raise _NoAnswer(f"it sends more than the {SIZE} bytes expected")
            if time.monotonic() > end:
                raise _NoAnswer(f"not done after {TOTAL_SECONDS:.0f} s")
            if len(body) * 4 // SIZE > shown:
                shown = len(body) * 4 // SIZE
                _say(quiet, f"  {len(body) / 1e6:.1f} of {SIZE / 1e6:.1f} MB")
    return bytes(body)


def _open(address: str, patience: float):
    """An open response, or OSError within `patience` seconds: in a thread, since a name look-up has no time-out."""
    box: queue.Queue = queue.Queue()

    def work():
        try:
            box.put(urllib.request.urlopen(address, timeout=READ_SECONDS))
        except Exception as error:  # handed to the caller, whatever it is
            box.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        answer = box.get(timeout=patience)
    except queue.Empty:
        raise _NoAnswer(f"{SILENT} in {patience:g} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        kind = OSError if answer.code >= 500 else _NoAnswer
        raise kind(f"HTTP {answer.code}")
    if isinstance(answer, Exception):
        raise _NoAnswer(str(getattr(answer, "reason", answer)) or type(answer).__name__)
    return answer


def _keep(path: Path, body: bytes) -> None:
    """Write the verified file whole or not at all; a folder that cannot be written only costs the next download."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(body)
        os.replace(part, path)
    except OSError as error:
        _say(False, f"note: {path} could not be written ({error.strerror}); the text is used from memory")
    finally:
        part.unlink(missing_ok=True)


def _say(quiet: bool, line: str) -> None:
    if not quiet:
        print(line, file=sys.stderr, flush=True)


def _announce_standin(reasons: list[str], mend: str) -> None:
    rule = "=" * 100
    lines = [rule, "NO SHAKESPEARE: this run uses the STAND-IN TEXT, made by data/standin.py.", *reasons]
    lines += ["Its numbers are true, and they are not Shakespeare's.", f"For the real text, {mend}.", rule]
    print("\n".join(lines), file=sys.stderr, flush=True)
