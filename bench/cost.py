"""How the cost of training and sampling grows: laws fitted to points, and asked for one they have not seen.

    python -m bench.cost --part time memory sampling      [--tiny]

time      a training step against layers, sequences, context, width
memory    the most memory of a step, against the same four, beside what gpt2.plan.memory_plan foretells
sampling  one more letter, against the letters so far, with and without a cache

Each writes its own part of results/cost.json, with its machine, date and commit, and then
results/cost.png. What theory expects stands beside each axis; it was written before the part was run.
One thread a core, fp32, characters at random. --tiny: three points of one axis, into build/.
"""

import ctypes
import time

import numpy as np
import torch

from bench import common
from bench.common import RESULTS, seconds, spread
from data.files import say
from gpt2.machine import cores
from gpt2.plan import memory_plan
from gpt2.settings import TrainConfig
from lab.machine import result, write_json
from lab.plots import ACCENT, GREY, INK, figure
from lab.project import ROOT, read_json
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import make_optimizers, optimizer_step

RESULT = RESULTS / "cost.json"
# heads of 32, so only the width changes; for memory large beside what Python and torch take
BASES = {"time": {"layers": 4, "sequences": 8, "context": 128, "width": 128},
         "memory": {"layers": 4, "sequences": 16, "context": 256, "width": 256},
         "sampling": {"layers": 6, "sequences": 1, "context": 1024, "width": 384}}
LINE, SQUARE = (0, 1), (0, 1, 2)  # powers of a law: a + b x, a + b x + c x^2
AXES = {  # values, the last of them held out; the law for time, the law for memory
    # every layer does the same work and keeps as much; a is the embedding, the head and the loss
    "layers": ([1, 2, 3, 4, 6, 8, 12], LINE, LINE),
    # all work but the optimizer's is done once a sequence; weights and their moments are there once
    "sequences": ([1, 2, 4, 8, 12, 16, 24], LINE, LINE),
    # matrices work once a token (b), attention looks from each at every earlier one (c); by operations c T
    # passes b at T = 6 x width. Memory has no c: attention's T x T pattern is never kept as a whole
    "context": ([32, 64, 128, 256, 384, 512, 768], SQUARE, LINE),
    # 12 C^2 numbers in the matrices of a layer (c); LayerNorm, GELU, softmax, the embedding touch C (b)
    "width": ([64, 96, 128, 192, 256, 384, 512], SQUARE, SQUARE),
}
# cached: a reads all weights once, b n keys and values of n letters; uncached: the text goes through again
LENGTHS, WAYS = [16, 128, 256, 384, 512, 768, 1000], {"cached": LINE, "uncached": SQUARE}
LAWS = {"time": {axis: (values, law) for axis, (values, law, _) in AXES.items()},
        "memory": {axis: (values, law) for axis, (values, _, law) in AXES.items()},
        "sampling": {way: (LENGTHS, law) for way, law in WAYS.items()}}
TOLERANCE = {"time": 0.15, "memory": 0.10, "sampling": 0.15}


# ---- a law


def value(coefficients, powers, x):
    """Sum of c x^p, at a number or an array."""
    return sum(c * np.asarray(x, float) ** p for c, p in zip(coefficients, powers, strict=True))


def judge(points, held, powers, tolerance):
    """Fit a law to points {x: y}, then ask it for the one point `held` (x, y) that it has not seen.

    The fit has the least squared *relative* error, so small points count as much.
    """
    x, y = (np.asarray(list(part), float) for part in (points, points.values()))
    columns = np.stack([x**p / y for p in powers], axis=1)
    coefficients = np.linalg.lstsq(columns, np.ones_like(y), rcond=None)[0].tolist()
    worst = np.abs(value(coefficients, powers, x) / y - 1).max()
    predicted = float(value(coefficients, powers, held[0]))
    error = predicted / held[1] - 1
    return {"powers": list(powers), "coefficients": coefficients, "largest_error": round(float(worst), 4),
            "held_out": {"x": held[0], "measured": held[1], "predicted": predicted, "error": round(error, 4),
                         "tolerance": tolerance, "holds": abs(error) <= tolerance}}


def curves(part, laws, points):
    """{(axis, x): {"median": ...}} -> {axis: its points, the law, and how it did on the point held out}."""
    found = {}
    for axis, ((*values, held), powers) in laws.items():
        medians = {x: points[axis, x]["median"] for x in values}
        verdict = judge(medians, (held, points[axis, held]["median"]), powers, TOLERANCE[part])
        found[axis] = {"points": [{"x": x, **points[axis, x]} for x in [*values, held]], **verdict}
    return found


# ---- what is measured: each gives {(axis, x): {"median", ...}}, from `asked`, the (axis, x), and rounds


def config_at(part, axis=None, x=None):
    """(GPTConfig, sequences) of the part's base shape with one thing changed."""
    s = {**BASES[part], **({axis: x} if axis else {})}
    return GPTConfig(s["context"], 65, s["layers"], max(1, s["width"] // 32), s["width"]), s["sequences"]


class Step:
    """A model, its AdamW and one batch of random ids: calling it does one optimizer step."""

    def __init__(self, g, sequences):
        torch.manual_seed(0)
        self.model = GPT(g)
        self.optimizers = make_optimizers(self.model, TrainConfig(optimizer="adamw", lr=1e-4), torch.float32)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.batches = [tuple(torch.randint(g.vocab_size, (2, sequences, g.block_size)))]

    def __call__(self):
        optimizer_step(self.model, self.optimizers, self.scaler, self.batches)

    def second_of_two(self):
        """Seconds of a step right after another of the same model: weights are as near as in a real run."""
        self()
        return seconds(self)


def time_of(asked, rounds):
    steps = {key: Step(*config_at("time", *key)).second_of_two for key in asked}
    return {key: spread(taken) for key, taken in common.in_turns(steps, rounds).items()}


def peak_of(axis, x):
    """Bytes that building a model and two training steps add to this process at their worst; Linux, glibc.

    Freed blocks return to the system at once, so the peak is what was in use together, not what malloc kept.
    """
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD, which otherwise grows to 32 MB
    torch.set_num_threads(1)
    Step(config_at("memory")[0], 1)()  # code and buffers that any step brings along
    before = common.status_mb("VmRSS")
    common.forget_peak()
    step = Step(*config_at("memory", axis, x))
    step()
    step()
    return 1e6 * (common.status_mb("VmHWM") - before)


def memory_of(asked, rounds):
    """Each point in a process of its own."""
    points = {}
    for key in asked:
        peak = common.in_process("bench.cost", *key)
        plan = sum(memory_plan(*config_at("memory", *key)).values())
        points[key] = {**spread([peak]), "plan": plan, "plan_error": round(plan / peak - 1, 4)}
    return points


def sampling_of(asked, rounds):
    torch.manual_seed(0)
    model = GPT(GPTConfig(1024, 65, 6, 6, 384)).eval()
    measures = {(way, n): lambda n=n, way=way: letter(model, n, way == "cached") for way, n in asked}
    common.in_turns(measures, 1)  # warm
    return {key: spread(taken) for key, taken in common.in_turns(measures, rounds).items()}


def letter(model, n, use_cache):
    """Seconds a letter behind n letters; with a cache the mean of 12, without the prompt's."""
    count = 12 if use_cache else 1
    steps = model.stream(torch.randint(65, (1, n)), count + use_cache, temperature=0.8, top_k=50,
                         use_cache=use_cache)
    if use_cache:
        next(steps)
    return seconds(lambda: [next(steps) for _ in range(count)]) / count


MEASURES = {"time": (time_of, 9), "memory": (memory_of, 1), "sampling": (sampling_of, 15)}


# ---- table and picture


def signed(error):
    """+3%, -4% or 0%."""
    return "0%" if abs(error) < 0.005 else f"{error:+.0%}"


def table_markdown(saved=None):
    """README table: the laws, how well they fit, and how they did on the point that they had not seen."""
    parts, rows = (saved or read_json(RESULT)).get("parts", {}), []
    titles = {"time": "seconds a step", "memory": "memory of a step", "sampling": "seconds a letter"}
    for part, what in titles.items():
        for axis, curve in parts.get(part, {}).get("curves", {}).items():
            law = "a + b x" if tuple(curve["powers"]) == LINE else "a + b x + c x²"
            held = curve["held_out"]
            verdict = f"{signed(held['error'])} at {held['x']}" + ("" if held["holds"] else ": the law fails")
            rows.append([f"{what}, {axis}", law, f"{curve['largest_error']:.0%}", verdict])
    return common.table(["cost against", "law", "largest error of the fit", "on the point held out"], rows)


def draw(parts):
    """A row of small graphs for each part: points, their law, and the held-out point as a ring."""
    fig, axes = figure(14, 10.5, rows=3, columns=4)
    units = {"time": (1e3, ACCENT, "ms a step"), "memory": (1e-6, INK, "MB"),
             "sampling": (1e3, ACCENT, "ms a letter")}
    for row, (part, (unit, color, label)) in zip(axes, units.items(), strict=True):
        row[0].set(ylabel=label)
        for ax, (axis, curve) in zip(row, parts[part]["curves"].items(), strict=False):
            *seen, last = curve["points"]
            grid = np.linspace(seen[0]["x"], last["x"], 60)
            ax.plot(grid, value(curve["coefficients"], curve["powers"], grid) * unit, color=color)
            ax.plot([p["x"] for p in seen], [p["median"] * unit for p in seen], "o", color=color)
            ax.plot(last["x"], last["median"] * unit, "o", color=color, markerfacecolor="white", markersize=8)
            if part == "memory":
                xs, plans = ([p[key] for p in curve["points"]] for key in ("x", "plan"))
                ax.plot(xs, [plan / 1e6 for plan in plans], "x", color=GREY, label="memory_plan")
            ax.set(xlabel=f"letters so far, {axis}" if part == "sampling" else axis, ylim=(0, None),
                   title=f"held out: {signed(curve['held_out']['error'])}")
    axes[1][0].legend(loc="upper left", frameon=False)
    for ax in axes[2][2:]:
        ax.axis("off")
    return fig


# ---- the command


def run_part(part, out, tiny=False):
    """Measure one part and put it into the result file beside the others."""
    torch.set_num_threads(cores())
    began, (measure, rounds) = time.perf_counter(), MEASURES[part]
    laws = LAWS[part]
    if tiny:
        axis, (values, law) = next(iter(laws.items()))
        laws = {axis: (values[:3], law)}
    asked = [(axis, x) for axis, (values, _) in laws.items() for x in values]
    found = {"curves": curves(part, laws, measure(asked, 1 if tiny else rounds))}
    config = {"threads": torch.get_num_threads(), "precision": "fp32", "base": BASES[part],
              "optimizer": "adamw"}
    saved = read_json(out)
    found = result(config, seconds=round(time.perf_counter() - began, 1), **found)
    write_json(out, {"parts": {**saved.get("parts", {}), part: found}})


def main(argv=None):
    args = common.options(__doc__, argv, part=list(MEASURES), tiny=False)
    out = ROOT / "build" / "cost.json" if args.tiny else RESULT
    for part in args.part:
        run_part(part, out, args.tiny)
    saved = read_json(out)
    if set(MEASURES) <= set(saved["parts"]) and not args.tiny:
        draw(saved["parts"]).savefig(out.with_suffix(".png"), dpi=100)
    say(table_markdown(saved))


if __name__ == "__main__":
    common.start(main, peak_of)
