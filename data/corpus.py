"""What a run needs to know of a text: its split, its ids, who speaks in it, and how it begins a line."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import torch

from data.files import DataError
from data.tokenizer import BPETokenizer, CharTokenizer


class AnyCorpus:
    """What follows from the parts of a text, in memory (Corpus) or on disk (data.shards.ShardCorpus)."""

    floor, speakers = None, ()

    @property
    def chars_per_token(self) -> float:
        """Nats a token / this = nats a character; 1 for a character-level tokenizer."""
        return self.val_chars / (len(self.val) - 1)

    @property
    def identity(self) -> dict:
        """What must be equal for a run to go on with this text: its hash, its split, its vocabulary."""
        vocabulary = self.tokenizer.fingerprint
        return {"corpus_sha256": self.sha256, "split": self.split, "vocabulary": vocabulary}

    def facts(self) -> dict:
        """What metrics.json says of the text: numbers and short strings only."""
        return {"name": self.name, "sha256": self.sha256, "floor": self.floor, **self.sizes,
                "tokenizer": self.tokenizer.kind, "speakers": list(self.speakers),
                "examples": list(self.examples)}


@dataclass(frozen=True, eq=False)
class Corpus(AnyCorpus):
    """A text, its 90/10 split and the ids of both parts."""

    name: str  # "tinyshakespeare", "standin", or the name of the reader's own file, made safe
    text: str
    sha256: str  # of the UTF-8 bytes of `text`
    train_text: str  # the first int(0.9 n) characters
    val_text: str
    tokenizer: CharTokenizer | BPETokenizer
    train: torch.Tensor  # (tokens of train_text,) int64
    val: torch.Tensor  # (tokens of val_text,) int64
    floor: float | None = None  # nats/char that no honest model can go below; known for the stand-in only
    floor_se: float | None = None  # standard error of the floor
    notes: tuple[str, ...] = ()  # what was done to the file on the way, a sentence each

    @property
    def val_chars(self) -> int:
        """Characters of the validation text that are scored: all but those of its first token."""
        return len(self.val_text) - len(self.tokenizer.decode([int(self.val[0])]))

    @property
    def split(self) -> int:
        return len(self.train_text)

    @property
    def sizes(self) -> dict:
        return {"characters": len(self.text), "symbols": len(set(self.text)), "split": self.split}

    @cached_property
    def speakers(self) -> tuple[str, ...]:
        """Who speaks in the text, most often first: the names on "NAME:" lines; () if it has none."""
        return _speakers(self.text)[0]

    @cached_property
    def examples(self) -> tuple[str, ...]:
        """Prompts for an app: two speakers, if there are any, and beginnings of lines from validation."""
        names, form = _speakers(self.text)
        return (*(form.format(name) for name in names[:2]), *beginnings(self.val_text, 5 - len(names[:2])))


def corpus_from_text(text: str, name: str, tokenizer=None, floor=None, floor_se=None, notes=()) -> Corpus:
    """A Corpus from a string. With a character `tokenizer`, the text may use its symbols only; without
    any, it makes its own.

    DataError if one of the splits has fewer than two tokens, or if the tokenizer lacks a symbol of the text.
    """
    train_text, val_text = split(text)
    tokenizer = tokenizer or CharTokenizer.from_text(text)
    foreign = sorted(set(text) - set(tokenizer.chars)) if tokenizer.kind == "char" else []
    if foreign:
        shown = ", ".join(ascii(c) for c in foreign[:8]) + (" ..." if len(foreign) > 8 else "")
        raise DataError(f"{name} has {len(foreign)} symbols that the vocabulary lacks ({shown}): "
                        "take them out of the text, or train a new model with the text's own vocabulary")
    train, val = (torch.tensor(tokenizer.encode(part), dtype=torch.int64) for part in (train_text, val_text))
    if len(train) < 2 or len(val) < 2:
        raise DataError(f"{name} has {len(text)} characters, too few to train on 90% of them and validate "
                        "on the rest: use a text of 20 or more")
    sha256 = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return Corpus(name, text, sha256, train_text, val_text, tokenizer, train, val, floor, floor_se, notes)


def split(x):
    """(train, val): the first int(0.9 n) of a string, list or tensor, and the rest."""
    n = int(0.9 * len(x))
    return x[:n], x[n:]


# --- what an app can offer ---

NAME = r"([^\W\d_][^\n:\uff1a]{0,29})[:\uff1a]"
TIME = r"(?:[\[\d][^\n]{4,30}?[\])-] )?"
PLAY = re.compile(rf"^{NAME}[ \t]*$", re.MULTILINE)  # a name alone on its line
CHAT = re.compile(rf"^{TIME}{NAME}[ \t]+(?=\S)", re.MULTILINE)  # [time] Name: words


def _speakers(text):
    """(names, the form of a prompt): a dozen at most; none where too few lines look like speech."""
    lines = text.count("\n") + 1
    for pattern, form in ((PLAY, "{}:\n"), (CHAT, "{}: ")):
        found = Counter(pattern.findall(text))
        names = [name for name, count in found.most_common()
                 if count >= 3 and not name[0].islower() and name.count(" ") < 4]
        if len(names) >= 2 and sum(found[name] for name in names) >= lines / 50:
            return tuple(names[:12]), form
    return (), "{}"


def beginnings(text: str, n: int) -> list[str]:
    """The first words of n lines spread over `text`: long enough to be a prompt, short enough to read."""
    stripped = [line.strip() for line in text.split("\n") if line.strip()] or [""]
    lines = [line for line in stripped if len(line) >= 12 and not line.endswith(":")] or stripped
    picked = dict.fromkeys(lines[len(lines) * i // n] for i in range(n))
    return [line for line in map(_first_words, picked) if line]


def _first_words(line):
    if " " not in line[:24]:  # a script that is written without spaces, or a line of one symbol
        return line[:8]
    return line[:24].rsplit(" ", 1)[0]
