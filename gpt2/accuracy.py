"""How often the likeliest next symbol is the one that comes: a number that needs no logarithm.

    python -m gpt2.accuracy FOLDER [--text FILE]      adds `accuracy`, `ngram_accuracy` and `heldout`
                                                      to the folder's metrics.json
"""

import argparse
import json
from pathlib import Path

import torch

from data.batches import eval_windows
from data.corpus import corpus_from_text
from data.files import DataError, write_atomic
from data.ngram import NGram
from data.text import load_text
from data.tokenizer import TokenizerError, load_tokenizer
from gpt2.plan import eval_batch
from model_gpt2 import GPT

HELDOUT = 1200  # characters of validation text that a page may use for a guessing game
PUBLIC = ("tinyshakespeare", "standin")  # texts that everybody may read: only these are shown


@torch.no_grad()
def accuracy(model, ids):
    """Share of the targets of ids (N,) whose likeliest guess is right: the windows of `evaluate`."""
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    right = 0
    with torch.autocast(device.type, enabled=False):
        for x, y in eval_windows(ids, model.config.block_size, eval_batch(model.config)):
            logits = model(x.to(device))[0]  # (B, T, V)
            right += (logits[..., : model.config.n_tokens].argmax(-1) == y.to(device)).sum().item()
    model.train(was_training)
    return right / (len(ids) - 1)


def ngram_accuracy(table, ids, size=20_000):
    """The same for letter counts (data.ngram.NGram), which read across the windows' edges; ids: an array."""
    right, before = 0, table.n - 1
    for start in range(0, len(ids) - 1, size):  # a part at a time: every guess is a row of V numbers
        first = max(0, start - before)  # the letters that the part's first guess looks back on
        guesses = table.probs(ids[first : min(start + size, len(ids) - 1)]).argmax(1)[start - first :]
        right += int((guesses == ids[start + 1 : start + 1 + size]).sum())
    return right / (len(ids) - 1)


def complete(folder, corpus, device="cpu"):
    """Add these numbers, shares in 0..1, to the metrics.json of a model folder; no folder, nothing to do.

    And a piece of unseen text for the page's guessing game, where the text is public.
    """
    path, counts = Path(folder) / "metrics.json", Path(folder) / "ngram5.npz"
    if not path.is_file():
        return
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["accuracy"] = accuracy(GPT.from_pretrained(folder).to(device), corpus.val)
    if counts.is_file():
        metrics["ngram_accuracy"] = ngram_accuracy(NGram.load(counts), corpus.val.numpy())
    if corpus.name in PUBLIC and hasattr(corpus, "val_text"):
        metrics["heldout"] = corpus.val_text[:HELDOUT].rpartition("\n")[0]
    write_atomic(path, json.dumps(metrics, indent=2))


def main(argv=None):
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
