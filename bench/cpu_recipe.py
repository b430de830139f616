"""How low does the loss get on two CPU cores, in the time that nanoGPT's own CPU recipe takes, and in five minutes?

    python -m bench.cpu_recipe                          reference and ours in turns, ours in the reference's wall time
    python -m bench.cpu_recipe --minutes 5              ours alone, five minutes each      (--seeds 3, as many runs)
    python -m bench.cpu_recipe --precision fp32         ours as on a CPU without bf16 units

Writes results/cpu_recipe.json, or cpu_recipe_5min.json and so on. The reference is nanoGPT's published CPU recipe, as
settings of our trainer. A budget is wall time of the whole process: the start of Python, the imports, reading the text,
every step, and the exact validation at the end. The number of steps follows the clock, and the learning rate falls to
zero over as many: a machine that slows down in the middle ends in time, with fewer steps. Losses are exact, nats/char.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from lab.project import ROOT

# config/train_shakespeare_char.py with the flags of nanoGPT's README for a CPU; validated once, at the end
REFERENCE = dict(n_layer=4, n_head=4, n_embd=128, block_size=64, bias=False, dropout=0.0, batch_size=12,
                 tokens_per_step=12 * 64, max_steps=2000, optimizer="adamw", lr=1e-3, min_lr=1e-4, schedule="cosine",
                 warmup_steps=100, weight_decay=0.1, beta2=0.99, grad_clip=1.0, precision="fp32")
SHORT = dict(n_layer=3, lr=6e-3, muon_lr=0.03)  # ours for about 80 seconds: what differs from the preset `cpu`
QUIET = dict(minutes=0.0, tensorboard=False, sample_chars=0, save_every=0, save_minutes=1e9, log_every=0, bar=False)
REPLAN = 20  # steps between two looks at the clock
SPARE = 2.5  # seconds kept back for the end of the process


def child(kind, seed, budget, began, settings):
    """One run in a process of its own; prints a line of JSON. `began`: time.time() before the process started."""
    from data.shakespeare import load_corpus
    from gpt2.device import NAMES
    from gpt2.settings import TrainConfig
    from train_gpt2 import evaluate, pick_device, pick_precision, train

    corpus = load_corpus(quiet=True)
    config = TrainConfig.preset_of("cpu", **{**QUIET, **settings, "seed": seed, "eval_every": 10**9})
    follow = None
    if budget:
        start = time.time()
        evaluate(untrained(config, corpus), corpus.val[: len(corpus.val) // 8])  # what the end will cost
        follow = clock(config, began + budget - SPARE - 8 * (time.time() - start))
    result = train(config, corpus, follow)
    precision = config.precision if config.precision != "auto" else NAMES[pick_precision(pick_device("cpu"))[0]]
    print(json.dumps({"kind": kind, "seed": seed, "val_loss": result.progress.val_loss, "steps": config.max_steps,
                      "tokens": config.max_steps * config.tokens_per_step, "parameters": result.model.num_params(),
                      "step_seconds": result.progress.seconds, "precision": precision, "corpus": [corpus.name,
                      corpus.sha256], "settings": {**settings, "max_steps": config.max_steps}}))


def untrained(config, corpus):
    """An untrained model of the run's shape: what it costs to validate does not depend on what it learned."""
    from gpt2.plan import model_config
    from model_gpt2 import GPT

    return GPT(model_config(config, corpus.tokenizer.vocab_size))


def clock(config, end):
    """A callback that sets config.max_steps, again and again, to the step at which time.time() will be `end`."""
    times = []

    def follow(record, model):
        times.append(time.time())
        if len(times) % REPLAN == 0 and "dt_ms" in record:
            seconds = (times[-1] - times[-min(200, len(times))]) / (min(200, len(times)) - 1)  # of a step, lately
            config.max_steps = record["step"] + max(1, int((end - times[-1]) / seconds))
    return follow


def run(kind, seed, budget, settings):
    """One child process; its record with `wall_s`, the time that it took from start to end."""
    began = time.time()
    command = [sys.executable, "-m", "bench.cpu_recipe", "--child",
               json.dumps([kind, seed, budget, began, settings])]
    done = subprocess.run(command, capture_output=True, text=True)
    wall = time.time() - began
    if done.returncode:
        raise SystemExit(f"The run `{kind}` with seed {seed} failed: {done.stderr.strip().splitlines()[-1]}")
    record = {**json.loads(done.stdout.strip().splitlines()[-1]), "wall_s": round(wall, 2), "budget_s": budget}
    print(line(record), flush=True)
    return record


def line(r):
    budget = f" of {r['budget_s']:.1f}" if r["budget_s"] else ""
    return (f"{r['kind']:<10} seed {r['seed']}: exact validation {r['val_loss']:.4f} after {r['wall_s']:.1f}{budget} s"
            f" ({r['steps']:,} steps, {r['tokens'] / 1e6:.1f} M tokens, {r['parameters'] / 1e6:.2f} M parameters, "
            f"{r['precision']})")


def summary(runs):
    """Median and range of the wall time, mean and range of the loss, for each kind of run."""
    out = {}
    for kind in dict.fromkeys(r["kind"] for r in runs):
        losses, walls = ([r[key] for r in runs if r["kind"] == kind] for key in ("val_loss", "wall_s"))
        out[kind] = {"val_loss": statistics.mean(losses), "val_loss_range": [min(losses), max(losses)],
                     "wall_s": statistics.median(walls), "wall_s_range": [min(walls), max(walls)], "runs": len(losses),
                     "over_budget": sum(bool(r["budget_s"]) and r["wall_s"] > r["budget_s"] for r in runs
                                        if r["kind"] == kind)}
    return out


def table_markdown(folder=ROOT / "results"):
    """The table of all that was measured: the reference, ours in its time, ours in five minutes, ours without bf16."""
    names = {"cpu_recipe": "the reference's time", "cpu_recipe_fp32": "the reference's time, fp32",
             "cpu_recipe_5min": "five minutes", "cpu_recipe_5min_fp32": "five minutes, fp32"}
    lines = ["| budget | recipe | exact validation (mean, range) | wall time, s | runs |",
             "| --- | --- | --- | --- | --- |"]
    for name, budget in names.items():
        path = folder / f"{name}.json"
        for kind, s in (json.loads(path.read_text())["summary"] if path.exists() else {}).items():
            what = "nanoGPT's for a CPU" if kind == "reference" else "ours"
            over = s["over_budget"]
            late = f"; {over} over its budget, at {s['wall_s_range'][1]:.1f}" if over else ""
            lines.append(f"| {budget} | {what} | **{s['val_loss']:.4f}** ({s['val_loss_range'][0]:.4f} to "
                         f"{s['val_loss_range'][1]:.4f}) | {s['wall_s']:.1f}{late} | {s['runs']} |")
    return "\n".join(lines) if len(lines) > 2 else "Not yet measured."


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, help="give ours this long, without the reference")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"), help="of ours")
    parser.add_argument("--keep", help="folder for the models of --minutes, for bench/how_low.py")
    parser.add_argument("--out", help="default: results/cpu_recipe*.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return child(*json.loads(args.child))
    began, runs = time.time(), []
    for seed in range(1, args.seeds + 1):
        if args.minutes:
            keep = {"out_dir": f"{args.keep}/seed-{seed}", "resume": "overwrite",
                    "best_dtype": "fp16"} if args.keep else {}
            runs.append(run("ours", seed, 60 * args.minutes, {"precision": args.precision, **keep}))
        else:
            runs.append(run("reference", seed, None, REFERENCE))
            runs.append(run("ours", seed, runs[-1]["wall_s"], {**SHORT, "precision": args.precision}))
    write(args, runs, time.time() - began)


def write(args, runs, seconds):
    from lab.machine import write_result

    name = "cpu_recipe" + (f"_{args.minutes:g}min" if args.minutes else "")
    name += f"_{args.precision}" if args.precision != "auto" else ""
    corpus = argparse.Namespace(name=runs[0]["corpus"][0], sha256=runs[0]["corpus"][1])
    config = {"reference": REFERENCE, "ours": "preset cpu" if args.minutes else {"preset": "cpu", **SHORT},
              "precision": args.precision, "seeds": args.seeds}
    result = write_result(args.out or ROOT / "results" / f"{name}.json", config, corpus, seconds=round(seconds, 1),
                          summary=summary(runs), runs=runs, environment={k: v for k, v in os.environ.items()
                          if k.startswith(("OMP_", "MALLOC_", "GOMP_"))})
    for kind, s in result["summary"].items():
        print(f"{kind}: mean {s['val_loss']:.4f} over {s['runs']} runs, median {s['wall_s']:.1f} s of wall time")


if __name__ == "__main__":
    main()
