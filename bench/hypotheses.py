"""What was tried to lower the exact loss of a small GPT-2 on a CPU, one change at a time: what was expected, what came.

    python -m bench.hypotheses                  the table, from results/hypotheses.json
    python -m bench.hypotheses NAME [NAME ...]  run these and add their rows           (--seed S, --keep DIR)

Rows without a command of their own come from the search itself: the same trainer and settings, one thread.
Steps are fixed and time is not looked at, so other programs may run beside it. One seed a row unless more are listed:
two runs that differ in their seed alone are about 0.01 apart, and a gain below that is not one.
"""

import argparse
import json
import time

from data.files import write_atomic
from data.shakespeare import load_corpus
from gpt2.device import NAMES
from gpt2.machine import commit, machine
from gpt2.settings import TrainConfig
from lab.machine import today
from lab.project import ROOT, read_json
from train_gpt2 import evaluate, pick_precision, train

RESULT = ROOT / "results" / "hypotheses.json"
OLD = dict(lr=3e-3, muon_lr=0.02, weight_decay=0.1, warmup_steps=100, dropout=0.0, schedule="linear", batch_size=16)
NEW = {**OLD, "lr": 6e-3, "muon_lr": 0.03, "order": "shuffled"}
W128 = dict(n_layer=4, n_embd=128, n_head=4, max_steps=1400, tokens_per_step=2048, block_size=128)
W160 = {**W128, "n_layer": 3, "n_embd": 160, "n_head": 5}
FIVE = {**W160, "n_layer": 4, "max_steps": 4200, "lr": 4e-3, "muon_lr": 0.02}

# name: (what it should bring, what differs). Each is to be read beside the row named in `against`.
TRIED = {}


def tried(name, against, expected, **settings):
    TRIED[name] = dict(against=against, expected=expected, settings=settings)


tried("4 x 160", None, "the preset as it was, cut to 1,000 steps, 2 heads", **{
    **OLD, **W128, "n_embd": 160, "n_head": 2, "max_steps": 1000, "order": "random"})
tried("4 x 160, shuffled", "4 x 160", "lower: every letter as often as every other",
      **{**TRIED["4 x 160"]["settings"], "order": "shuffled"})
tried("4 x 192", "4 x 160", "higher: the same time buys fewer steps",
      **{**TRIED["4 x 160"]["settings"], "n_embd": 192, "n_head": 3, "max_steps": 750})
tried("4 x 192, 4,096 a step", "4 x 192", "lower: larger products run faster, the noise of a batch is smaller",
      **{**TRIED["4 x 192"]["settings"], "max_steps": 450, "tokens_per_step": 4096})
tried("4 x 128", "4 x 160", "lower: the same time buys more steps",
      **{**OLD, **W128, "n_head": 2, "order": "random"})
tried("4 x 128, shuffled", "4 x 128", "lower", **{**OLD, **W128, "n_head": 2, "order": "shuffled"})
tried("1,024 a step", "4 x 128, shuffled", "lower: more steps for the tokens",
      **{**OLD, **W128, "n_head": 2, "order": "shuffled", "tokens_per_step": 1024, "max_steps": 2300, "batch_size": 8})
tried("higher rates", "4 x 128, shuffled", "lower: a short run bears larger steps", **{**NEW, **W128, "n_head": 2})
tried("4 heads", "4 x 128, shuffled", "lower: more places to look at",
      **{**OLD, **W128, "order": "shuffled"})
tried("4 heads, higher rates", "4 heads", "lower", **{**NEW, **W128})
tried("still higher rates", "4 heads, higher rates", "lower or the same",
      **{**NEW, **W128, "muon_lr": 0.04, "lr": 1e-2})
tried("query, key, value apart", "4 heads, higher rates", "lower: none of the three drowns the others",
      **{**NEW, **W128})
tried("warm-up of 20 steps, random order", "query, key, value apart", "the same",
      **{**NEW, **W128, "warmup_steps": 20, "order": "random"})
tried("no weight decay, random order", "query, key, value apart", "a little higher",
      **{**NEW, **W128, "weight_decay": 0.0, "order": "random"})
tried("3 x 160", "4 heads, higher rates", "the same: fewer layers, wider", **{**NEW, **W160})
tried("3 x 160, apart", "3 x 160", "lower", **{**NEW, **W160, "max_steps": 1450})
tried("3 x 160, weight decay 0.3", "3 x 160, apart", "lower: a small text wants a strong pull",
      **{**NEW, **W160, "max_steps": 1450, "weight_decay": 0.3})
tried("3 x 192, apart", "3 x 160, apart", "a little higher: fewer steps in the time",
      **{**NEW, **W160, "n_embd": 192, "n_head": 6, "max_steps": 1200})
tried("2 x 224, apart", "3 x 160, apart", "higher: two layers are few",
      **{**NEW, **W160, "n_layer": 2, "n_embd": 224, "n_head": 7, "max_steps": 1450})
tried("4 x 160, 4,200 steps, dropout 0.1", None, "under 1.431, which as many steps reach without it, at lower rates",
      **{**NEW, **FIVE, "lr": 6e-3, "muon_lr": 0.03, "dropout": 0.1})


def measure(name, seed, keep=""):
    """Run one and return its row."""
    settings, corpus, began = TRIED[name]["settings"], load_corpus(quiet=True), time.perf_counter()
    precision = NAMES[pick_precision("cpu")[0]]  # asked once: what is recorded is what is used
    config = TrainConfig.preset_of("cpu", **{**settings, "seed": seed, "eval_every": settings["max_steps"],
                                             "precision": precision,
                                             "out_dir": f"{keep}/{name}-{seed}" if keep else "", "resume": "overwrite",
                                             "log_every": 0, "bar": False, "tensorboard": False, "sample_chars": 0})
    result = train(config, corpus)
    return {"name": name, **TRIED[name], "seed": seed, "val_loss": result.progress.val_loss,
            "train_loss": evaluate(result.model, corpus.train[: len(corpus.val)]),
            "parameters": result.model.num_params(), "tokens": config.max_steps * config.tokens_per_step,
            "precision": precision, "corpus": corpus.sha256, "date": today(), **commit(),
            "command": f"python -m bench.hypotheses {name!r} --seed {seed}",
            "seconds": round(time.perf_counter() - began, 1)}


def keep_row(row):
    """Add a row. An older one of that name and seed stays, unless it came from the very same commit."""
    data = read_json(RESULT) or {"about": __doc__.splitlines()[0], "machine": machine(), "rows": []}
    same = [row.get(key) for key in ("name", "seed", "commit")]
    old = [r for r in data["rows"] if row["dirty"] or [r.get(key) for key in ("name", "seed", "commit")] != same]
    order = list(TRIED)
    data["rows"] = sorted([*old, row], key=lambda r: order.index(r["name"]) if r["name"] in order else len(order))
    write_atomic(RESULT, json.dumps(data, indent=1) + "\n")


def table_markdown(data=None):
    """The table for the README: every row, those that did not help among them."""
    rows = (data or read_json(RESULT)).get("rows", [])
    if not rows:
        return "Not yet measured."
    lines = ["| tried | beside | expected | exact validation | train |", "| --- | --- | --- | --- | --- |"]
    for i, r in enumerate(rows):
        again = f" (again, {r['date']})" if r["name"] in [b["name"] for b in rows[:i]] else ""
        base = [b["val_loss"] for b in rows if b["name"] == r["against"]]
        change = f" ({r['val_loss'] - sum(base) / len(base):+.3f})" if base else ""
        lines.append(f"| {r['name']}{again} | {r['against'] or ''} | {r['expected']} | {r['val_loss']:.3f}{change} | "
                     f"{r['train_loss']:.3f} |")
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--keep", default="", help="folder for the runs, with their best/ models")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in TRIED]
    if unknown:
        raise SystemExit(f"There is no row {unknown[0]!r}: choose from {', '.join(TRIED)}.")
    for name in args.names:
        keep_row(row := measure(name, args.seed, args.keep))
        print(f"{name}: {row['val_loss']:.4f} (train {row['train_loss']:.3f}) in {row['seconds']:.0f} s", flush=True)
    if not args.names:
        print(table_markdown())


if __name__ == "__main__":
    main()
