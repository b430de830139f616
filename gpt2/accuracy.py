"""How often the likeliest next symbol is the one that comes: a number that needs no logarithm.

    python -m gpt2.accuracy FOLDER [--text FILE]      adds `accuracy`, `ngram_accuracy` and `heldout`
                                                      to the folder's metrics.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from data.corpus import corpus_from_text
from data.files import DataError, write_atomic
from data.ngram import NGram
from data.text import load_text
from data.tokenizer import TokenizerError, load_tokenizer
from model_gpt2 import GPT

HELDOUT = 1200  # characters of validation text that a page may use for a guessing game
PUBLIC = ("tinyshakespeare", "standin")  # texts that everybody may read: only these are shown


@torch.no_grad()
def accuracy(model, ids) -> float:
    """Share of the targets of ids (N,) whose likeliest guess is right: the windows and targets of `evaluate`."""
    T, was_training = model.config.block_size, model.training
    device = next(model.parameters()).device
    model.eval()
    x, y, right = ids[:-1].long(), ids[1:].long(), 0
    whole = len(x) // T * T
    batches = [*zip(x[:whole].view(-1, T).split(64), y[:whole].view(-1, T).split(64), strict=True)]
    for xb, yb in [*batches, (x[None, whole:], y[None, whole:])]:
        if xb.numel():
            with torch.autocast(device.type, enabled=False):
                logits = model(xb.to(device), yb.to(device))[0]
            right += (logits[..., : model.config.n_tokens].argmax(-1) == yb.to(device)).sum().item()
    model.train(was_training)
    return right / len(y)


def ngram_accuracy(table, ids, size=20_000) -> float:
    """The same for letter counts (data.ngram.NGram), which read across the windows' edges."""
    ids, right, before = np.asarray(ids), 0, table.n - 1
    for start in range(0, len(ids) - 1, size):  # a part at a time: every guess is a row of V numbers
        first = max(0, start - before)  # the letters that the part's first guess looks back on
        guesses = table.probs(ids[first : min(start + size, len(ids) - 1)]).argmax(1)[start - first :]
        right += int((guesses == ids[start + 1 : start + 1 + size]).sum())
    return right / (len(ids) - 1)


def numbers_for_a_page(model, corpus, table=None) -> dict:
    """What metrics.json gets: shares in 0..1, and a piece of unseen text where the text is public."""
    found = {"accuracy": accuracy(model, corpus.val)}
    if table is not None:
        found["ngram_accuracy"] = ngram_accuracy(table, corpus.val.numpy())
    if corpus.name in PUBLIC and hasattr(corpus, "val_text"):
        found["heldout"] = corpus.val_text[:HELDOUT].rpartition("\n")[0]
    return found


def complete(folder, corpus, device="cpu") -> None:
    """Add these numbers to the metrics.json of a model folder that training wrote; no folder, nothing to do."""
    path, counts = Path(folder) / "metrics.json", Path(folder) / "ngram5.npz"
    if not path.is_file():
        return
    model, table = GPT.from_pretrained(folder).to(device), NGram.load(counts) if counts.is_file() else None
    metrics = json.loads(path.read_text(encoding="utf-8")) | numbers_for_a_page(model, corpus, table)
    write_atomic(path, json.dumps(metrics, indent=2))


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a model folder with tokenizer.json and metrics.json")
    parser.add_argument("--text", default="", help="what it was trained on; empty is Tiny Shakespeare")
    args = parser.parse_args(argv)
    path = args.folder / "metrics.json"
    try:
        corpus, of = load_text(args.text), json.loads(path.read_text(encoding="utf-8"))["corpus"]
        if of["sha256"] != corpus.sha256:
            raise DataError(f"{args.folder} was trained on {of['name']}, not on {corpus.name}: use --text")
        complete(args.folder, corpus_from_text(corpus.text, corpus.name, load_tokenizer(args.folder)))
    except (DataError, TokenizerError) as error:
        parser.error(str(error))
    except (OSError, ValueError, KeyError):
        parser.error(f"{path} is missing or damaged: name a model folder that training wrote")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    counts = metrics.get("ngram_accuracy")
    beside = "no table of counts lies beside it" if counts is None else f"of the 5-gram {counts:.6f}"
    print(f"accuracy {metrics['accuracy']:.6f}, {beside}")


if __name__ == "__main__":
    main()
