"""How low can a true GPT-2 go on this text? Exact validation loss of trained models, alone and together.

    python -m bench.cpu_recipe --minutes 5 --keep out/five      three models that differ in their seed
    python -m bench.how_low out/five/*/best                     writes results/how_low.json

Together: the mean of the models' probabilities, character by character, in the same windows. The models
must share context and vocabulary. Milestones, nats a character: 1.4697 (nanoGPT, 10.7 M, three minutes
of an A100, random batches), 1.391 (the best found anywhere, random batches), 1.35.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import torch

from data.files import say
from data.shakespeare import eval_windows, load_corpus
from lab.machine import markdown, write_result
from lab.project import ROOT, read_json
from model_gpt2 import GPT
from train_gpt2 import evaluate

RESULT = ROOT / "results" / "how_low.json"
MILESTONES = (1.4697, 1.391, 1.35)
OPEN = ("12 layers x 768, context 1024, trained as one from the start, three seeds",
        "an ensemble of 12-layer models")


@torch.no_grad()
def together(models, ids):
    """Exact loss in nats a token of the mean of the models' probabilities; ids (N,)."""
    total, T = 0.0, models[0].config.block_size
    for x, y in eval_windows(ids, T, batch_size=max(1, 16384 // T)):
        logs = [model(x)[0].log_softmax(-1).gather(-1, y[..., None]) for model in models]  # (B, T, 1) each
        total -= (torch.stack(logs).logsumexp(0) - math.log(len(models))).double().sum().item()
    return total / (len(ids) - 1)


def shape(model):
    c = model.config
    return f"{c.n_layer} layers x {c.n_embd}, context {c.block_size}, {model.num_params() / 1e6:.2f} M"


def measure(folders, corpus):
    models = [GPT.from_pretrained(folder) for folder in folders]
    if len({(m.config.block_size, m.config.vocab_size) for m in models}) > 1:
        raise ValueError("These models differ in context or vocabulary: measure those of one context at a "
                         "time.")
    rows = []
    for folder, model in zip(folders, models, strict=True):
        fact = read_json(Path(folder) / "metrics.json")
        settings = fact.get("config") or {}
        rows.append({"model": shape(model), "seed": settings.get("seed"), "tokens": fact.get("tokens"),
                     "val_loss": evaluate(model, corpus.val), "settings": settings})
    return {"rows": rows, "mean": statistics.mean(row["val_loss"] for row in rows),
            "together": together(models, corpus.val), "models": len(models), "model": shape(models[0])}


def passed(loss):
    below = [m for m in MILESTONES if loss < m]
    return f"under {min(below)}" if below else f"not under {MILESTONES[0]}"


def table_markdown(path=RESULT):
    """What was reached on a CPU, and the rows that wait for a GPU."""
    data, rows = read_json(path), []
    if data:
        losses = [r["val_loss"] for r in data["rows"]]
        rows = [[f"{data['model']}, {len(losses)} seeds", f"**{data['mean']:.4f}** ({min(losses):.4f} to "
                 f"{max(losses):.4f})", passed(data["mean"])],
                [f"these {len(losses)} together", f"**{data['together']:.4f}**", passed(data["together"])]]
    rows += [[name, "not yet measured", "needs a GPU"] for name in OPEN]
    return markdown(["model", "exact validation", "milestone"], rows)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.how_low", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="model folders: the best/ of a run")
    parser.add_argument("--out", default=str(RESULT))
    args, began = parser.parse_args(argv), time.perf_counter()
    try:
        corpus = load_corpus()
        measured = measure(args.folders, corpus)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    write_result(args.out, {"folders": args.folders}, corpus, seconds=round(time.perf_counter() - began, 1),
                 **measured)
    say(table_markdown(args.out))


if __name__ == "__main__":
    main()
