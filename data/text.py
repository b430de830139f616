"""Any text: from a path or an address to a Corpus with a split and an alphabet of its own.

    corpus = load_text("my novel.txt")      # "" is Tiny Shakespeare

Nothing is changed in silence: what was recognised, folded or left out stands in `corpus.notes`.
"""

import hashlib
import os
import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from data import shakespeare, web
from data.corpus import Corpus, corpus_from_text, split
from data.decode import decode
from data.files import DataError, safe_name, say
from data.tokenizer import BPETokenizer, CharTokenizer

ALPHABET = 256  # symbols of a character vocabulary at most
RARE = 0.005  # more symbols than that: the rarest are folded if they are at most this share of the text
PER_PIECE, PIECES = 30, (512, 2048)  # else pieces: one for so many characters of train, within these bounds
SHORT = 20_000  # characters
LARGEST = 200_000_000  # bytes
PATIENCE = 15.0  # seconds until an address answers
WEB_PAGE = re.compile(r"\s*<(!doctype html|html)", re.IGNORECASE)


def load_text(where: str | os.PathLike = "", quiet=False, tokenizer=None) -> Corpus:
    """The text at a path or an http(s) address as a Corpus; "" is Tiny Shakespeare.

    Prints what was read and what was done to it, unless `quiet`. `tokenizer` overrules the alphabet or
    pieces of the text's own. DataError, in one sentence, if there is no such text or none that can be
    learned from.
    """
    where = str(where).strip()
    if where[:1] in "\"'" and where[:1] == where[-1:]:  # pasted with its quotes
        where = where[1:-1]
    if not where:
        return shakespeare.load_corpus(quiet=quiet)
    body = _download(where, quiet) if _is_address(where) else _read(where)
    text, found = decode(body, where)
    corpus = _corpus(text, _name(where, text), f"{where}: read as {found}", tokenizer)
    for line in () if quiet else (*corpus.notes, describe(corpus)):
        say(line)
    return corpus


def describe(corpus: Corpus) -> str:
    """One line: how much there is, of how many symbols, in what units it is learned."""
    units = f"{corpus.tokenizer.vocab_size:,} symbols"
    if corpus.tokenizer.kind != "char":
        units = f"{len(set(corpus.text)):,} symbols in {corpus.tokenizer.vocab_size:,} pieces"
    return f"text: {corpus.name}, {len(corpus.text):,} characters, {units}, the last tenth for validation"


# --- finding it ---


def _is_address(where):
    return where.lower().startswith(("http://", "https://"))


def _read(where):
    path = Path(os.path.expanduser(where))  # not Path.expanduser, which raises for "~notes.txt"
    try:
        if not path.is_absolute() and not path.exists() and Path("..", path).is_file():
            path = Path("..", path)  # an upload lies beside the clone, and the notebook works inside it
        size = path.stat().st_size
        if path.is_dir():
            problem = "is a folder: name one text file (python -m data.shards takes a folder)"
        elif not path.is_file():
            problem = "is no ordinary file: name a text file"
        elif size > LARGEST:
            problem = f"has more than {LARGEST // 10**6} MB: use python -m data.shards, and --data"
        else:
            return path.read_bytes()
    except FileNotFoundError:
        problem = f"is not there (looked in {Path.cwd()}): check the path"
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        problem = f"cannot be read ({getattr(error, 'strerror', error)}): check the path"
    raise DataError(f"{where} {problem}")


def _download(where, quiet):
    try:
        body = web.fetch(where, LARGEST, PATIENCE, (lambda line: None) if quiet else say)
    except OSError as error:
        problem = f"could not be downloaded ({error}): check the address, or use a file"
        raise DataError(f"{where} {problem}") from None
    if WEB_PAGE.match(body[:200].decode("latin-1")):
        raise DataError(f"{where} is a web page, not a text: use the address of the text itself "
                        '("raw", or .txt)')
    return body


def _name(where, text):
    """A safe name, and none of the two that stand for texts with known numbers."""
    if hashlib.sha256(text.encode("utf-8")).hexdigest() == shakespeare.SHA256:
        return "tinyshakespeare"
    name = safe_name(Path(unquote(urlsplit(where).path) if _is_address(where) else where).name)
    return f"{name}.txt" if name in ("tinyshakespeare", "standin") else name


# --- what is learned ---


def _corpus(text, name, how_read, tokenizer):
    """The Corpus in an alphabet of its own, or in pieces where that would be too large."""
    if not text.strip():
        what = "holds only spaces and line breaks" if text else "is empty"
        raise DataError(f"{name} {what}: name a file with text in it")
    if len(set(text)) < 2:
        raise DataError(f"{name} has one symbol only ({text[0]!r}): there is nothing to predict in it")
    text, folded = (text, []) if tokenizer else fold(text)
    train, val = split(text)
    notes, symbols = [how_read, *folded], len(set(text))
    if tokenizer is None and symbols > ALPHABET:
        tokenizer = BPETokenizer.train(train, min(max(len(train) // PER_PIECE, PIECES[0]), PIECES[1]))
        size = tokenizer.vocab_size
        notes.append(f"{symbols:,} different symbols: read in {size:,} pieces learned from it")
    if WEB_PAGE.match(text):
        notes.append("it is a web page: its tags are learned too; save it as text where that is not meant")
    if len(text) < SHORT:
        notes.append(f"only {len(text):,} characters: expect a model that soon knows them by heart, so the "
                     "best validation loss comes early, and may move by 0.1 with the seed; "
                     f"{SHORT:,} or more tell more")
    new = sorted(set(val) - set(train))
    if new and tokenizer is None:
        shown = " ".join(map(ascii, new[:12]))
        what, them = ("1 symbol stands", "it") if len(new) == 1 else (f"{len(new)} symbols stand", "them")
        notes.append(f"{what} in the last tenth only, so no model can learn {them}: {shown}")
    return corpus_from_text(text, name, tokenizer, notes=tuple(notes))


def fold(text: str) -> tuple[str, list[str]]:
    """(text in at most ALPHABET symbols, [what was done]), or (text, []) where that would cost too much."""
    counts = Counter(text)
    ranked = sorted(counts, key=lambda c: (-counts[c], c))
    rarest = ranked[ALPHABET:]
    share = sum(counts[c] for c in rarest) / len(text)
    if not rarest or share > RARE:
        return text, []
    kept = CharTokenizer(sorted(ranked[:ALPHABET]))
    change = {c: kept.replacement(c) or "" for c in rarest}
    told = ", ".join(map(_told, change.items()))
    note = f"the {len(change)} rarest symbols ({share:.2%} of the text) do not fit {ALPHABET}: {told}"
    return text.translate(str.maketrans(change)), [note]


def _told(change):
    c, new = change
    shown = c if c.isprintable() else ascii(c)
    return f"{shown} as {new if new.strip() else 'a space'}" if new else f"{shown} left out"
