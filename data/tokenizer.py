"""Text to numbers and back: one symbol a letter (`CharTokenizer`), or GPT-2's own pieces (`BPETokenizer`).

Needs neither torch nor any other file of the project, so a Space can carry it alone. Both kinds save a
`tokenizer.json` that `tokenizers`, `transformers.AutoTokenizer` and transformers.js read with the same ids.
"""

from __future__ import annotations

import json
import operator
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

# what to try, in order, for a character that the vocabulary lacks; NFKD and accent stripping come after these
STAND_FOR = {
    "\u2018": ["'"], "\u2019": ["'"], "\u201a": ["'", ","], "\u201b": ["'"], "\u2032": ["'"], "`": ["'"],
    "\u00b4": ["'"], "\u02bc": ["'"], "\u2039": ["'"], "\u203a": ["'"], "\u201c": ['"', "'"], "\u201d": ['"', "'"],
    "\u201e": ['"', "'"], "\u201f": ['"', "'"], "\u00ab": ['"', "'"], "\u00bb": ['"', "'"], "\u2033": ['"', "'"],
    '"': ["'"], "\u2010": ["-"], "\u2011": ["-"], "\u2012": ["-"], "\u2013": ["-"], "\u2212": ["-"],
    "\u2014": ["--", "-"], "\u2015": ["--", "-"], "\u2026": ["...", "."], "\r": ["\n", " "], "\u0085": ["\n", " "],
    "\u2028": ["\n", " "], "\u2029": ["\n", " "], "\x0b": ["\n", " "], "\x0c": ["\n", " "], "\n": [" "],
    "\t": [" "], "\u200b": [""], "\ufeff": [""], "\u00ad": [""], "\u00df": ["ss"], "\u1e9e": ["SS"],
    "\u00e6": ["ae"], "\u00c6": ["Ae", "AE"], "\u0153": ["oe"], "\u0152": ["Oe", "OE"], "\u00f8": ["o"],
    "\u00d8": ["O"], "\u0142": ["l"], "\u0141": ["L"], "\u0111": ["d"], "\u0110": ["D"], "\u00fe": ["th"],
    "\u00de": ["Th"], "\u00f0": ["d"], "\u00d0": ["D"], "\u0131": ["i"], "\u017f": ["s"], "\u00bf": ["?"],
    "\u00a1": ["!"],
}  # fmt: skip

# GPT-2's way of cutting text before merging, as tiktoken states it
GPT2_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
GPT2_VOCAB = 50257


class TokenizerError(ValueError):
    """A tokenizer file that is missing, damaged or of another kind; the text says which and what to do."""


class CharTokenizer:
    """One id for each character of a text, in sorted order.

    `encode` is total: it takes any string, maps what it can (typographic quotes, dashes, line ends, accents)
    to characters it has, leaves out the rest, and never raises. `dropped` says what was left out.
    """

    def __init__(self, chars: Iterable[str]):
        self.chars = list(chars)
        self._ids = {c: i for i, c in enumerate(self.chars)}
        if len(self._ids) != len(self.chars) or any(len(c) != 1 for c in self.chars):
            raise TokenizerError("a character vocabulary needs single characters, each of them once")

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """The vocabulary of `text`: its different characters, sorted. Lone surrogates cannot be saved: left out."""
        return cls(sorted(c for c in set(text) if not "\ud800" <= c <= "\udfff"))

    @property
    def vocab_size(self) -> int:
        return len(self.chars)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; any string will do. Text made of the vocabulary alone comes back from `decode` unchanged."""
        try:
            return [self._ids[c] for c in text]  # the common case, at full speed
        except KeyError:
            text = self._line_ends(text)
            kept = {c: [self._ids[k] for k in self._keep(c) or ""] for c in set(text)}
            return [i for c in text for i in kept[c]]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids` (a list, an array or a 1-D tensor). ValueError names an id that is out of range."""
        return "".join([self.chars[i] for i in _checked(ids, self.vocab_size)])

    def dropped(self, text: str) -> list[str]:
        """The characters of `text` that `encode` leaves out without a replacement, each once, in order."""
        return [c for c in dict.fromkeys(self._line_ends(text)) if self._keep(c) is None]

    def _line_ends(self, text: str) -> str:
        return text if "\r" in self._ids else text.replace("\r\n", "\n")

    def _keep(self, c: str) -> str | None:
        """What stands for `c`: a string over the vocabulary, "" for a bare accent, None if nothing does."""
        if c in self._ids:
            return c
        for other in STAND_FOR.get(c, ()):
            if all(k in self._ids for k in other):
                return other
        if unicodedata.category(c) == "Mn":  # the accent of a decomposed letter: goes as quietly as a composed one
            return ""
        parts = unicodedata.normalize("NFKD", c)
        if parts == c:
            return None
        kept = [self._keep(p) for p in parts]
        return None if None in kept else "".join(kept) or None

    def save(self, folder: str | os.PathLike, block_size: int = 1024) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`; `block_size` is the context of the model beside it."""
        model = {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": self._ids, "merges": [],
        }  # fmt: skip
        _write_tokenizer(folder, model, None, {"type": "Fuse"}, block_size)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> CharTokenizer:
        """Read what `save` wrote. TokenizerError if the file is missing, damaged or not character-level."""
        path, model = _read_model(folder)
        vocab = model["vocab"]
        if model.get("merges") or not all(len(c) == 1 for c in vocab):
            raise TokenizerError(f"{path} is not a character-level tokenizer; load_tokenizer() reads both kinds")
        if not vocab or sorted(vocab.values()) != list(range(len(vocab))):
            raise TokenizerError(f"{path} is damaged: its ids are not 0 to {len(vocab) - 1}; save it again")
        return cls(sorted(vocab, key=vocab.get))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CharTokenizer) and self.chars == other.chars

    def __hash__(self) -> int:
        return hash(tuple(self.chars))

    def __repr__(self) -> str:
        return f"CharTokenizer({self.vocab_size} characters)"


class BPETokenizer:
    """GPT-2's byte-pair encoding, 50,257 pieces, from `tiktoken` (downloaded at first use, then cached).

    `<|endoftext|>` in a text is read as plain characters: a text cannot slip in a special id.
    """

    def __init__(self, encoding=None):
        self._enc = encoding if encoding is not None else _tiktoken_gpt2()

    @classmethod
    def from_text(cls, text: str) -> BPETokenizer:
        """GPT-2's vocabulary is fixed: `text` is not looked at."""
        return cls()

    @property
    def vocab_size(self) -> int:
        return self._enc.n_vocab

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; any string will do."""
        return self._enc.encode_ordinary(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are no UTF-8 become U+FFFD. ValueError names an id that is out of range."""
        return self._enc.decode(_checked(ids, self.vocab_size), errors="replace")

    def dropped(self, text: str) -> list[str]:
        """Bytes spell everything but lone surrogates."""
        return [c for c in dict.fromkeys(text) if "\ud800" <= c <= "\udfff"]

    def save(self, folder: str | os.PathLike, block_size: int = 1024) -> None:
        """Write `tokenizer.json` with the same vocabulary and merges, so the same ids, and its config."""
        ranks = {piece: self._enc.encode_single_token(piece) for piece in self._enc.token_byte_values()}
        ranks.pop(b"<|endoftext|>", None)
        name = _byte_names()
        spell = {piece: "".join(name[b] for b in piece) for piece in ranks}
        vocab = {spell[p]: i for p, i in sorted(ranks.items(), key=lambda item: item[1])}
        vocab["<|endoftext|>"] = GPT2_VOCAB - 1
        merges = [[spell[a], spell[b]] for a, b in _merges(ranks)]
        model = {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": vocab, "merges": merges,
        }  # fmt: skip
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        _write_tokenizer(folder, model, byte_level, byte_level, block_size)

    @classmethod
    def load(cls, folder: str | os.PathLike) -> BPETokenizer:
        """Read a folder's `tokenizer.json` of GPT-2's vocabulary: needs tiktoken the package, but no download."""
        path, model = _read_model(folder)
        if len(model["vocab"]) != GPT2_VOCAB:
            raise TokenizerError(f"{path} has {len(model['vocab'])} pieces, GPT-2's vocabulary has {GPT2_VOCAB}")
        byte_of = {c: b for b, c in _byte_names().items()}
        try:
            ranks = {bytes(byte_of[c] for c in p): i for p, i in model["vocab"].items() if p != "<|endoftext|>"}
        except KeyError as error:
            raise TokenizerError(f"{path} is not GPT-2's vocabulary: {error} spells no byte") from None
        Encoding, special = _import_tiktoken().Encoding, {"<|endoftext|>": GPT2_VOCAB - 1}
        return cls(Encoding("gpt2", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens=special))

    def __repr__(self) -> str:
        return f"BPETokenizer({self.vocab_size} pieces)"


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


def _import_tiktoken():
    try:
        import tiktoken
    except ImportError:
        raise TokenizerError("GPT-2's BPE needs the package tiktoken: pip install tiktoken") from None
    return tiktoken


def _tiktoken_gpt2():
    tiktoken = _import_tiktoken()
    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # requests, ssl, disk and hash errors alike: tiktoken lets them all through
        raise TokenizerError(
            f"GPT-2's BPE files could not be read ({type(error).__name__}): turn on internet for the first use, "
            "or point TIKTOKEN_CACHE_DIR at a folder that has them"
        ) from None


def _byte_names() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where it prints, else a letter from 256 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {b: chr(b) for b in plain}
    names.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in names)})
    return names


def _merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The merge that made each piece, in order: the two parts that are left when only earlier merges are allowed."""
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


def _write_tokenizer(folder, model: dict, pre_tokenizer, decoder: dict, block_size: int) -> None:
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": decoder, "model": model,
    }  # fmt: skip
    # without this class transformers 5 forces its own pre-tokenizer on model_type gpt2 and gives wrong ids
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", config)


def _write_json(path: Path, value: dict) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _read_model(folder: str | os.PathLike) -> tuple[Path, dict]:
    """The path of `tokenizer.json` and its "model" part, or one sentence about what is wrong with it."""
    path = Path(folder)
    path = path / "tokenizer.json" if path.suffix != ".json" else path
    try:
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        kind, vocab = model["type"], model["vocab"]
    except FileNotFoundError:
        raise TokenizerError(f"{path} is missing: is {path.parent} a model folder?") from None
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise TokenizerError(f"{path} is damaged or no tokenizer file: save or download it again") from None
    if kind != "BPE" or not isinstance(vocab, dict) or not all(type(i) is int for i in vocab.values()):
        raise TokenizerError(f"{path} holds a {kind} tokenizer of another project, not one of ours")
    return path, model
