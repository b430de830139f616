"""A model folder, read with care: only named files, no link that leads out of it, JSON that parses, numbers that are
numbers. Whoever made the folder may be a stranger. Standard library only.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

NEEDED = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
          "metrics.json"]  # fmt: skip
TABLE = "ngram5.npz"  # travels with the model if it is there
NUMBERS = ("val_loss", "val_loss_char", "train_loss", "ngram5_val_loss", "step", "tokens", "seconds", "parameters",
           "accuracy", "ngram_accuracy")  # fmt: skip


class FolderError(ValueError):
    """A model folder that cannot be used; the text says what is wrong with it and what to do."""


def source(folder: Path, name: str) -> Path:
    """The file `name` of the folder; FolderError if it is none, or a link to somewhere else.

    The Hub's own cache is made of links: a snapshot's files lie in `blobs`, two folders up.
    """
    inside = [folder.resolve()]
    if inside[0].parent.name == "snapshots":
        inside.append(inside[0].parents[1] / "blobs")
    path = (folder / name).resolve()
    if not path.is_file():
        raise FolderError(f"{folder} has no {name}: give the folder that training wrote, for instance out/best.")
    if not any(path.is_relative_to(place) for place in inside):
        raise FolderError(f"{folder / name} is a link that leads out of the folder: put the file itself there.")
    return path


def copy(folder: Path, name: str, target: Path) -> None:
    """Copy one named file, as a whole or not at all."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source(folder, name), part)
        part.chmod(0o644)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def names_in(folder: Path) -> list[str]:
    """Which of the files of a model are there, the table included."""
    return [name for name in [*NEEDED, TABLE] if os.path.lexists(folder / name)]


def read_json(path: Path) -> dict:
    """A JSON object; FolderError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last: nested a thousand deep
        raise FolderError(f"{path} cannot be read ({type(error).__name__}): save or download it again.") from None
    if not isinstance(found, dict):
        raise FolderError(f"{path} holds no JSON object: save or download it again.")
    return found


def read_metrics(folder: Path) -> dict:
    """metrics.json with only what is of the right kind; {} if there is no such file. Nothing in it is trusted.

    Numbers are finite, `config`, `machine` and `corpus` are dictionaries, `examples` and `speakers` short strings.
    """
    if not os.path.lexists(folder / "metrics.json"):
        return {}
    given = read_json(source(folder, "metrics.json"))
    metrics = {key: given[key] for key in NUMBERS if is_number(given.get(key))}
    for key in ("config", "machine", "corpus"):
        metrics[key] = given[key] if isinstance(given.get(key), dict) else {}
    if isinstance(given.get("precision"), str):
        metrics["precision"] = given["precision"]
    corpus = {key: text for key in ("name", "sha256") if isinstance(text := metrics["corpus"].get(key), str)}
    if is_number(metrics["corpus"].get("floor")):
        corpus["floor"] = metrics["corpus"]["floor"]
    for key in ("examples", "speakers"):
        lines = metrics["corpus"].get(key)
        lines = [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
        corpus[key] = [line[:200] for line in lines if line.strip()][:8]
    return {**metrics, "corpus": corpus}


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def examples(metrics: dict) -> list[str]:
    """Up to five beginnings from the model's own text; its trainer wrote them down. May be empty."""
    return (metrics.get("corpus") or {}).get("examples", [])[:5]


def start_id(tokenizer, folder: Path) -> int:
    """The id that an empty prompt begins with: the model's own, else the newline's, else 0."""
    path = folder / "generation_config.json"
    own = read_json(path).get("bos_token_id") if path.is_file() else None
    if type(own) is int and 0 < own < tokenizer.vocab_size:
        return own
    return (tokenizer.encode("\n")[:1] or [0])[0]


def check_parts(folder: Path, model, tokenizer, table=None) -> None:
    """FolderError unless model, tokenizer and table are of one size and of one text."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise FolderError(f"{folder}: tokenizer.json has {tokenizer.vocab_size:,} tokens and the model "
                          f"{model.config.vocab_size:,}: they are not of one run, save both again.")  # fmt: skip
    text = read_metrics(folder).get("corpus", {}).get("sha256")
    counted = getattr(table, "corpus_sha256", "")  # older tables do not say
    if table is not None and (table.vocab_size != tokenizer.vocab_size or counted and text and counted != text):
        raise FolderError(f"{folder}: {TABLE} counts another text ({table.vocab_size:,} symbols, SHA-256 "
                          f"{counted[:8] or 'unknown'}) than the model learned: delete it.")  # fmt: skip
