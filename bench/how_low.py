"""How low can a true GPT-2 go on this text? Exact validation loss of trained models, alone and together.

    python -m bench.cpu_recipe --minutes 5 --keep out/five         three models that differ in their seed
    python -m bench.how_low --models out/five/*/best               writes results/how_low.json

Together: the mean of the models' probabilities, character by character, in the same windows. The models
must share context and vocabulary. Milestones, nats a character: 1.4697 (nanoGPT, 10.7 M, three minutes
of an A100, random batches), 1.391 (the best found anywhere, random batches), 1.35.
"""

import math
import statistics
from pathlib import Path

import torch

from bench import common
from data.batches import eval_windows
from data.files import DataError, say
from data.shakespeare import load_corpus
from lab.project import read_json
from model_gpt2 import GPT
from train_gpt2 import evaluate

RESULT = common.RESULTS / "how_low.json"
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


def measure(folders, corpus):
    models = [GPT.from_pretrained(folder) for folder in folders]
    if len({(m.config.block_size, m.config.vocab_size) for m in models}) > 1:
        raise DataError("These models differ in context or vocabulary: measure those of one at a time.")
    rows = []
    for folder, model in zip(folders, models, strict=True):
        fact = read_json(Path(folder) / "metrics.json")
        rows.append({"tokens": fact.get("tokens"), "settings": fact.get("config") or {},
                     "val_loss": evaluate(model, corpus.val)})
    c, size = models[0].config, models[0].num_params() / 1e6
    return {"rows": rows, "mean": statistics.mean(row["val_loss"] for row in rows),
            "together": together(models, corpus.val),
            "model": f"{c.n_layer} layers x {c.n_embd}, context {c.block_size}, {size:.2f} M"}


def passed(loss):
    below = [m for m in MILESTONES if loss < m]
    return f"under {min(below)}" if below else f"not under {MILESTONES[0]}"


def table_markdown():
    """What was reached on a CPU, and the rows that wait for a GPU."""
    data, rows = read_json(RESULT), []
    if data:
        losses = [r["val_loss"] for r in data["rows"]]
        rows = [[f"{data['model']}, {len(losses)} seeds", f"**{data['mean']:.4f}** ({min(losses):.4f} to "
                 f"{max(losses):.4f})", passed(data["mean"])],
                [f"these {len(losses)} together", f"**{data['together']:.4f}**", passed(data["together"])]]
    rows += [[name, "not yet measured", "needs a GPU"] for name in OPEN]
    return common.table(["model", "exact validation", "milestone"], rows)


def main(argv=None):
    folders, corpus = common.options(__doc__, argv, models=["out/five/seed-1/best"]).models, load_corpus()
    common.timed_result(RESULT, {"folders": folders}, corpus, lambda: measure(folders, corpus))
    say(table_markdown())


if __name__ == "__main__":
    common.start(main)
