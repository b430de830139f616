"""Text that does not fit memory: token shards on disk, read through a memory map.

    python -m data.shards FOLDER_OF_TXT_FILES OUT --tokenizer bpe
    python train_gpt2.py --preset gpt2-bpe --data OUT --out-dir out/mine

OUT holds train.bin and val.bin (uint16 ids, little-endian), meta.json and the tokenizer. The last tenth of
each file's text goes to validation, so that every file is in both splits.
"""

import argparse
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.corpus import AnyCorpus, beginnings, split
from data.files import DataError, safe_name, say, write_atomic
from data.survey import Survey, read
from data.tokenizer import BPETokenizer, CharTokenizer, TokenizerError, load_tokenizer

PARTS = ("train", "val")  # PART.bin, and PART.bin.part while it is made: no other name is written or removed
AGAIN = "make it again with `python -m data.shards`"


class IdsOnDisk:
    """The ids of one split. Has a length, and a slice of it is a tensor (n,) int64: only what is asked for
    is read, so `data.batches` takes it like a text in memory.
    """

    def __init__(self, path):
        self.ids = np.memmap(path, dtype="<u2", mode="r")

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, where: slice | int) -> torch.Tensor:
        return torch.from_numpy(np.array(self.ids[where], np.int64))


@dataclass(frozen=True, eq=False)
class ShardCorpus(AnyCorpus):
    """What a run needs to know of a text, as `data.corpus.Corpus` has it, without the text itself."""

    name: str
    sha256: str  # of all the text, file after file
    tokenizer: CharTokenizer | BPETokenizer
    train: IdsOnDisk
    val: IdsOnDisk
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
    for part, tokens in meta["tokens"].items():
        path = folder / f"{part}.bin"
        if not path.is_file() or path.stat().st_size != 2 * tokens:
            raise DataError(f"{path} is missing or cut off ({2 * tokens} bytes expected): {AGAIN}")
    tokenizer = BPETokenizer() if meta["tokenizer"] == "bpe" else load_tokenizer(folder)
    if tokenizer.vocab_size != meta["vocab_size"]:
        raise DataError(f"{folder / 'tokenizer.json'} is not the one that the shards were made with: {AGAIN}")
    train, val = (IdsOnDisk(folder / f"{part}.bin") for part in PARTS)
    examples = tuple(meta.get("examples", ()))
    return ShardCorpus(meta["name"], meta["sha256"], tokenizer, train, val, meta["val_chars"], examples)


def _read_meta(folder):
    """meta.json, if it is one of ours; ValueError if not, or OSError."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        words = [meta["name"], meta["sha256"], *meta.get("examples", ())]
        numbers = [meta["vocab_size"], meta["val_chars"], *meta["tokens"].values()]
        good = (meta["tokenizer"] in ("char", "bpe") and sorted(meta["tokens"]) == list(PARTS)
                and all(isinstance(s, str) for s in words) and all(type(n) is int and n > 0 for n in numbers))
    except (TypeError, KeyError, AttributeError, RecursionError):
        good = False
    if not good:
        raise ValueError("not a meta.json of ours")
    return meta


# --- making them ---


def write_shards(folder, out, tokenizer="char", say=say) -> dict:
    """Cut all .txt files of `folder` (and below) into ids in `out`; returns what meta.json holds.

    One file of text is in memory at a time. What can be refused is refused before the work, and an older
    set in `out` stays whole until the new one is. DataError for no text, or an `out` that is not free.
    """
    folder, out = Path(folder), Path(out).resolve()  # a link to another disk is followed, "." has a name
    _check_places(folder, out)
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
    try:
        facts = _encode_all(survey, tok, out, say)
        if min(facts["tokens"].values()) < 2:
            raise DataError(f"{folder} has too little text for a train and a validation split: bring more")
    except BaseException:
        for part in PARTS:
            _unfinished(out, part).unlink(missing_ok=True)
        raise
    meta = {"name": safe_name(folder.resolve().name), "tokenizer": tokenizer, "vocab_size": tok.vocab_size,
            "val_share": 0.1, **facts}
    (out / "meta.json").unlink(missing_ok=True)  # it goes first and comes last: a set is whole or is none
    for part in PARTS:
        os.replace(_unfinished(out, part), out / f"{part}.bin")
    tok.save(out)
    write_atomic(out / "meta.json", json.dumps(meta, indent=1))
    return meta


def _unfinished(out, part):
    return out / f"{part}.bin.part"


def _check_places(folder, out):
    """DataError if the work could only end badly, or would touch files that are not ours."""
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
    if not out.exists() or set(out.iterdir()) <= {_unfinished(out, part) for part in PARTS}:
        return  # new, or what a build that was cut off has left
    try:
        _read_meta(out)
    except (OSError, ValueError):
        raise DataError(f"{out} has other files in it: name a new folder") from None


def _encode_all(survey, tok, out, say):
    """Write the ids of every file's two parts; returns what meta.json tells of the text."""
    sha, val_chars, examples, tokens = hashlib.sha256(), 0, [], dict.fromkeys(PARTS, 0)
    with open(_unfinished(out, "train"), "wb") as train, open(_unfinished(out, "val"), "wb") as val:
        for path in survey.paths:
            text, found = read(path)
            sha.update(text.encode("utf-8"))
            train_text, val_text = split(text)
            for part, file, piece in (("train", train, train_text), ("val", val, val_text)):
                ids = tok.encode(piece)
                file.write(np.asarray(ids, dtype="<u2").tobytes())
                tokens[part] += len(ids)
            if val_text and not examples:
                first = tok.decode(tok.encode(val_text)[:1])  # has no context, and is not scored
                val_chars, examples = -len(first), beginnings(val_text, 5) or [val_text[:8]]
            val_chars += len(val_text)
            survey.mark_seen(train_text)
            say(f"{path}: {len(text):,} characters, read as {found}")
    if warning := survey.warning():
        say(warning)
    return {"sha256": sha.hexdigest(), "val_chars": val_chars, "examples": examples, "tokens": tokens}


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
    sizes = [f"{tokens:,} {part} tokens" for part, tokens in meta["tokens"].items()]
    say(f"{', '.join(sizes)} in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
