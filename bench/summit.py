"""The 12-layer GPT-2 on two CPU cores, by one command: four small models, put side by side, trained on as one.

    python bench/summit.py --out out/summit              everything that is not done yet
    python bench/summit.py --exact FOLDER [FOLDER ...]   the exact validation loss of models, both cores at work

1. SEEDS: four GPT-2 of 4 layers x 192 that differ in the seed alone. Windows grow: 128, 256, 1,024.
2. LARGE: --grow-from puts them side by side (gpt2/grow.py): 12 heads x 768, 12 layers, 8 of them new and silent. It
   begins near the loss of the four together. Then all of it is trained as one model on windows of 1,024.
Schedules follow the clock (--minutes), so a busy machine means fewer steps and not a later end.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

COMMON = dict(preset="cpu", block_size=1024, eval_every=10**6, sample_chars=0, log_every=50, precision="bf16",
              resume="auto")
SEED = dict(COMMON, n_layer=4, n_head=3, n_embd=192, tokens_per_step=2048, batch_size=2, muon_lr=0.025,
            windows="128:0.5,256:0.2,1024:0.3", minutes=34, max_steps=4000)
LARGE = dict(COMMON, n_layer=12, n_head=12, n_embd=768, tokens_per_step=4096, batch_size=2, optimizer="adamw",
             lr=2e-4, warmup_steps=10, dropout=0.1, minutes=57, max_steps=150, eval_every=10**6, log_every=1,
             save_every=0, save_minutes=10)
SEEDS = (1, 2, 3, 4)
PROCESSES = 2  # of the large run


def command(settings, **more):
    words = [sys.executable, str(ROOT / "train_gpt2.py"), "--no-bar", "--no-tensorboard"]
    for name, value in {**settings, **more}.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    return words


def start(words, log, **environment):
    """A process in a session of its own: Linux shares a busy machine out by session."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    with open(log, "a") as f:
        return subprocess.Popen(words, stdout=f, stderr=f, stdin=subprocess.DEVNULL, env=environment,
                                start_new_session=True)


def finish(processes):
    if any([p.wait() for p in processes]):
        raise SystemExit("A run failed: its log says why.")


def run_seeds(out):
    finish([start(command(SEED, seed=s, out_dir=out / f"seed-{s}"), out / f"seed-{s}.log") for s in SEEDS])


def run_large(out, settings=LARGE, name="large"):
    folders = ",".join(str(out / f"seed-{s}" / "best") for s in SEEDS)
    words = command(settings, grow_from=folders, out_dir=out / name)
    group = dict(WORLD_SIZE=str(PROCESSES), MASTER_ADDR="127.0.0.1", MASTER_PORT="29577")
    return [start(words, out / f"{name}-{rank}.log", **group, RANK=str(rank), LOCAL_RANK=str(rank))
            for rank in range(PROCESSES)]


# ---- The exact loss


def exact(folder, parts=2):
    """The exact validation loss (evaluate: fp32, windows of the model's context), the windows shared out."""
    began = time.time()
    words = [sys.executable, __file__, "--part"]
    running = [subprocess.Popen([*words, str(i), str(parts), str(folder)], stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True)
               for i in range(parts)]
    done = [json.loads(p.communicate()[0]) for p in running]
    total, targets = (sum(d[key] for d in done) for key in ("total", "targets"))
    return {"folder": Path(folder).name, "val_loss": total / targets, "targets": targets,
            "seconds": round(time.time() - began, 1)}


def part(i, parts, folder):
    from data.shakespeare import load_corpus
    from model_gpt2 import GPT
    from train_gpt2 import evaluate

    model, ids = GPT.from_pretrained(folder), load_corpus(quiet=True).val
    T = model.config.block_size
    cuts = [T * (k * (len(ids) // T) // parts) for k in range(parts)] + [len(ids) - 1]
    mine = ids[cuts[i] : cuts[i + 1] + 1]
    print(json.dumps({"total": evaluate(model, mine) * (len(mine) - 1), "targets": len(mine) - 1}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "summit")
    parser.add_argument("--exact", nargs="*", type=Path)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        part(int(args.part[0]), int(args.part[1]), args.part[2])
    elif args.exact:
        for folder in args.exact:
            print(json.dumps(exact(folder)), flush=True)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        run_seeds(args.out)
        finish(run_large(args.out))


if __name__ == "__main__":
    main()
