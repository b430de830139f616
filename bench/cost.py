"""How the cost of training and sampling grows: laws fitted to points, and asked for one they have not seen.

    python -m bench.cost time         a training step against layers, sequences, context, width
    python -m bench.cost memory       the most memory of a step, against the same four
    python -m bench.cost sampling     one more letter, against the letters so far, with and without a cache

Each writes its own part of results/cost.json, with its machine, date and commit, and then
results/cost.png. What theory expects stands beside each axis; it was written before the part was run.
One thread a core, fp32, characters at random.
"""

import argparse
import ctypes
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch

from bench.common import in_process, in_turns, judge, seconds, spread, value
from data.files import say
from gpt2.machine import cores
from gpt2.plan import memory_plan
from gpt2.settings import TrainConfig
from lab.machine import markdown, result, write_json
from lab.plots import ACCENT, GREY, INK, figure
from lab.project import ROOT, read_json
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import make_optimizers, optimizer_step

RESULT = ROOT / "results" / "cost.json"
# heads of 32, so only the width changes; for memory large beside what Python and torch take
BASES = {"time": {"layers": 4, "sequences": 8, "context": 128, "width": 128},
         "memory": {"layers": 4, "sequences": 16, "context": 256, "width": 256}}
LINE, SQUARE = (0, 1), (0, 1, 2)  # powers of a law: a + b x, a + b x + c x^2
# axis: (values that are fitted, one larger value that is held out, the law for time, the law for memory)
AXES = {
    # every layer does the same work and keeps as much; a is the embedding, the head and the loss
    "layers": ([1, 2, 3, 4, 6, 8], 12, LINE, LINE),
    # all work but the optimizer's is done once a sequence; weights and their moments are there once
    "sequences": ([1, 2, 4, 8, 12, 16], 24, LINE, LINE),
    # matrices work once a token (b), attention looks from each at every earlier one (c); by operations c T
    # passes b at T = 6 x width. Memory has no c: attention's T x T pattern is never kept as a whole
    "context": ([32, 64, 128, 256, 384, 512], 768, SQUARE, LINE),
    # 12 C^2 numbers in the matrices of a layer (c); LayerNorm, GELU, softmax, the embedding touch C (b)
    "width": ([64, 96, 128, 192, 256, 384], 512, SQUARE, SQUARE),
}
# cached: a reads all weights once, b n keys and values of n letters; uncached: the text goes through again
LENGTHS = {"cached": ([16, 128, 256, 384, 512, 768], 1000, LINE),
           "uncached": ([16, 128, 256, 384, 512, 768], 1000, SQUARE)}
TOLERANCE = {"time": 0.15, "memory": 0.10, "sampling": 0.15}
TINY_AXES = {"layers": ([1, 2], 3, LINE, LINE)}
TINY_LENGTHS = {"cached": ([8, 16, 32], 48, LINE), "uncached": ([8, 16, 32], 48, SQUARE)}


# ---- a training step


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


def laws(part, axes):
    """{axis: (values, held out, powers)} of a part."""
    return {axis: (xs, held, powers[part == "memory"]) for axis, (xs, held, *powers) in axes.items()}


def measure_time(tiny):
    axes = laws("time", TINY_AXES if tiny else AXES)
    steps = {(axis, x): Step(*config_at("time", axis, x)) for axis, (xs, held, _) in axes.items()
             for x in [*xs, held]}
    times = in_turns({key: step.second_of_two for key, step in steps.items()}, 1 if tiny else 9)
    return {"curves": curves("time", axes, {key: spread(samples) for key, samples in times.items()})}


def curves(part, axes, points):
    """{(axis, x): {"median": ...}} -> {axis: its points, the law, and how it did on the point held out}."""
    found = {}
    for axis, (xs, held, powers) in axes.items():
        medians = {x: points[axis, x]["median"] for x in xs}
        verdict = judge(medians, (held, points[axis, held]["median"]), powers, TOLERANCE[part])
        found[axis] = {"points": [{"x": x, **points[axis, x]} for x in [*xs, held]], **verdict}
    return found


def status_bytes(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def peak_of(axis, x):
    """Bytes that building a model and two training steps add to this process at their worst; Linux, glibc.

    Freed blocks return to the system at once, so the peak is what was in use together, not what malloc kept.
    """
    ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD, which otherwise grows to 32 MB
    torch.set_num_threads(1)
    Step(config_at("memory")[0], 1)()  # code and buffers that any step brings along
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    step = Step(*config_at("memory", axis, x))
    step()
    step()
    return status_bytes("VmHWM") - before


def measure_memory(tiny):
    """Each point in a process of its own, beside what gpt2.plan.memory_plan foretells."""
    axes, points = laws("memory", TINY_AXES if tiny else AXES), {}
    for axis, (xs, held, _) in axes.items():
        for x in [*xs, held]:
            peak = in_process("bench.cost", axis, x)
            plan = sum(memory_plan(*config_at("memory", axis, x)).values())
            points[axis, x] = {**spread([peak]), "plan": plan, "plan_error": round(plan / peak - 1, 4)}
    worst = max((point["plan_error"] for point in points.values()), key=abs)
    return {"largest_plan_error": worst, "curves": curves("memory", axes, points)}


# ---- sampling


def letters(model, n, count, use_cache):
    """Seconds a letter behind n letters, the mean of `count`; reading the prompt is not counted."""
    prompt = torch.randint(65, (1, n))
    steps = model.stream(prompt, count + use_cache, temperature=0.8, top_k=50, use_cache=use_cache)
    if use_cache:
        next(steps)
    return seconds(lambda: [next(steps) for _ in range(count)]) / count


def measure_sampling(tiny):
    g = GPTConfig(64, 65, 1, 1, 16) if tiny else GPTConfig(1024, 65, 6, 6, 384)
    torch.manual_seed(0)
    model, lengths, count = GPT(g).eval(), TINY_LENGTHS if tiny else LENGTHS, {"cached": 12, "uncached": 1}
    measures = {(way, n): lambda n=n, way=way: letters(model, n, count[way], way == "cached")
                for way, (xs, held, _) in lengths.items() for n in [*xs, held]}
    in_turns(measures, 1)  # warm
    points = {key: spread(times) for key, times in in_turns(measures, 1 if tiny else 15).items()}
    ratio = {str(n): round(points["uncached", n]["median"] / points["cached", n]["median"], 1)
             for way, n in points if way == "cached"}
    return {"shape": f"{g.n_layer} layers, {g.n_head} heads, {g.n_embd} wide, context {g.block_size}",
            "cache_is_faster": ratio, "curves": curves("sampling", lengths, points)}


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
    head = ["cost against", "law", "largest error of the fit", "on the point held out"]
    return markdown(head, rows) if rows else "Not yet measured."


def draw_curve(ax, curve, unit, color, xlabel):
    """Points, their law, and the held-out point as a ring."""
    *seen, last = curve["points"]
    grid = np.linspace(seen[0]["x"], last["x"], 60)
    ax.plot(grid, value(curve["coefficients"], curve["powers"], grid) * unit, color=color, linewidth=1.5)
    ax.plot([p["x"] for p in seen], [p["median"] * unit for p in seen], "o", color=color, markersize=5)
    ax.plot(last["x"], last["median"] * unit, "o", color=color, markerfacecolor="white", markersize=8)
    ax.set(xlabel=xlabel, ylim=(0, None), xlim=(0, None))
    ax.text(0.97, 0.04, f"held out: {signed(curve['held_out']['error'])}", transform=ax.transAxes, ha="right",
            fontsize=11)


def draw(parts):
    """The picture of all three parts."""
    fig, axes = figure(14, 10.5, rows=3, columns=4)
    for row, (part, unit, color) in enumerate((("time", 1e3, ACCENT), ("memory", 1e-6, INK))):
        for ax, (axis, curve) in zip(axes[row], parts[part]["curves"].items(), strict=True):
            draw_curve(ax, curve, unit, color, "sequences a step" if axis == "sequences" else axis)
            if part == "memory":
                xs, plans = ([p[key] for p in curve["points"]] for key in ("x", "plan"))
                ax.plot(xs, [plan / 1e6 for plan in plans], "x", color=GREY, label="memory_plan")
    axes[0][0].set(ylabel="ms a step", title="Time of a training step")
    axes[1][0].set(ylabel="MB", title="Memory of a training step")
    axes[1][0].legend(loc="upper left", frameon=False)
    for ax, way in zip(axes[2], ("uncached", "cached"), strict=False):
        draw_curve(ax, parts["sampling"]["curves"][way], 1e3, ACCENT, "letters so far")
        title = "A letter without a cache" if way == "uncached" else "… with a cache"
        ax.set(title=title, ylabel="ms a letter")
    for ax in axes[2][2:]:
        ax.axis("off")
    return fig


def alt_text(parts):
    said = [f"{part} against {axis} {signed(curve['held_out']['error'])}" for part in ("time", "memory")
            for axis, curve in parts[part]["curves"].items()]
    faster = parts["sampling"]["cache_is_faster"]
    n = max(faster, key=int)
    return ("Ten small graphs of cost. Training step time and memory, each against layers, sequences, "
            f"context and width: points, fitted laws, and a held-out point with the law's error "
            f"({', '.join(said)}). "
            f"A letter behind {n} letters costs {faster[n]:.0f} times as much without a cache.")


# ---- the command


MEASURES = {"time": measure_time, "memory": measure_memory, "sampling": measure_sampling}


def run_part(part, out, tiny):
    """Measure one part and put it into the result file beside the others; the picture, once all are there."""
    torch.set_num_threads(cores())
    start = time.perf_counter()
    found = MEASURES[part](tiny)
    config = {"threads": torch.get_num_threads(), "precision": "fp32", "base": BASES.get(part),
              "optimizer": "adamw"}
    found = result(config, seconds=round(time.perf_counter() - start, 1), **found)
    saved = read_json(out)
    saved["parts"] = {**saved.get("parts", {}), part: found}
    if set(MEASURES) <= set(saved["parts"]) and not tiny:
        picture = Path(out).with_suffix(".png")
        draw(saved["parts"]).savefig(picture, dpi=100)
        saved["picture"] = {"file": picture.name, "alt": alt_text(saved["parts"])}
    write_json(out, saved)
    say(table_markdown(saved))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.cost", description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=list(MEASURES))
    parser.add_argument("--out", default=str(RESULT), help="the JSON file to add to")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, for tests")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return print(json.dumps(peak_of(*json.loads(args.child))))
    if not args.part:
        parser.error(f"name a part: {', '.join(MEASURES)}")
    run_part(args.part, args.out, args.tiny)


if __name__ == "__main__":
    sys.exit(main())
