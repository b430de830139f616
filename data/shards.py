"""Text that does not fit memory: token shards on disk, read through a memory map.

    python -m data.shards FOLDER_OF_TXT_FILES OUT --tokenizer bpe
    python train_gpt2.py --preset gpt2-bpe --data OUT --out-dir out/mine

OUT holds train_000.bin, train_001.bin, ... and val_000.bin (uint16 ids, little-endian), meta.json and the
tokenizer. The last part of each file's text goes to validation, so that every file is in both splits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.corpus import beginnings
from data.files import DataError, safe_name, say, write_atomic
from data.survey import Survey, cut, find_texts, read
from data.tokenizer import BPETokenizer, CharTokenizer, TokenizerError, load_tokenizer

SHARD_TOKENS = 100_000_000  # 200 MB a file
PLAIN = re.compile(r"(train|val)_\d{3,6}\.bin")  # the only names that are ever written, read or removed
KEYS = {"name", "tokenizer", "vocab_size", "sha256", "val_chars", "files"}  # what makes a meta.json ours
AGAIN = "make it again with `python -m data.shards`"


class ShardedIds:
    """The ids of one split, spread over files.

    Has a length, and a slice of it is a tensor (n,) int64: only what is asked for is read, so `data.batches`
    takes it like a text in memory.
    """

    def __init__(self, paths):
        self.parts = [np.memmap(path, dtype="<u2", mode="r") for path in paths]
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self):
        return int(self.ends[-1])

    def __getitem__(self, where: slice | int) -> torch.Tensor:
        """Ids start to stop, across file edges; a single one, as of a tensor, is a scalar."""
        if isinstance(where, int):
            return self[where : where + 1][0]
        start, stop, _ = where.indices(len(self))
        pieces, begin = [np.zeros(0, "<u2")], 0
        for part, end in zip(self.parts, self.ends.tolist(), strict=True):
            if start < end and stop > begin:
                pieces.append(part[max(0, start - begin) : stop - begin])
            begin = end
        return torch.from_numpy(np.concatenate(pieces).astype(np.int64))


@dataclass(frozen=True, eq=False)
class ShardCorpus:
    """What a training run needs to know of a text, as `data.corpus.Corpus` has it, without the text
    itself.
    """

    name: str
    sha256: str  # of all the text, file after file
    tokenizer: CharTokenizer | BPETokenizer
    train: ShardedIds
    val: ShardedIds
    val_chars: int  # characters that val stands for, without its first token
    examples: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    floor: None = None

    @property
    def tokenizer_kind(self) -> str:
        return self.tokenizer.kind

    @property
    def chars_per_token(self) -> float:
        return self.val_chars / (len(self.val) - 1)

    @property
    def identity(self) -> dict:
        """As of a Corpus: hash, split (in tokens) and vocabulary."""
        return {
            "corpus_sha256": self.sha256,
            "split": len(self.train),
            "vocabulary": self.tokenizer.fingerprint,
        }

    def facts(self) -> dict:
        """What metrics.json says of the text."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "floor": None,
            "tokens": len(self.train) + len(self.val),
            "tokenizer": self.tokenizer.kind,
            "speakers": [],
            "examples": list(self.examples),
        }


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
    for file, tokens in (item for part in meta["files"].values() for item in part.items()):
        path = folder / file
        if not path.is_file() or path.stat().st_size != 2 * tokens:
            raise DataError(f"{path} is missing or cut off ({2 * tokens} bytes expected): {AGAIN}")
    tokenizer = BPETokenizer() if meta["tokenizer"] == "bpe" else load_tokenizer(folder)
    if tokenizer.vocab_size != meta["vocab_size"]:
        raise DataError(f"{folder / 'tokenizer.json'} is not the one that the shards were made with: {AGAIN}")
    train, val = (
        ShardedIds([folder / f for f in sorted(meta["files"][split])]) for split in ("train", "val")
    )
    examples = tuple(e for e in meta.get("examples", ()) if isinstance(e, str))
    return ShardCorpus(meta["name"], meta["sha256"], tokenizer, train, val, meta["val_chars"], examples)


def _read_meta(folder: Path) -> dict:
    """meta.json, if it is one of ours; ValueError if not."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        good = (
            KEYS <= meta.keys()
            and meta["tokenizer"] in ("char", "bpe")
            and set(meta["files"]) == {"train", "val"}
        )
        sizes = [n for part in meta["files"].values() for n in (*part.values(), sum(part.values()) - 1)]
        good &= all(type(n) is int and n > 0 for n in (*sizes, meta["vocab_size"], meta["val_chars"]))
        good &= all(PLAIN.fullmatch(name) for part in meta["files"].values() for name in part)
        good &= all(isinstance(meta[key], str) for key in ("name", "sha256"))
    except (TypeError, KeyError, AttributeError, RecursionError):
        good = False
    if not good:
        raise ValueError("not a meta.json of ours")
    return meta


# --- making them ---


def write_shards(folder, out, tokenizer="char", val_share=0.1, shard_tokens=SHARD_TOKENS, say=say) -> dict:
    """Cut all .txt files of `folder` (and below) into shards in `out`; returns what meta.json holds.

    One file of text is in memory at a time. What can be refused is refused before the work, and an older
    set in `out` stays whole until the new one is. DataError for no text, or an `out` that is not free.
    """
    folder, out = Path(folder), Path(out).resolve()  # a link to another disk is followed, "." has a name
    old = check_places(folder, out)
    paths, skipped = find_texts(folder)
    survey = Survey(paths, skipped, val_share)
    for line in survey.report():
        say(line)
    if not survey.paths:
        raise DataError(f"{folder} has no .txt files with text in them: name a folder with text in it")
    tok = BPETokenizer() if tokenizer == "bpe" else CharTokenizer(sorted(survey.symbols))
    if tok.vocab_size > 2**16:
        raise DataError(
            f"{folder} has {tok.vocab_size:,} symbols, more than shards can hold: use --tokenizer bpe"
        )
    out.mkdir(parents=True, exist_ok=True)
    writers = {split: ShardWriter(out, split, shard_tokens) for split in ("train", "val")}
    try:
        told = encode_all(survey, tok, writers, val_share, say)
        files = {split: writer.close() for split, writer in writers.items()}
        if any(sum(part.values()) < 2 for part in files.values()):
            raise DataError(f"{folder} has too little text for a train and a validation split: bring more")
    except BaseException:
        for writer in writers.values():
            writer.remove()
        raise
    kind = {"tokenizer": tokenizer, "vocab_size": tok.vocab_size, "val_share": val_share}
    meta = {"name": safe_name(folder.resolve().name), **kind, **told, "files": files}
    replace(out, old, writers, tok, meta)
    return meta


def encode_all(survey: Survey, tok, writers: dict, val_share: float, say) -> dict:
    """Write the ids of every file's two parts; returns what meta.json tells of the text."""
    sha, val_chars, examples, seen = hashlib.sha256(), 0, [], 0
    for path in survey.paths:
        text, found = read(path)
        sha.update(text.encode("utf-8"))
        train, val = cut(text, val_share)
        ids = tok.encode(val)
        if ids and not examples:
            val_chars -= len(tok.decode(ids[:1]))  # the first token of all has no context, and is not scored
            examples = beginnings(val, 5) or [val[:8]]
        writers["train"].add(tok.encode(train))
        writers["val"].add(ids)
        val_chars += len(val)
        seen += survey.seen_again(train)
        say(f"{path}: {len(text):,} characters, read as {found}")
    if seen:
        say(survey.warning(seen))
    return {"sha256": sha.hexdigest(), "val_chars": val_chars, "examples": examples}


def check_places(folder: Path, out: Path) -> dict | None:
    """The older set's meta in `out`, None if there is none. DataError if the work could only end badly."""
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
    left = [p.name for p in out.iterdir()] if out.exists() else []  # of a build that was cut off: *.bin.part
    if all(name.endswith(".part") and PLAIN.fullmatch(name.removesuffix(".part")) for name in left):
        return None
    try:
        return _read_meta(out)
    except (OSError, ValueError):
        raise DataError(f"{out} has other files in it: name a new folder") from None


def replace(out: Path, old: dict | None, writers: dict, tok, meta: dict) -> None:
    """The new set for the old one; meta.json goes first and comes last, so a set is whole or is none."""
    (out / "meta.json").unlink(missing_ok=True)
    for part in (old or {"files": {}})["files"].values():
        for name in part:
            (out / name).unlink(missing_ok=True)
    for writer in writers.values():
        for name in writer.close():
            os.replace(out / f"{name}.part", out / name)
    tok.save(out)
    write_atomic(out / "meta.json", json.dumps(meta, indent=1))


class ShardWriter:
    """Appends ids to PREFIX_000.bin.part, PREFIX_001.bin.part, ..., each of at most `most` tokens."""

    def __init__(self, folder, prefix, most):
        self.folder, self.prefix, self.most = folder, prefix, most
        self.files, self.file, self.name = {}, None, ""

    def add(self, ids):
        ids = np.asarray(ids, dtype="<u2")
        while len(ids):
            if self.file is None or self.files[self.name] == self.most:
                self._next()
            room = self.most - self.files[self.name]
            self.file.write(ids[:room].tobytes())
            self.files[self.name] += len(ids[:room])
            ids = ids[room:]

    def _next(self):
        self.close()
        self.name = f"{self.prefix}_{len(self.files):03d}.bin"
        self.file, self.files[self.name] = open(self.folder / f"{self.name}.part", "wb"), 0

    def close(self) -> dict:
        """{file name: tokens}"""
        if self.file:
            self.file.close()
        return self.files

    def remove(self):
        """Leave nothing behind."""
        for name in self.close():
            (self.folder / f"{name}.part").unlink(missing_ok=True)


def main(argv=None):
    what = "Turn a folder of text files into token shards for train_gpt2.py --data."
    parser = argparse.ArgumentParser(prog="python -m data.shards", description=what)
    parser.add_argument("folder", help="folder with .txt files; folders below it count too")
    parser.add_argument("out", help="folder to write; an older set of shards there is replaced")
    parser.add_argument("--tokenizer", choices=("char", "bpe"), default="char", help="default: char")
    parser.add_argument(
        "--val-share", type=float, default=0.1, help="last part of each file kept for validation (0.1)"
    )
    args = parser.parse_args(argv)
    if not 0 < args.val_share < 1:
        parser.error("--val-share must be between 0 and 1")
    try:
        meta = write_shards(args.folder, args.out, args.tokenizer, args.val_share)
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
