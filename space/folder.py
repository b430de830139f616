"""A model folder, read with care: only named files, no link that leads out of it, JSON that parses,
numbers that are numbers. Whoever made the folder may be a stranger.
"""

import json
import math
import os
import re
import shutil
from pathlib import Path

from data.files import write_atomic
from data.ngram import NGram
from data.tokenizer import load_tokenizer
from model_gpt2 import GPT

NEEDED = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
          "tokenizer_config.json", "metrics.json"]
TABLE = "ngram5.npz"  # travels with the model if it is there
DRAFT = ["draft/config.json", "draft/model.safetensors", "draft/tokenizer.json"]  # proposes letters to it
MOMENTS = "moments/*/model.safetensors"  # what --keep-steps kept of its training
PATHS = ("out_dir", "copy_to", "data", "text", "grow_from", "teacher")  # settings: places of a machine
NUMBERS = ("val_loss", "val_loss_char", "train_loss", "ngram5_val_loss", "step", "tokens", "seconds",
           "parameters", "accuracy", "ngram_accuracy")


class FolderError(ValueError):
    """A model folder that cannot be used; the text says what is wrong with it and what to do."""


def download(repo: str, revision: str | None = None, **options) -> Path:
    """The folder of a model on the Hub; the client's cache keeps it. Raises whatever the client raises."""
    from huggingface_hub import snapshot_download

    check_name(repo)
    names = [*NEEDED, TABLE, *DRAFT, MOMENTS, "README.md"]
    return Path(snapshot_download(repo, revision=revision, allow_patterns=names, **options))


def check_name(model: str | Path) -> None:
    """FolderError for what looks like a folder and is none: it must not be asked for on the Hub."""
    path = os.path.expanduser(model)
    if not os.path.isdir(path) and (path.count("/") > 1 or re.match(r"[./~]|(out|runs|space)/", path)):
        raise FolderError(f"There is no folder {model}: give the folder that training wrote, for instance "
                          "out/cpu/best, or owner/name of a model on the Hub.")


def source(folder: Path, name: str) -> Path:
    """The file `name` of the folder; FolderError if it is none, or a link to somewhere else.

    The Hub's own cache is made of links: a snapshot's files lie in `blobs`, two folders up.
    """
    inside = [folder.resolve()]
    if inside[0].parent.name == "snapshots":
        inside.append(inside[0].parents[1] / "blobs")
    path = (folder / name).resolve()
    if not path.is_file():
        best = folder / "best"
        meant = best if best.is_dir() else "the folder that training wrote, for instance out/cpu/best"
        raise FolderError(f"{folder} has no {name}: give {meant}.")
    if not any(path.is_relative_to(place) for place in inside):
        raise FolderError(f"{folder / name} is a link that leads out of the folder: put the file itself "
                          "there.")
    return path


def copy(folder: Path, name: str, target: Path) -> None:
    """Copy one named file, as a whole or not at all; metrics.json without what is nobody's business."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if Path(name).name == "metrics.json":
        return write_json(target, without_paths(read_json(source(folder, name))))
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source(folder, name), part)
        part.chmod(0o644)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: dict) -> None:
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def without_paths(metrics: dict) -> dict:
    """Metrics without the folders and files of the machine they are from; of teachers the number stays."""
    config, taught = metrics.get("config"), teachers(metrics)
    if isinstance(config, dict):
        config = {key: value for key, value in config.items() if key not in PATHS}
        config |= {"teacher": ",".join(map(str, range(1, taught + 1)))} if taught else {}
    return {**metrics, "config": config}


def names_in(folder: Path) -> list[str]:
    """Which of the files of a model are there, the table included."""
    return [name for name in [*NEEDED, TABLE] if os.path.lexists(folder / name)]


def read_json(path: Path) -> dict:
    """A JSON object; FolderError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: nested a thousand deep
        raise FolderError(f"{path} cannot be read ({type(error).__name__}): save or download it "
                          "again.") from None
    if not isinstance(found, dict):
        raise FolderError(f"{path} holds no JSON object: save or download it again.")
    return found


def read_metrics(folder: Path) -> dict:
    """metrics.json with only what is of the right kind; nothing in it is trusted, and it may be missing.

    Numbers are finite, `config`, `machine`, `corpus` dictionaries, corpus' `examples` up to five short
    strings.
    """
    there = os.path.lexists(folder / "metrics.json")
    given = read_json(source(folder, "metrics.json")) if there else {}
    metrics = {key: given[key] for key in NUMBERS if is_number(given.get(key))}
    if isinstance(given.get("precision"), str):
        metrics["precision"] = given["precision"]
    for key in ("config", "machine", "corpus"):
        metrics[key] = given[key] if isinstance(given.get(key), dict) else {}
    told, lines = metrics["corpus"], metrics["corpus"].get("examples")
    corpus = {key: told[key] for key in ("name", "sha256") if isinstance(told.get(key), str)}
    if is_number(told.get("floor")):
        corpus["floor"] = told["floor"]
    lines = [line[:200] for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    return {**metrics, "corpus": {**corpus, "examples": [line for line in lines if line.strip()][:5]}}


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def exact_loss(metrics: dict) -> float | None:
    """Nats a character over the whole validation split."""
    return metrics.get("val_loss_char", metrics.get("val_loss"))


def per_letter(metrics: dict) -> bool:
    """Whether one token is one letter."""
    return exact_loss(metrics) == metrics.get("val_loss")


def start_id(tokenizer, folder: Path) -> int:
    """The id that an empty prompt begins with: the model's own, else what the tokenizer would take."""
    path = folder / "generation_config.json"
    own = read_json(path).get("bos_token_id") if path.is_file() else None
    return own if type(own) is int and 0 < own < tokenizer.vocab_size else tokenizer.start_id


def load(folder: Path) -> tuple:
    """(model, tokenizer, table or None) of a folder; FolderError unless they are of one size and one text."""
    model, tokenizer = GPT.from_pretrained(folder), load_tokenizer(folder)
    table = NGram.load(source(folder, TABLE)) if os.path.lexists(folder / TABLE) else None
    if tokenizer.vocab_size > model.config.vocab_size:
        raise FolderError(f"{folder}: tokenizer.json has {tokenizer.vocab_size:,} tokens and the model "
                          f"{model.config.vocab_size:,}: they are not of one run, save both again.")
    text = read_metrics(folder)["corpus"].get("sha256")
    counted = getattr(table, "corpus_sha256", "")  # older tables do not say
    other = counted and text and counted != text
    if table is not None and (other or table.vocab_size != tokenizer.vocab_size):
        raise FolderError(f"{folder}: {TABLE} counts another text ({table.vocab_size:,} symbols, SHA-256 "
                          f"{counted[:8] or 'unknown'}) than the model learned: delete it.")
    return model, tokenizer, table


def teachers(metrics: dict) -> int:
    """How many models' probabilities were its targets (`--teacher`)."""
    config = metrics.get("config")
    named = config.get("teacher") if isinstance(config, dict) else None
    return len([t for t in named.split(",") if t]) if isinstance(named, str) else 0
