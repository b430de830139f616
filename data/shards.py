"""Text that does not fit memory: token shards on disk, read through a memory map.

    python -m data.shards FOLDER_OF_TXT_FILES OUT --tokenizer bpe
    python train_gpt2.py --preset gpt2-bpe --data OUT --out-dir out/mine

OUT holds train_000.bin, train_001.bin, ... and val_000.bin (uint16 ids, little-endian), meta.json and the
tokenizer. The last tenth of each file's text goes to validation, so that every file is in both splits.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch

from data.corpus import AnyCorpus, beginnings, split
from data.files import DataError, safe_name, say, write_atomic
from data.survey import Survey, read
from data.tokenizer import BPETokenizer, CharTokenizer, TokenizerError, load_tokenizer

SHARD_TOKENS = 100_000_000  # 200 MB a file
PLAIN = re.compile(r"(train|val)_\d{3,6}\.bin")  # the only names that are ever written, read or removed
AGAIN = "make it again with `python -m data.shards`"


class ShardedIds:
    """The ids of one split, spread over files.

    Has a length, and a slice of it is a tensor (n,) int64: only what is asked for is read, so `data.batches`
    takes it like a text in memory.
    """

    def __init__(self, paths):
        self.parts = [np.memmap(path, dtype="<u2", mode="r") for path in paths]
        self.begins = [0, *accumulate(len(part) for part in self.parts)]  # of each part, and the end of all

    def __len__(self):
        return self.begins[-1]

    def __getitem__(self, where: slice | int) -> torch.Tensor:
        """Ids start to stop, across file edges; a single one, as of a tensor, is a scalar."""
        if isinstance(where, int):
            return self[where : where + 1][0]
        start, stop, _ = where.indices(len(self))
        pieces = [part[max(0, start - begin) : max(0, stop - begin)]
                  for part, begin in zip(self.parts, self.begins, strict=False)]
        return torch.from_numpy(np.concatenate(pieces).astype(np.int64))


@dataclass(frozen=True, eq=False)
class ShardCorpus(AnyCorpus):
    """What a run needs to know of a text, as `data.corpus.Corpus` has it, without the text itself."""

    name: str
    sha256: str  # of all the text, file after file
    tokenizer: CharTokenizer | BPETokenizer
    train: ShardedIds
    val: ShardedIds
    val_chars: int  # characters that val stands for, without its first token
    examples: tuple[str, ...] = ()

    @property
    def split(self) -> int:
        """In tokens."""
        return len(self.train)

    @property
    def sizes(self) -> dict:
        return {"tokens": len(self.train) + len(self.val)}


def open_shards(folder) -> ShardCorpus:
    """Open what `write_shards` made. DataError in one sentence if the folder is none, or is damaged."""
    folder = Path(folder)
    try:
        meta = _read_meta(folder)
    except FileNotFoundError:
        raise DataError(f"{folder} holds no token shards (no meta.json): {AGAIN}") from None
    except OSError as error:
        raise DataError(f"{folder / 'meta.json'} cannot be read ({error.strerror}): check the path") from None
    except ValueError:
        raise DataError(f"{folder / 'meta.json'} is damaged or not of ours: {AGAIN}") from None
    for name, tokens in (meta["files"]["train"] | meta["files"]["val"]).items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != 2 * tokens:
            raise DataError(f"{path} is missing or cut off ({2 * tokens} bytes expected): {AGAIN}")
    tokenizer = BPETokenizer() if meta["tokenizer"] == "bpe" else load_tokenizer(folder)
    if tokenizer.vocab_size != meta["vocab_size"]:
        raise DataError(f"{folder / 'tokenizer.json'} is not the one that the shards were made with: {AGAIN}")
    train, val = (ShardedIds([folder / name for name in sorted(files)]) for files in meta["files"].values())
    examples = tuple(meta.get("examples", ()))
    return ShardCorpus(meta["name"], meta["sha256"], tokenizer, train, val, meta["val_chars"], examples)


def _read_meta(folder):
    """meta.json, if it is one of ours; ValueError if not, or OSError."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        parts = meta["files"]["train"], meta["files"]["val"]
        numbers = [meta["vocab_size"], meta["val_chars"], *(n for part in parts for n in part.values())]
        good = (
            list(meta["files"]) == ["train", "val"]
            and meta["tokenizer"] in ("char", "bpe")
            and all(isinstance(s, str) for s in (meta["name"], meta["sha256"], *meta.get("examples", ())))
            and all(PLAIN.fullmatch(name) for part in parts for name in part)
            and all(type(n) is int and n > 0 for n in numbers)
            and all(sum(part.values()) > 1 for part in parts)
        )
    except (TypeError, KeyError, AttributeError, RecursionError):
        good = False
    if not good:
        raise ValueError("not a meta.json of ours")
    return meta


# --- making them ---


def write_shards(folder, out, tokenizer="char", shard_tokens=SHARD_TOKENS, say=say) -> dict:
    """Cut all .txt files of `folder` (and below) into shards in `out`; returns what meta.json holds.

    One file of text is in memory at a time. What can be refused is refused before the work, and an older
    set in `out` stays whole until the new one is. DataError for no text, or an `out` that is not free.
    """
    folder, out = Path(folder), Path(out).resolve()  # a link to another disk is followed, "." has a name
    old = _check_places(folder, out)
    survey = Survey(folder)
    for line in survey.report():
        say(line)
    if not survey.paths:
        raise DataError(f"{folder} has no .txt files with text in them: name a folder with text in it")
    tok = BPETokenizer() if tokenizer == "bpe" else CharTokenizer(sorted(survey.symbols))
    if tok.vocab_size > 2**16:
        raise DataError(f"{folder} has {tok.vocab_size:,} symbols, more than shards can hold: "
                        "use --tokenizer bpe")
    out.mkdir(parents=True, exist_ok=True)
    _remove_parts(out)
    try:
        train, val = (ShardWriter(out, part, shard_tokens) for part in ("train", "val"))
        facts = _encode_all(survey, tok, train, val, say)
        if min(train.tokens, val.tokens) < 2:
            raise DataError(f"{folder} has too little text for a train and a validation split: bring more")
    except BaseException:
        _remove_parts(out)
        raise
    meta = {"name": safe_name(folder.resolve().name), "tokenizer": tokenizer, "vocab_size": tok.vocab_size,
            "val_share": 0.1, **facts, "files": {"train": train.files, "val": val.files}}
    _replace(out, old, tok, meta)
    return meta


def _check_places(folder, out):
    """The names of an older set's files in `out`. DataError if the work could only end badly."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: name a folder with .txt files in it")
    source = folder.resolve()
    if out == source or source in out.parents or out in source.parents:
        raise DataError(f"{out} and {source} lie in one another: name a folder apart from your texts")
    there = next(place for place in (out, *out.parents) if place.exists())
    if not there.is_dir():
        raise DataError(f"{there} is a file: name a new folder")
    if not os.access(there, os.W_OK):
        raise DataError(f"{there} may not be written to: name another folder")
    if not out.exists() or all(map(_is_part, out.iterdir())):
        return []
    try:
        files = _read_meta(out)["files"]
    except (OSError, ValueError):
        raise DataError(f"{out} has other files in it: name a new folder") from None
    return [*files["train"], *files["val"]]


def _is_part(path):
    """Whether this is a shard that is being written, or was when a build was cut off."""
    return path.suffix == ".part" and PLAIN.fullmatch(path.stem) is not None


def _remove_parts(out):
    for path in filter(_is_part, list(out.iterdir())):
        path.unlink()


def _encode_all(survey, tok, train, val, say):
    """Write the ids of every file's two parts; returns what meta.json tells of the text."""
    sha, val_chars, examples = hashlib.sha256(), 0, []
    for path in survey.paths:
        text, found = read(path)
        sha.update(text.encode("utf-8"))
        train_text, val_text = split(text)
        ids = tok.encode(val_text)
        if ids and not examples:
            val_chars -= len(tok.decode(ids[:1]))  # the first token of all has no context, and is not scored
            examples = beginnings(val_text, 5) or [val_text[:8]]
        train.add(tok.encode(train_text))
        val.add(ids)
        val_chars += len(val_text)
        survey.mark_seen(train_text)
        say(f"{path}: {len(text):,} characters, read as {found}")
    if warning := survey.warning():
        say(warning)
    return {"sha256": sha.hexdigest(), "val_chars": val_chars, "examples": examples}


def _replace(out, old, tok, meta):
    """The new set for the old one; meta.json goes first and comes last, so a set is whole or is none."""
    for name in ("meta.json", *old):
        (out / name).unlink(missing_ok=True)
    for name in meta["files"]["train"] | meta["files"]["val"]:
        os.replace(out / f"{name}.part", out / name)
    tok.save(out)
    write_atomic(out / "meta.json", json.dumps(meta, indent=1))


class ShardWriter:
    """Appends ids to PART_000.bin.part, PART_001.bin.part, ..., each of at most `most` tokens."""

    def __init__(self, folder: Path, part: str, most: int):
        self.folder, self.part, self.most = folder, part, most
        self.files: dict[str, int] = {}  # {name without .part: tokens}

    @property
    def tokens(self) -> int:
        return sum(self.files.values())

    def add(self, ids: list[int]) -> None:
        ids = np.asarray(ids, dtype="<u2")
        while len(ids):
            number, used = divmod(self.tokens, self.most)
            piece, ids = np.split(ids, [self.most - used])
            name = f"{self.part}_{number:03d}.bin"
            with open(self.folder / f"{name}.part", "ab") as file:
                file.write(piece.tobytes())
            self.files[name] = used + len(piece)


def main(argv=None):
    what = "Turn a folder of text files into token shards for train_gpt2.py --data."
    parser = argparse.ArgumentParser(prog="python -m data.shards", description=what)
    parser.add_argument("folder", help="folder with .txt files; folders below it count too")
    parser.add_argument("out", help="folder to write; an older set of shards there is replaced")
    parser.add_argument("--tokenizer", choices=("char", "bpe"), default="char", help="default: char")
    args = parser.parse_args(argv)
    try:
        meta = write_shards(args.folder, args.out, args.tokenizer)
    except (DataError, TokenizerError) as error:
        say(error, sys.stderr)
        return 1
    except OSError as error:
        reason = error.strerror or error
        say(f"{args.out} could not be written ({reason}): free space or name another folder", sys.stderr)
        return 1
    sizes = [f"{sum(files.values()):,} {split} tokens" for split, files in meta["files"].items()]
    say(f"{', '.join(sizes)} in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
