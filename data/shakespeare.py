"""Tiny Shakespeare: find it, verify it, or fall back on the stand-in.

    corpus = load_corpus()
    x, y = get_batch(corpus.train, block_size=64, batch_size=32, seed=0, step=0)

Looks in this order: the path in GPT2_DATA, data/input.txt, a download, the stand-in of `data/standin.py`.
The file is checked by its SHA-256 each time and is never part of the repository.
"""

import hashlib
import os
import sys
from pathlib import Path

from data import files, standin, web
from data.batches import eval_windows, get_batch
from data.corpus import Corpus, corpus_from_text
from data.files import DataError

# the notebooks import all they need of a text from here
__all__ = ["Corpus", "DataError", "corpus_from_text", "eval_windows", "get_batch", "load_corpus"]

SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SIZE = 1_115_394  # bytes and characters: the text is ASCII
ADDRESSES = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@master/data/tinyshakespeare/input.txt",
    "https://storage.googleapis.com/download.tensorflow.org/data/shakespeare.txt",
)
LOCAL_FILE = Path(__file__).resolve().parent / "input.txt"
IMPATIENT_SECONDS = 1.5  # once one address has not answered, the others get less
ADVICE = "turn on the internet, or set GPT2_DATA to a copy of the file"


def load_corpus(allow_standin: bool = True, quiet: bool = False) -> Corpus:
    """The corpus, split and encoded.

    DataError if the file that is there is wrong, or if there is none and the stand-in is not allowed.
    `quiet` hides progress; the use of the stand-in is announced on stderr all the same.
    """
    name, text = find_text(allow_standin, quiet)
    floor, error = standin.floor(text) if name == "standin" else (None, None)
    return corpus_from_text(text, name, floor=floor, floor_se=error)


def find_text(allow_standin: bool = True, quiet: bool = False) -> tuple[str, str]:
    """(name, text) alone, with the errors of `load_corpus`."""
    if os.environ.get("GPT2_DATA"):
        path = Path(os.path.expanduser(os.environ["GPT2_DATA"]))
        return "tinyshakespeare", _read_verified(path, "correct or unset GPT2_DATA")
    if LOCAL_FILE.exists():
        return "tinyshakespeare", _read_verified(LOCAL_FILE, "delete it and run again to download it anew")
    body, reasons = download(quiet=quiet)
    if body is not None:
        return "tinyshakespeare", body.decode("ascii")
    if not allow_standin:
        raise DataError(f"Tiny Shakespeare could not be downloaded ({'; '.join(reasons)}): {ADVICE}")
    _announce_standin(reasons)
    return "standin", standin.make()


def download(addresses=None, quiet: bool = False) -> tuple[bytes | None, list[str]]:
    """Fetch the corpus into data/input.txt: (its bytes, []), or (None, one reason an address).

    Tries each address in turn; GPT2_DATA_URL (addresses separated by spaces) replaces the list. Only a
    body with the right SHA-256 is written, and whole or not at all.
    """
    addresses = addresses or os.environ.get("GPT2_DATA_URL", "").split() or ADDRESSES
    say = (lambda line: None) if quiet else (lambda line: files.say(line, sys.stderr))
    reasons, patience = [], web.CONNECT_SECONDS
    for address in addresses:
        try:
            body = web.fetch(address, 2 * SIZE, patience, say)
            reason = _what_is_wrong(body)
        except OSError as error:
            reason = str(error)
        if not reason:
            _keep(body)
            return body, []
        patience = IMPATIENT_SECONDS if reason.startswith(web.SILENT) else patience
        reasons.append(f"{address}: {reason}")
        say(f"could not use {reasons[-1]}")
    return None, reasons


def _keep(body: bytes) -> None:
    """Write the verified file; a folder that cannot be written only costs the next download."""
    try:
        files.write_atomic(LOCAL_FILE, body)
    except OSError as error:
        note = f"note: {LOCAL_FILE} could not be written ({error.strerror}); the text is used from memory"
        files.say(note, sys.stderr)


def _read_verified(path: Path, advice: str) -> str:
    try:
        body = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): {advice}") from None
    wrong = _what_is_wrong(body)
    if wrong:
        raise DataError(f"{path} is not Tiny Shakespeare ({wrong}): {advice}")
    return body.decode("ascii")


def _what_is_wrong(body: bytes) -> str:
    """"" if `body` is the corpus, else what was expected and what was found."""
    found = hashlib.sha256(body).hexdigest()
    if found == SHA256:
        return ""
    size = "" if len(body) == SIZE else f", {SIZE} bytes expected and {len(body)} found"
    return f"SHA-256 {SHA256} expected, {found} found{size}"


def _announce_standin(reasons: list[str]) -> None:
    rule = "=" * 100
    lines = [rule, "NO SHAKESPEARE: this run uses the STAND-IN TEXT, made by data/standin.py.", *reasons]
    lines += ["Its numbers are true, and they are not Shakespeare's.", f"For the real text, {ADVICE}.", rule]
    files.say("\n".join(lines), sys.stderr)
