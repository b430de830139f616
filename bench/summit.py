"""The 12-layer GPT-2 on two CPU cores, by one command: four small models, side by side, trained on as one.

    python -m bench.summit --out out/summit             all that is not done yet, then results/summit.json
    python -m bench.summit --exact FOLDER [FOLDER ...]  the exact validation loss of models, on both cores
    python -m bench.summit --report --out out/summit    results/summit.json again, from the folders

1. SEEDS  Four GPT-2 of 4 layers x 192 that differ in the seed alone. Windows grow: 128, 256, 1,024.
2. MORE   The same four again, from where they stand, on windows of 1,024.
3. LARGE  --grow-from puts them side by side (gpt2/grow.py): 12 heads x 768, 12 layers, 8 of them new and
          silent. It begins near the loss of the four together. Then LayerNorms and biases are trained, with
          the mean probabilities of the four as targets: the one thing that the four now share is LayerNorm.

Schedules follow the clock (--minutes): a busy machine means fewer steps, not a later end.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from data.files import say
from data.shakespeare import load_corpus
from gpt2.grow import places
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
PROCESSES = 4  # of the large run, and of an exact validation
SEPARATOR = ","


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


def run_large(out):
    folders = SEPARATOR.join(str(out / f"more-{s}" / "best") for s in SEEDS)
    group = dict(WORLD_SIZE=str(PROCESSES), MASTER_ADDR="127.0.0.1", MASTER_PORT="29577")
    words = command(LARGE, grow_from=folders, teacher=folders, out_dir=out / "large")
    finish([start(words, out / f"large-{rank}.log", **group, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(PROCESSES)])


# ---- The exact loss


def exact(folder, without=""):
    """The exact validation loss (evaluate: fp32, windows of the model's context), the windows shared out.

    without: blocks to leave out, as "1,2".
    """
    began, words = time.time(), [sys.executable, "-m", "bench.summit", "--part"]
    running = [subprocess.Popen([*words, str(i), str(PROCESSES), str(folder), without], text=True, cwd=ROOT,
                                stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
                                start_new_session=True) for i in range(PROCESSES)]
    done = [json.loads(p.communicate()[0]) for p in running]
    return {"model": f"{Path(folder).parent.name}/{Path(folder).name}", "without_blocks": without,
            "val_loss": sum(d["loss"] for d in done), "targets": done[0]["targets"],
            "seconds": round(time.time() - began, 1)}


def part(i, parts, folder, without):
    model, ids = GPT.from_pretrained(folder), load_corpus(quiet=True).val
    leave_out(model, [int(b) for b in without.split(SEPARATOR) if b])
    print(json.dumps({"loss": evaluate(model, ids, int(i), int(parts)), "targets": len(ids) - 1}))


def leave_out(model, blocks):
    h = model.transformer.h
    model.transformer.h = type(h)(block for i, block in enumerate(h) if i not in blocks)


def added_blocks(n_layer=12, old=4):
    """The numbers of the blocks that growing added."""
    return sorted(set(range(n_layer)) - set(places(range(n_layer), old)))


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
    """results/summit.json from the runs' folders and what was measured of them (exact.json, samples.json)."""
    names = [*(f"seed-{s}" for s in SEEDS), *(f"more-{s}" for s in SEEDS), "large"]
    rows = [row(out / name) for name in names if (out / name / "best").is_dir()]
    large, m = rows[-1], machine()
    best = {key: large[key] for key in ("val_loss", "step", "tokens", "parameters", "seconds")}
    return write_result(
        ROOT / "results" / "summit.json", {"seed": SEED, "more": MORE, "large": LARGE},
        load_corpus(quiet=True), seconds=sum(r["seconds"] for r in rows),
        best={**best, "machine": f"{m['cores']} cores of an {m['cpu']}"},
        start=("four GPT-2 of 4 layers x 192 with different seeds, put side by side in one of 12 heads x 768 "
               "(gpt2/grow.py); 8 silent blocks added"),
        projection_t4=projection(rows), runs=rows, exact=read_json(out / "exact.json"),
        samples=read_json(out / "samples.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "summit")
    parser.add_argument("--exact", nargs="*", type=Path, default=[], help="folders of models")
    parser.add_argument("--without", default="", help="with --exact: blocks to leave out, with commas")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--part", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        part(*args.part)
    elif args.exact:
        for folder in args.exact:
            print(json.dumps(exact(folder.resolve(), args.without)), flush=True)
    else:
        if not args.report:
            args.out.mkdir(parents=True, exist_ok=True)
            for stage in (run_seeds, run_more, run_large):
                stage(args.out.resolve())
        say(f"exact validation {report(args.out)['best']['val_loss']:.4f}")


if __name__ == "__main__":
    main()
