"""The T4's own path on a CPU: 12 layers x 192 in fp16 with a gradient scaler, beside bf16 from one start.

    python -m bench.fp16 [--steps 50]      writes results/fp16.json and results/fp16.png

The same seed, batches and rates; Muon and AdamW, clipping after unscale. Only the loss and the scaler
are of interest: a CPU has no fp16 units, so nothing is said of speed, and the width is 192: one step at
768 takes it over a minute.
"""

from dataclasses import replace

from bench import common
from data.files import say
from data.shakespeare import load_corpus
from lab.machine import markdown
from lab.plots import DASHED, INK, PALE, STRONG, figure
from lab.project import read_json
from train_gpt2 import TrainConfig, train

RESULT = common.RESULTS / "fp16.json"
SHAPE = {**common.QUIET, **dict(n_layer=12, n_head=12, n_embd=192, block_size=64, batch_size=4,
                                tokens_per_step=512, minutes=0.0, eval_every=10**6, warmup_steps=10)}


def run(precision, steps, corpus):
    """One run: its losses, gradient norms, and the scaler's size and skipped steps, a step each."""
    config = TrainConfig.preset_of("cpu", **SHAPE, max_steps=steps, precision=precision)
    small = replace(corpus, val=corpus.val[:1025])  # validation is not the question here
    history = [r for r in train(config, small).history if "loss" in r]
    return {"precision": precision, "loss": [r["loss"] for r in history],
            "norm": [r["norm"] for r in history], "scale": [r.get("scale") for r in history],
            "skipped": [r["step"] for r in history if r.get("skipped")]}


def picture(runs, path):
    """Both losses, one line over the other; below, the scaler's size."""
    fig, (top, bottom) = figure(8.5, 4.8, rows=2, sharex=True, height_ratios=[2.2, 1])
    for r, style in zip(runs, (STRONG, DASHED), strict=True):
        top.plot(range(1, len(r["loss"]) + 1), r["loss"], **style, label=r["precision"])
    for step in runs[0]["skipped"]:
        top.axvline(step, color=PALE, zorder=0)
    top.set(title="Two kinds of 16 bits, one start", ylabel="training loss,\nnats a character")
    top.legend()
    bottom.step(range(1, len(runs[0]["scale"]) + 1), runs[0]["scale"], where="post", color=INK)
    skipped = " (pale: skipped, the gradient was not finite)" if runs[0]["skipped"] else ""
    bottom.set_yscale("log", base=2)
    bottom.set(ylabel="scale of the loss\nin fp16", xlabel=f"step{skipped}")
    fig.savefig(path, dpi=110)


def table_markdown():
    """Both training losses at some steps, and what the scaler did."""
    found = read_json(RESULT)
    if not found:
        return "Not yet measured."
    fp16, bf16 = found["runs"]
    steps = [1, *range(10, len(fp16["loss"]) + 1, 10)]
    rows = [[r["precision"], *(f"{r['loss'][step - 1]:.4f}" for step in steps)] for r in (fp16, bf16)]
    return (markdown(["training loss at step", *map(str, steps)], rows)
            + f"\n\nAt most {found['largest_difference']:.4f} apart at any step. The scale began at "
            f"{fp16['scale'][0]:,.0f} and ended at {fp16['scale'][-1]:,.0f}; "
            f"steps skipped: {len(fp16['skipped'])}.")


def measure(steps, corpus):
    runs = [run(precision, steps, corpus) for precision in ("fp16", "bf16")]
    picture(runs, RESULT.with_suffix(".png"))
    apart = max(abs(a - b) for a, b in zip(runs[0]["loss"], runs[1]["loss"], strict=True))
    return {"runs": runs, "largest_difference": apart}


def main(argv=None):
    steps, corpus = common.options(__doc__, argv, steps=50).steps, load_corpus(quiet=True)
    common.timed_result(RESULT, {**SHAPE, "max_steps": steps}, corpus, lambda: measure(steps, corpus))
    say(table_markdown())


if __name__ == "__main__":
    common.start(main)
