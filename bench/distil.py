"""What a small model learns from larger ones: one student, taught by the text alone and by four teachers.

    python -m bench.distil [--teachers FOLDER ...]      some hours on two cores; results/distil.json

The student has the shape of space/model: 4 layers x 160, context 128. With teachers, its targets are
the mean of their probabilities (gpt2/teacher.py) and nothing else; all other settings, the seed and the
batches are the same.
"""

from pathlib import Path

from bench import common
from data.files import say
from data.shakespeare import load_corpus
from gpt2.runlog import read_history
from lab.project import ROOT, read_json
from train_gpt2 import TrainConfig, train

RESULT = common.RESULTS / "distil.json"
STEPS = 12_000  # of 2,048 letters: 24 passes over the text
SETTINGS = dict(minutes=0.0, max_steps=STEPS, teacher_weight=1.0, eval_every=1000, best_dtype="fp16",
                resume="auto", log_every=0, bar=False, tensorboard=False)
TEACHERS = [f"out/summit/more-{seed}/best" for seed in (1, 2, 3, 4)]
KEPT = ("val_loss", "train_loss", "step", "tokens", "seconds", "parameters")


def student(name, teachers, out, corpus):
    """Trained from the start, from where it stands, or not at all; a row of what it reached.

    train_loss is of the batch of the best step.
    """
    folder = Path(out, name.replace(" ", "-"))
    train(TrainConfig.preset_of("cpu", **SETTINGS, teacher=",".join(teachers), out_dir=str(folder)), corpus)
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


def main(argv=None):
    args = common.options(__doc__, argv, teachers=TEACHERS, out=str(ROOT / "out" / "distil"))
    corpus, runs = load_corpus(quiet=True), {"text alone": [], "four teachers": args.teachers}
    common.timed_result(RESULT, SETTINGS, corpus, lambda: {
        "rows": [student(name, teachers, args.out, corpus) for name, teachers in runs.items()]})
    say(table_markdown())


if __name__ == "__main__":
    common.start(main)
