"""Text that does not fit memory: token shards on disk, read through a memory map.

    python -m data.shards FOLDER_OF_TXT_FILES OUT --tokenizer bpe
    python train_gpt2.py --preset gpt2-bpe --data OUT --out-dir out/mine

OUT holds train_000.bin, train_001.bin, ... and val_000.bin (uint16 ids, little-endian), meta.json and, for characters,
the tokenizer. The last part of each file's text goes to validation, so that every file is in both splits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.shakespeare import DataError, batch_starts
from data.tokenizer import BPETokenizer, CharTokenizer, TokenizerError, load_tokenizer

SHARD_TOKENS = 100_000_000  # 200 MB a file


class ShardedIds:
    """The ids of one split, spread over files; only what a batch touches is read."""

    def __init__(self, paths):
        self.parts = [np.memmap(path, dtype="<u2", mode="r") for path in paths]
        self.ends = np.cumsum([len(part) for part in self.parts])

    def __len__(self):
        return int(self.ends[-1])

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Ids start to stop, across file edges."""
        pieces, begin = [], 0
        for part, end in zip(self.parts, self.ends, strict=True):
            if start < end and stop > begin:
                pieces.append(part[max(0, start - begin) : stop - begin])
            begin = int(end)
        return np.concatenate(pieces)

    def get_batch(self, block_size: int, batch_size: int, seed: int, step: int):
        """(x, y), both (B, T) int64, as `data.shakespeare.get_batch` draws them from a text in memory."""
        starts = batch_starts(len(self), block_size, batch_size, seed, step)
        rows = np.stack([self.slice(int(s), int(s) + block_size + 1) for s in starts]).astype(np.int64)
        window = torch.from_numpy(rows)  # (B, T + 1)
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()


@dataclass(frozen=True, eq=False)
class ShardCorpus:
    """What a training run needs to know of a text, as `data.shakespeare.Corpus` has it, without the text itself."""

    name: str
    sha256: str  # of all the text, file after file
    tokenizer: CharTokenizer | BPETokenizer
    tokenizer_kind: str  # "char" or "bpe"
    train: ShardedIds
    val: torch.Tensor  # (n,) int64, in memory: it is scored whole at each validation
    val_chars: int  # characters that val stands for, without its first token
    floor: None = None


def open_shards(folder) -> ShardCorpus:
    """Open what `write_shards` made. DataError in one sentence if the folder is none, or is damaged."""
    folder = Path(folder)
    again = "make it again with `python -m data.shards`"
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        files = {split: sorted(meta["files"][split].items()) for split in ("train", "val")}
        kind, name, sha256, val_chars = (meta[k] for k in ("tokenizer", "name", "sha256", "val_chars"))
    except FileNotFoundError:
        raise DataError(f"{folder} holds no token shards (no meta.json): {again}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{folder / 'meta.json'} is damaged: {again}") from None
    for file, tokens in files["train"] + files["val"]:
        path = folder / file
        if not path.is_file() or path.stat().st_size != 2 * tokens:
            raise DataError(f"{path} is missing or cut off ({2 * tokens} bytes expected): {again}")
    tokenizer = BPETokenizer() if kind == "bpe" else load_tokenizer(folder)
    train, val = (ShardedIds([folder / file for file, _ in files[split]]) for split in ("train", "val"))
    val = torch.from_numpy(val.slice(0, len(val)).astype(np.int64))
    return ShardCorpus(name, sha256, tokenizer, kind, train, val, val_chars)


def write_shards(folder, out, tokenizer="char", val_share=0.1, shard_tokens=SHARD_TOKENS, say=print) -> dict:
    """Cut all .txt files of `folder` (and below) into shards in `out`; returns what meta.json holds.

    One file of text is in memory at a time. DataError for no text, no UTF-8, or an `out` with other files in it.
    """
    folder, out = Path(folder), Path(out)
    paths = sorted(folder.rglob("*.txt"))
    if not paths:
        raise DataError(f"{folder} has no .txt files: name a folder with text in it")
    if out.exists() and any(out.iterdir()) and not (out / "meta.json").exists():
        raise DataError(f"{out} has other files in it: name a new folder")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tok = BPETokenizer() if tokenizer == "bpe" else CharTokenizer(sorted(set().union(*(set(read(p)) for p in paths))))
    writers = {split: ShardWriter(part, split, shard_tokens) for split in ("train", "val")}
    sha, val_chars, first = hashlib.sha256(), 0, None
    for path in paths:
        text = read(path)
        sha.update(text.encode("utf-8"))
        cut = int((1 - val_share) * len(text))
        writers["train"].add(tok.encode(text[:cut]))
        ids = tok.encode(text[cut:])
        writers["val"].add(ids)
        val_chars += len(text) - cut
        first = ids[0] if first is None and ids else first
        say(f"{path}: {len(text):,} characters")
    files = {split: writer.close() for split, writer in writers.items()}
    if any(sum(files[split].values()) < 2 for split in files):
        raise DataError(f"{folder} has too little text for a train and a validation split: bring more")
    tok.save(part)
    meta = {"name": folder.name, "tokenizer": tokenizer, "vocab_size": tok.vocab_size, "sha256": sha.hexdigest(),
            "val_chars": val_chars - len(tok.decode([first])), "files": files}
    (part / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)
    return meta


class ShardWriter:
    """Appends ids to PREFIX_000.bin, PREFIX_001.bin, ..., each of at most `most` tokens."""

    def __init__(self, folder, prefix, most):
        self.folder, self.prefix, self.most = folder, prefix, most
        self.files, self.open = {}, None

    def add(self, ids):
        ids = np.asarray(ids, dtype="<u2")
        while len(ids):
            if self.open is None or self.files[self.open.name] == self.most:
                self._next()
            room = self.most - self.files[self.open.name]
            self.open.write(ids[:room].tobytes())
            self.files[self.open.name] += len(ids[:room])
            ids = ids[room:]

    def _next(self):
        if self.open:
            self.open.close()
        self.open = open(self.folder / f"{self.prefix}_{len(self.files):03d}.bin", "wb")  # noqa: SIM115
        self.files[self.open.name] = 0

    def close(self) -> dict:
        """{file name: tokens}"""
        if self.open:
            self.open.close()
        return {os.path.basename(name): n for name, n in self.files.items()}


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start} does not fit): save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m data.shards", description="Turn a folder of text files into token "
                                     "shards for train_gpt2.py --data.")
    parser.add_argument("folder", help="folder with .txt files, in UTF-8; folders below it count too")
    parser.add_argument("out", help="folder to write; an older set of shards there is replaced")
    parser.add_argument("--tokenizer", choices=("char", "bpe"), default="char", help="default: char")
    parser.add_argument("--val-share", type=float, default=0.1, help="last part of each file kept for validation (0.1)")
    args = parser.parse_args(argv)
    if not 0 < args.val_share < 1:
        parser.error("--val-share must be between 0 and 1")
    try:
        meta = write_shards(args.folder, args.out, args.tokenizer, args.val_share)
    except (DataError, TokenizerError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{args.out} could not be written ({error.strerror}): free space or name another folder", file=sys.stderr)
        return 1
    sizes = [f"{sum(files.values()):,} {split} tokens" for split, files in meta["files"].items()]
    print(", ".join(sizes), "in", args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
