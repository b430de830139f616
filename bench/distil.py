"""What a small model learns from larger ones: one student, taught by the text alone and by four teachers.

    python -m bench.distil out/summit/more-{1,2,3,4}/best      about an hour on two cores; results/distil.json

The student has the shape of space/model: 4 layers x 160, context 128. With teachers, its targets are
the mean of their probabilities (gpt2/teacher.py) and nothing else; all other settings, the seed and the
batches are the same.
"""

import argparse
from pathlib import Path

from bench import common
from data.files import say
from data.shakespeare import load_corpus
from gpt2.runlog import read_history
from lab.machine import write_result
from lab.project import ROOT, read_json
from train_gpt2 import TrainConfig, train

RESULT = common.RESULTS / "distil.json"
STEPS = 12_000  # of 2,048 letters: 24 passes over the text
SETTINGS = dict(minutes=0.0, max_steps=STEPS, teacher_weight=1.0, eval_every=1000, best_dtype="fp16",
                resume="auto", log_every=0, bar=False, tensorboard=False)
KEPT = ("val_loss", "train_loss", "step", "tokens", "seconds", "parameters")


def row(name, folder):
    """What a run reached, from its own files; train_loss is of the batch of the best step."""
    m, history = read_json(folder / "best" / "metrics.json"), read_history(folder)
    last = [r["loss"] for r in history if "loss" in r][-100:]
    return {"name": name, **{key: m[key] for key in KEPT}, "train_loss_last_100": sum(last) / len(last),
            "date": m["machine"]["date"], "commit": m["machine"]["commit"],
            "validations": [[r["step"], r["val_loss"]] for r in history if "val_loss" in r]}


def table_markdown():
    """The student on the text alone and with teachers."""
    rows = [[r["name"], f"**{r['val_loss']:.4f}**", f"{r['tokens'] / 1e6:.1f} M",
             f"{r['validations'][-1][1]:.4f}"] for r in read_json(RESULT).get("rows", [])]
    return common.table(["student of 4 layers x 160, targets from", "best exact validation, windows of 128",
                         "letters until then", f"at the end, step {STEPS:,}"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teachers", nargs="*", type=Path, help="folders of models; none: only report")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "distil")
    args = parser.parse_args()
    corpus = load_corpus(quiet=True)
    runs = {"text alone": "", "four teachers": ",".join(map(str, args.teachers))}
    for name, teacher in runs.items() if args.teachers else ():
        folder = args.out / name.replace(" ", "-")
        train(TrainConfig.preset_of("cpu", **SETTINGS, teacher=teacher, out_dir=str(folder)), corpus)
    folders = {name: args.out / name.replace(" ", "-") for name in runs}
    rows = [row(name, folder) for name, folder in folders.items() if (folder / "best").is_dir()]
    if rows:  # a report without any run keeps what is there
        write_result(RESULT, SETTINGS, corpus, rows=rows)
    say(table_markdown())


if __name__ == "__main__":
    main()
