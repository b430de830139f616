"""Text to numbers and back: one symbol a letter (`CharTokenizer`), or pieces of words (`BPETokenizer`).

Needs no torch, and of the project data/files.py alone, so a Space can carry it. Both kinds save a
`tokenizer.json` that `tokenizers`, `transformers.AutoTokenizer` and transformers.js read with the same ids.
"""

import hashlib
import importlib
import json
import operator
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from data.files import write_atomic

# what to try, in order, for a character that the vocabulary lacks; NFKD and accent stripping come after these
SAME = {  # what to try: for which characters
    ("'",): "\u2018\u2019\u201b\u2032`\u00b4\u02bc\u2039\u203a\"", ("'", ","): "\u201a",
    ('"', "'"): "\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033",
    ("-",): "\u2010\u2011\u2012\u2013\u2212", ("--", "-"): "\u2014\u2015", ("...", "."): "\u2026",
    ("\n", " "): "\r\u0085\u2028\u2029\x0b\x0c", (" ",): "\n\t", ("",): "\u200b\ufeff\u00ad",
    ("?",): "\u00bf", ("!",): "\u00a1",
}
LETTERS = {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "Ae AE", "œ": "oe", "Œ": "Oe OE", "ø": "o", "Ø": "O",
           "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "þ": "th", "Þ": "Th", "ð": "d", "Ð": "D", "ı": "i",
           "ſ": "s"}
STAND_FOR = {c: other for other, many in SAME.items() for c in many}
STAND_FOR |= {c: tuple(other.split()) for c, other in LETTERS.items()}

# GPT-2's way of cutting text before merging, as tiktoken states it
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
GPT2_VOCAB = 50257
END_OF_TEXT = b"<|endoftext|>"
LONG_RUN = re.compile(r"(?<!\s)\s{100000}")  # inside a million spaces tiktoken's pattern overflows its stack
LARGEST_FILE = 50_000_000  # bytes of a tokenizer.json; GPT-2's has 3.6 million


class TokenizerError(ValueError):
    """A tokenizer file that is missing, damaged or of another kind; the text says which and what to do."""


class Tokenizer:
    """What both kinds have in common."""

    @property
    def start_id(self) -> int:
        """The id that a text begins from when there is no prompt: a new line, or the nearest thing to it."""
        for c in "\n .":
            if ids := self.encode(c):
                return ids[0]
        return next((i for i in range(self.vocab_size) if self.decode([i]).isalpha()), 0)

    @property
    def fingerprint(self) -> str:
        """A hash of the vocabulary: two tokenizers with the same one give the same ids."""
        return hashlib.sha256(repr(self._pieces()).encode("utf-8")).hexdigest()[:16]


class CharTokenizer(Tokenizer):
    """One id for each character of a text, in sorted order.

    `encode` is total: it takes any string, maps what it can (typographic quotes, dashes, line ends, accents)
    to characters it has, leaves out the rest, and never raises. `dropped` says what was left out.
    """

    kind = "char"

    def __init__(self, chars: Iterable[str]):
        self.chars = list(chars)
        self._ids = {c: i for i, c in enumerate(self.chars)}
        if len(self._ids) != len(self.chars) or any(len(c) != 1 for c in self.chars):
            raise TokenizerError("a character vocabulary needs single characters, each of them once")

    @classmethod
    def from_text(cls, text: str):
        """The different characters of `text`, sorted; but lone surrogates, which no file can hold."""
        return cls(sorted(c for c in set(text) if not "\ud800" <= c <= "\udfff"))

    @property
    def vocab_size(self) -> int:
        return len(self.chars)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; any string will do. What is made of the vocabulary alone, `decode` gives back."""
        try:
            return [self._ids[c] for c in text]  # the common case, at full speed
        except KeyError:
            text = self._line_ends(text)
            kept = {c: [self._ids[k] for k in self.replacement(c) or ""] for c in set(text)}
            return [i for c in text for i in kept[c]]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` (a list, an array or a 1-D tensor). ValueError names an id out of range."""
        return "".join([self.chars[i] for i in _checked(ids, self.vocab_size)])

    def dropped(self, text: str) -> list[str]:
        """The characters of `text` that `encode` leaves out without a replacement, each once, in order."""
        return [c for c in dict.fromkeys(self._line_ends(text)) if self.replacement(c) is None]

    def _pieces(self) -> list:
        return self.chars

    def _line_ends(self, text: str) -> str:
        return text if "\r" in self._ids else text.replace("\r\n", "\n")

    def replacement(self, c: str) -> str | None:
        """What stands for `c`: a string over the vocabulary, "" for a bare accent, None if nothing does."""
        if c in self._ids:
            return c
        for other in STAND_FOR.get(c, ()):
            if all(k in self._ids for k in other):
                return other
        if unicodedata.category(c) == "Mn":  # a bare accent: goes as quietly as one on its letter
            return ""
        parts = unicodedata.normalize("NFKD", c)
        if parts == c:
            return None
        kept = [self.replacement(p) for p in parts]
        return None if None in kept else "".join(kept) or None

    def save(self, folder: str | os.PathLike, block_size: int = 1024) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` for a model of context `block_size`."""
        _write_tokenizer(folder, self._ids, [], None, {"type": "Fuse"}, block_size)

    @classmethod
    def load(cls, folder: str | os.PathLike):
        """Read what `save` wrote. TokenizerError if the file is missing, damaged or not character-level."""
        path, model = _read_model(folder)
        vocab = model["vocab"]
        if model.get("merges") or not all(len(c) == 1 for c in vocab):
            raise TokenizerError(f"{path} is not a character-level tokenizer; load_tokenizer() reads both")
        if not vocab or sorted(vocab.values()) != list(range(len(vocab))):
            raise TokenizerError(f"{path} is damaged: its ids are not 0 to {len(vocab) - 1}; save it again")
        return cls(sorted(vocab, key=vocab.get))


class BPETokenizer(Tokenizer):
    """Byte-pair encoding: GPT-2's 50,257 pieces from `tiktoken` (downloaded at first use, then cached), or
    pieces of a text's own (`train`).

    `<|endoftext|>` in a text is read as plain characters: a text cannot slip in a special id.
    """

    def __init__(self, encoding=None):
        self._enc = encoding or _tiktoken_gpt2()

    @classmethod
    def train(cls, text: str, size: int = 2048):
        """A vocabulary of `text`'s own: the 256 bytes, and pieces merged from them until there are `size`."""
        tokenizers = _import("tokenizers", "pieces of a text's own need")
        byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        own = tokenizers.Tokenizer(tokenizers.models.BPE())
        own.pre_tokenizer = byte_level
        trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, show_progress=False,
                                                 initial_alphabet=byte_level.alphabet())
        own.train_from_iterator(text.splitlines(keepends=True), trainer)
        return cls(_encoding(own.get_vocab()))

    @property
    def kind(self) -> str:
        return "bpe" if self.vocab_size == GPT2_VOCAB else "pieces"

    @property
    def vocab_size(self) -> int:
        return self._enc.n_vocab

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; any string will do."""
        parts = [text]
        if LONG_RUN.search(text):
            parts = [text[at : at + 50_000] for at in range(0, len(text), 50_000)]
        return [i for part in parts for i in self._enc.encode_ordinary(part)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD. ValueError names an id out of range."""
        return self._enc.decode(_checked(ids, self.vocab_size), errors="replace")

    def dropped(self, text: str) -> list[str]:
        """Bytes spell everything but lone surrogates."""
        return [c for c in dict.fromkeys(text) if "\ud800" <= c <= "\udfff"]

    def _pieces(self) -> list:
        return sorted((self._enc.encode_single_token(p), p) for p in self._enc.token_byte_values())

    def save(self, folder: str | os.PathLike, block_size: int = 1024) -> None:
        """Write `tokenizer.json` with the same vocabulary and merges, so the same ids, and its config."""
        ranks = {piece: i for i, piece in self._pieces() if piece != END_OF_TEXT}
        name = _byte_names()
        spell = {piece: "".join(name[b] for b in piece) for piece in ranks}
        vocab = {spell[piece]: i for piece, i in ranks.items()}
        if self.kind == "bpe":
            vocab[END_OF_TEXT.decode()] = GPT2_VOCAB - 1
        merges = [[spell[a], spell[b]] for a, b in _merges(ranks)]
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        _write_tokenizer(folder, vocab, merges, byte_level, byte_level, block_size)

    @classmethod
    def load(cls, folder: str | os.PathLike):
        """Read a folder's byte-level `tokenizer.json`: needs tiktoken the package, but no download."""
        path, model = _read_model(folder)
        _import("tiktoken", "GPT-2's BPE needs")  # its absence is no fault of the file
        try:
            return cls(_encoding(model["vocab"]))
        except KeyError as error:
            raise TokenizerError(f"{path} is no byte-level BPE: {error} spells no byte") from None
        except ValueError as error:
            raise TokenizerError(f"{path} is no byte-level BPE of ours: {error}") from None


def load_tokenizer(folder: str | os.PathLike) -> CharTokenizer | BPETokenizer:
    """The tokenizer of a model folder, whichever of the two kinds it is. TokenizerError if it is neither."""
    _, model = _read_model(folder)
    return (BPETokenizer if model.get("merges") else CharTokenizer).load(folder)


def _checked(ids, vocab_size: int) -> list[int]:
    """`ids` as a list of plain ints, each in 0 .. vocab_size-1."""
    ids = ids.tolist() if hasattr(ids, "tolist") else ids
    ids = [ids] if isinstance(ids, int) else list(ids)
    try:
        ids = [operator.index(i) for i in ids]
    except TypeError:
        raise ValueError("decode takes one flat sequence of whole numbers, such as ids[0].tolist()") from None
    for i in ids:
        if not 0 <= i < vocab_size:
            raise ValueError(f"id {i} is not in the vocabulary: ids go from 0 to {vocab_size - 1}")
    return ids


def _import(package: str, who_needs: str):
    try:
        return importlib.import_module(package)
    except ImportError:
        raise TokenizerError(f"{who_needs} the package {package}: pip install {package}") from None


def _encoding(vocab: dict[str, int]):
    """tiktoken's Encoding of a vocabulary as tokenizer.json spells it. KeyError, ValueError if it is none."""
    byte_of = {c: b for b, c in _byte_names().items()}
    end = {t: i for t, i in vocab.items() if t == END_OF_TEXT.decode()}
    ranks = {bytes(byte_of[c] for c in piece): i for piece, i in vocab.items() if piece not in end}
    if b"" in ranks or sorted([*ranks.values(), *end.values()]) != list(range(len(vocab))):
        raise ValueError(f"its ids are not 0 to {len(vocab) - 1}")
    missing = [b for b in range(256) if bytes([b]) not in ranks]
    if missing:
        raise ValueError(f"byte {missing[0]} has no id")
    tiktoken = _import("tiktoken", "GPT-2's BPE needs")
    return tiktoken.Encoding("own", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=end)


def _tiktoken_gpt2():
    tiktoken = _import("tiktoken", "GPT-2's BPE needs")
    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # requests, ssl, disk and hash errors alike: tiktoken lets them all through
        kind = type(error).__name__
        raise TokenizerError(f"GPT-2's BPE files could not be read ({kind}): turn on internet for the first "
                             "use, or point TIKTOKEN_CACHE_DIR at a folder that has them") from None


def _byte_names() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where it prints, else a letter from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {b: chr(b) for b in plain}
    names.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in names)})
    return names


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge that made each piece, in order: the two parts left when only earlier merges are allowed."""
    merges = []
    for piece, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([b]) for b in piece]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
            i = pairs.index(min(pairs))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            merges.append((parts[0], parts[1]))
    return merges


def _write_tokenizer(folder, vocab, merges, pre_tokenizer, decoder, block_size):
    affix = "" if merges else None
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": affix,
             "end_of_word_suffix": affix, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": vocab, "merges": merges}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
                 "normalizer": None, "pre_tokenizer": pre_tokenizer, "post_processor": None,
                 "decoder": decoder, "model": model}
    # without this class transformers 5 forces its own pre-tokenizer on model_type gpt2 and gives wrong ids
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": block_size,
              "clean_up_tokenization_spaces": False}
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, value in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        write_atomic(Path(folder) / name, json.dumps(value, ensure_ascii=False, indent=1))


def _read_model(folder):
    """The path of `tokenizer.json` and its "model" part, or one sentence about what is wrong with it."""
    path = Path(folder) / "tokenizer.json"
    try:
        if path.stat().st_size > LARGEST_FILE:
            problem = "is larger than any tokenizer file of ours: download the model again"
        else:
            model = json.loads(path.read_text(encoding="utf-8"))["model"]
            kind, vocab = model["type"], model["vocab"]
            if kind == "BPE" and isinstance(vocab, dict) and all(type(i) is int for i in vocab.values()):
                return path, model
            problem = f"holds a {kind} tokenizer of another project, not one of ours"
    except FileNotFoundError:
        problem = f"is missing: is {path.parent} a model folder?"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, RecursionError):
        problem = "is damaged or no tokenizer file: save or download it again"
    raise TokenizerError(f"{path} {problem}")
