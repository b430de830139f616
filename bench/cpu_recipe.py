"""How low does the loss get on two CPU cores, in the time of nanoGPT's own CPU recipe, and in five minutes?

    python -m bench.cpu_recipe                    the reference and ours in turns, ours in its wall time
    python -m bench.cpu_recipe --minutes 5        ours alone, five minutes each      (--seeds 3, as many runs)
    python -m bench.cpu_recipe --precision fp32   ours as on a CPU without bf16 units
    --keep FOLDER                                 keeps the models of --minutes, for bench/how_low.py

Writes results/cpu_recipe.json, or cpu_recipe_5min.json and so on. The reference is nanoGPT's published
CPU recipe, as settings of our trainer. A budget is wall time of the whole process: the start of Python,
the imports, reading the text, every step, and the exact validation at the end. What is left of it when
training begins, less SPARE, is the trainer's `minutes`: the learning rate falls to zero with its clock,
and a machine that slows down in the middle ends in time, with fewer steps. Losses are exact, nats/char.
"""

import statistics
import time

from bench import common
from data.files import say
from lab.project import read_json

# config/train_shakespeare_char.py with the flags of nanoGPT's README for a CPU; validated once, at the end
REFERENCE = dict(n_layer=4, n_head=4, n_embd=128, block_size=64, bias=False, dropout=0.0, batch_size=12,
                 tokens_per_step=12 * 64, max_steps=2000, optimizer="adamw", lr=1e-3, min_lr=1e-4,
                 schedule="cosine", warmup_steps=100, weight_decay=0.1, beta2=0.99, grad_clip=1.0,
                 precision="fp32")
SHORT = dict(n_layer=3, lr=6e-3, muon_lr=0.03)  # ours for about 80 seconds: what differs from preset `cpu`
ONCE = dict(save_every=0, save_minutes=1e9, eval_every=10**9)  # validated once, at the end
SPARE = 2.5  # seconds kept back for the end of the process
TITLES = {"cpu_recipe": "the reference's time", "cpu_recipe_fp32": "the reference's time, fp32",
          "cpu_recipe_5min": "five minutes", "cpu_recipe_5min_fp32": "five minutes, fp32"}


def child(kind, seed, budget, began, settings):
    """One run in a process of its own, as a record. `began`: time.time() before the process started."""
    import torch

    from data.shakespeare import load_corpus
    from gpt2.device import NAMES, choose_precision
    from gpt2.settings import TrainConfig
    from train_gpt2 import train

    corpus = load_corpus(quiet=True)
    clock = {"minutes": (began + budget - SPARE - time.time()) / 60} if budget else {}
    config = TrainConfig.preset_of("cpu", **{**common.QUIET, **ONCE, **settings, **clock, "seed": seed})
    config.precision = NAMES[choose_precision(config, torch.device("cpu"))[0]]
    done = train(config, corpus)
    steps = done.progress.step
    return {"kind": kind, "seed": seed, "val_loss": done.progress.val_loss, "steps": steps,
            "tokens": steps * config.tokens_per_step, "parameters": done.model.num_params(),
            "step_seconds": done.progress.seconds, "precision": config.precision, "settings": settings,
            "corpus": {"name": corpus.name, "sha256": corpus.sha256}}


def run(kind, seed, budget, settings):
    """One child process; its record with `wall_s`, the time that it took from start to end."""
    began = time.time()
    record = common.in_process("bench.cpu_recipe", kind, seed, budget, began, settings)
    record |= {"wall_s": round(time.time() - began, 2), "budget_s": budget}
    say("{kind:<10} seed {seed}: exact validation {val_loss:.4f} after {wall_s:.1f} s ({steps:,} steps, "
        "{parameters:,} parameters, {precision})".format(**record))
    return record


def summary(runs):
    """Median and range of the wall time, mean and range of the loss, for each kind of run."""
    out = {}
    for kind in dict.fromkeys(r["kind"] for r in runs):
        mine = [r for r in runs if r["kind"] == kind]
        losses, walls = ([r[key] for r in mine] for key in ("val_loss", "wall_s"))
        late = sum(bool(r["budget_s"]) and r["wall_s"] > r["budget_s"] for r in mine)
        out[kind] = {"val_loss": statistics.mean(losses), "val_loss_range": [min(losses), max(losses)],
                     "wall_s": statistics.median(walls), "wall_s_range": [min(walls), max(walls)],
                     "runs": len(losses), "over_budget": late}
    return out


def table_markdown(folder=common.RESULTS):
    """All that was measured: the reference, ours in its time, ours in five minutes, ours without bf16."""
    rows = []
    for name, budget in TITLES.items():
        for kind, s in read_json(folder / f"{name}.json").get("summary", {}).items():
            (low, high), late = s["val_loss_range"], s["over_budget"]
            over = f"; {late} over its budget, at {s['wall_s_range'][1]:.1f}" if late else ""
            recipe = "nanoGPT's for a CPU" if kind == "reference" else "ours"
            rows.append([budget, recipe, f"**{s['val_loss']:.4f}** ({low:.4f} to {high:.4f})",
                         f"{s['wall_s']:.1f}{over}", s["runs"]])
    return common.table(["budget", "recipe", "exact validation (mean, range)", "wall time, s", "runs"], rows)


def measure(args):
    """All runs, the reference and ours in turns."""
    runs = []
    for seed in range(1, args.seeds + 1):
        ours = {"precision": args.precision}
        if args.keep:
            ours |= {"out_dir": f"{args.keep}/seed-{seed}", "resume": "overwrite", "best_dtype": "fp16"}
        if not args.minutes:
            runs.append(run("reference", seed, None, REFERENCE))
            ours = {**SHORT, **ours}
        budget = 60 * args.minutes if args.minutes else runs[-1]["wall_s"]
        runs.append(run("ours", seed, budget, ours))
    return {"summary": summary(runs), "runs": runs, "corpus": runs[0]["corpus"]}


def main(argv=None):
    args = common.options(__doc__, argv, minutes=0.0, seeds=3, precision="auto", keep="")
    name = "cpu_recipe" + (f"_{args.minutes:g}min" if args.minutes else "")
    name += f"_{args.precision}" if args.precision != "auto" else ""
    config = {"reference": REFERENCE, "ours": "preset cpu" if args.minutes else {"preset": "cpu", **SHORT},
              "precision": args.precision, "seeds": args.seeds}
    common.timed_result(common.RESULTS / f"{name}.json", config, None, lambda: measure(args))
    say(table_markdown())


if __name__ == "__main__":
    common.start(main, child)
