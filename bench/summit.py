"""The 12-layer GPT-2 on two CPU cores, by one command: four small models, side by side, trained on as one.

    python -m bench.summit --out out/summit             all that is not done yet, then results/summit.json
    python -m bench.summit --out out/summit --report    results/summit.json again, from the runs' folders

1. SEEDS  Four GPT-2 of 4 layers x 192 that differ in the seed alone. Windows grow: 128, 256, 1,024.
2. MORE   The same four again, from where they stand, on windows of 1,024.
3. LARGE  --grow-from puts them side by side (gpt2/grow.py): 12 heads x 768, 12 layers, 8 of them new and
          silent. It begins near the loss of the four together. Then LayerNorms and biases are trained, with
          the mean probabilities of the four as targets: the one thing that the four now share is LayerNorm.

Schedules follow the clock (--minutes): a busy machine means fewer steps, not a later end.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from bench import common
from bench.how_low import together
from data.files import say
from data.shakespeare import load_corpus
from gpt2.grow import grown
from gpt2.machine import machine
from gpt2.plan import flops_per_token, model_config
from gpt2.runlog import read_history
from gpt2.settings import TrainConfig
from lab.machine import write_result
from lab.project import ROOT, read_json
from model_gpt2 import GPT
from train_gpt2 import evaluate

COMMON = dict(preset="cpu", block_size=1024, eval_every=10**6, sample_chars=0, precision="bf16",
              resume="auto")
SEED = dict(COMMON, n_layer=4, n_head=3, n_embd=192, tokens_per_step=2048, batch_size=2, muon_lr=0.025,
            windows="128:0.5,256:0.2,1024:0.3", minutes=34, max_steps=4000)
MORE = dict(COMMON, n_layer=4, n_head=3, n_embd=192, tokens_per_step=2048, batch_size=2, muon_lr=0.0125,
            lr=2e-3, minutes=45, max_steps=800, warmup_steps=20)
LARGE = dict(COMMON, n_layer=12, n_head=12, n_embd=768, tokens_per_step=4096, batch_size=1, optimizer="adamw",
             lr=1e-3, warmup_steps=3, freeze_matrices=True, teacher_weight=1.0, minutes=10, max_steps=40,
             save_every=0)
SEEDS = (1, 2, 3, 4)
PROCESSES = 4  # of the large run
RESULT = common.RESULTS / "summit.json"


def command(settings, **more):
    words = [sys.executable, "train_gpt2.py", "--no-bar", "--no-tensorboard"]
    for name, value in {**settings, **more}.items():
        flag = "--" + name.replace("_", "-")
        words += [flag] if value is True else [flag, str(value)]
    return words


def start(words, log, **environment):
    """A process in a session of its own: Linux shares a busy machine out by session."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with open(log, "a") as f:
        return subprocess.Popen(words, stdout=f, stderr=f, stdin=subprocess.DEVNULL, env=environment,
                                cwd=ROOT, start_new_session=True)


def finish(processes):
    if any([p.wait() for p in processes]):
        raise SystemExit("A run failed: its log says why.")


def run_seeds(out):
    finish([start(command(SEED, seed=s, out_dir=out / f"seed-{s}"), out / f"seed-{s}.log") for s in SEEDS])


def run_more(out):
    finish([start(command(MORE, seed=10 + s, grow_from=out / f"seed-{s}" / "best", out_dir=out / f"more-{s}"),
                  out / f"more-{s}.log") for s in SEEDS])


def small_ones(out):
    """Their folders, as --grow-from and --teacher name them."""
    return ",".join(str(out / f"more-{s}" / "best") for s in SEEDS)


def run_large(out):
    folders = small_ones(out)
    group = dict(WORLD_SIZE=str(PROCESSES), MASTER_ADDR="127.0.0.1", MASTER_PORT="29577")
    words = command(LARGE, grow_from=folders, teacher=folders, out_dir=out / "large")
    finish([start(words, out / f"large-{rank}.log", **group, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(PROCESSES)])


# ---- What is measured of the models afterwards


def exact(out, corpus):
    """Exact losses, fp32, whole validation text: the small models together, and side by side untrained."""
    models = [GPT.from_pretrained(folder) for folder in small_ones(out).split(",")]
    small = models[0].config
    wide = replace(small, n_head=LARGE["n_head"], n_embd=LARGE["n_embd"])  # the silent blocks left out
    beside = grown(small_ones(out), wide, corpus.train)
    return {"mean_probabilities": together(models, corpus.val),
            "start": {"val_loss": evaluate(beside, corpus.val),
                      "what": "the small ones side by side, before the large stage, without silent blocks"},
            "targets": len(corpus.val) - 1,
            "what": f"exact: whole validation split, windows of {small.block_size:,}, fp32; the mean is of "
                    f"the {len(models)} models of the second stint"}


def samples(out, corpus, loss, length=500):
    """What the large model writes from a newline at temperature 1: the first draws, as they come."""
    model = GPT.from_pretrained(out / "large" / "best").for_inference("bf16")
    start = torch.tensor([[corpus.tokenizer.start_id]])
    return [{"run": "large", "val_loss": loss, "seed": seed, "temperature": 1.0, "weights": "bf16",
             "text": corpus.tokenizer.decode(model.generate(start, length, seed=seed)[0, 1:].tolist())}
            for seed in (1, 2, 3, 4)]


# ---- The report


def row(folder):
    """One run, from its metrics and its history."""
    m, history = read_json(folder / "best" / "metrics.json"), read_history(folder)
    steps = [r for r in history if "loss" in r]
    return {"name": folder.name, "val_loss": m["val_loss"], "step": m["step"], "tokens": m["tokens"],
            "seconds": m["seconds"], "parameters": m["parameters"], "precision": m["precision"],
            "processes": m["processes"], "commit": m["machine"]["commit"], "date": m["machine"]["date"],
            "settings": without_folder(m["config"], folder.parent),
            "tok_s": sum(r["tok_s"] for r in steps) / len(steps),
            "validations": [[r["step"], r["val_loss"]] for r in history if "val_loss" in r],
            "curve": curve(steps, m["tokens"] // m["step"])}


def without_folder(settings, out):
    """Settings whose paths begin at the folder of the runs."""
    return {k: v.replace(f"{out}/", "") if isinstance(v, str) else v for k, v in settings.items()}


def projection(rows, tflops=65, share=0.24):
    """Minutes on a T4 by count of operations, at the share of its peak that GPT-2 124M reached there."""
    total = sum(r["tokens"] * flops_per_token(model_config(TrainConfig(**r["settings"]), 65)) for r in rows)
    return {"what": "projection, not measured: the operations of all runs over what a T4 did with GPT-2 "
                    "124M; small models reach less of it", "pflop": total / 1e15,
            "minutes": total / (tflops * share * 1e12) / 60}


def curve(steps, tokens_per_step, points=40):
    """[[tokens, mean training loss], ...]: some 40 points, each the mean of steps since the one before."""
    n = max(1, len(steps) // points)
    groups = [steps[i : i + n] for i in range(0, len(steps), n)]
    return [[g[-1]["step"] * tokens_per_step, sum(r["loss"] for r in g) / len(g)] for g in groups]


def report(out):
    """results/summit.json from the runs' folders."""
    corpus, m = load_corpus(quiet=True), machine()
    names = [*(f"{stage}-{s}" for stage in ("seed", "more") for s in SEEDS), "large"]
    rows = [row(out / name) for name in names]
    best = {key: rows[-1][key] for key in ("val_loss", "step", "tokens", "parameters", "seconds")}
    small, large = (f"{s['n_layer']} layers x {s['n_embd']}" for s in (SEED, LARGE))
    return write_result(
        RESULT, {"seed": SEED, "more": MORE, "large": LARGE}, corpus,
        seconds=sum(r["seconds"] for r in rows),
        best={**best, "machine": f"{m['cores']} cores of an {m['cpu']}"},
        start=(f"{len(SEEDS)} GPT-2 of {small} with different seeds, put side by side in one of {large} "
               "(gpt2/grow.py), whose other blocks are silent"),
        projection_t4=projection(rows), runs=rows, exact=exact(out, corpus),
        samples=samples(out, corpus, best["val_loss"]))


def main(argv=None):
    args = common.options(__doc__, argv, out=str(ROOT / "out" / "summit"), report=False)
    out = Path(args.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for stage in () if args.report else (run_seeds, run_more, run_large):
        stage(out)
    say(f"exact validation {report(out)['best']['val_loss']:.4f}")


if __name__ == "__main__":
    common.start(main)
