"""How the cost of training and sampling grows: laws fitted to measured points, and asked for one they have not seen.

    python -m bench.cost time         a training step against layers, sequences, context, width     (about 80 s)
    python -m bench.cost memory       the most memory of a step, against the same four               (about 60 s)
    python -m bench.cost sampling     one more letter, against the letters so far, with and without a cache
    python -m bench.cost_figure       results/cost.png from results/cost.json

Each part writes its own piece of results/cost.json, with its machine, date and commit. What theory expects stands in
THEORY below; it was written before the part was run. One thread a core, fp32, characters at random.
"""

import argparse
import ctypes
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import torch

from bench.common import in_turns, judge, markdown, seconds, spread
from data.files import write_atomic
from gpt2.errors import TrainError
from gpt2.machine import cores
from gpt2.plan import memory_plan
from gpt2.settings import TrainConfig
from lab.machine import write_result
from lab.project import ROOT, read_json
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import make_optimizers, optimizer_step

RESULT = ROOT / "results" / "cost.json"
BASE = {"layers": 4, "sequences": 8, "context": 128, "width": 128}  # heads of 32, so only the width changes

# axis: (values that are fitted, one larger value that is held out, powers of the law)
TIME_AXES = {
    "layers": ([1, 2, 3, 4, 6, 8], 12, (0, 1)),
    "sequences": ([1, 2, 4, 8, 12, 16], 24, (0, 1)),
    "context": ([32, 64, 128, 256, 384, 512], 768, (0, 1, 2)),
    "width": ([64, 96, 128, 192, 256, 384], 512, (0, 1, 2)),
}
MEMORY_AXES = {axis: (xs, held, (0, 1) if axis == "context" else powers)
               for axis, (xs, held, powers) in TIME_AXES.items()}
TOLERANCE = {"time": 0.15, "memory": 0.10, "sampling": 0.15}
MEMORY_BASE = {"layers": 4, "sequences": 16, "context": 256, "width": 256}  # large beside what Python and torch take
THEORY = {
    "time": {
        "layers": "a + b L: every layer does the same work; a is the embedding, the head and the loss.",
        "sequences": "a + b B: all work but the optimizer's is done once a sequence; a is the optimizer's.",
        "context": "a + b T + c T^2 at a fixed number of sequences: the matrices work once a token (b), attention "
                   "looks from each token at every earlier one (c). By operations c T passes b at T = 6 x width.",
        "width": "a + b C + c C^2: the matrices have 12 C^2 numbers a layer (c); LayerNorm, GELU, softmax and the "
                 "embedding touch each of C numbers (b).",
    },
    "memory": {
        "layers": "a + b L: weights, gradients and moments (16 bytes a parameter), and what a layer keeps for the way "
                  "back.",
        "sequences": "a + b B: weights are there once, what is kept for the way back once a sequence.",
        "context": "a + b T, without T^2: attention's T x T pattern is never kept as a whole.",
        "width": "a + b C + c C^2: kept numbers grow with C, weights and their moments with C^2.",
    },
    "sampling": {
        "cached": "a + b n: a reads all weights once; b n reads the keys and values of n letters. Here all keys and "
                  "values at n = 1,024 are 0.44 of the weights' bytes, so the line rises by less than half.",
        "uncached": "a + b n + c n^2: the whole text goes through the model again for each letter. Nearly n times the "
                    "cost of a short text.",
    },
}


# ---- what is measured


def config_at(axis=None, x=None, base=BASE):
    """(GPTConfig, sequences) of the base shape with one thing changed."""
    s = {**base, **({axis: x} if axis else {})}
    return GPTConfig(s["context"], 65, s["layers"], max(1, s["width"] // 32), s["width"]), s["sequences"]


class Step:
    """A model, its AdamW and one batch of random ids: calling it does one optimizer step."""

    def __init__(self, g, sequences):
        torch.manual_seed(0)
        self.model = GPT(g)
        self.optimizers = make_optimizers(self.model, TrainConfig(optimizer="adamw", lr=1e-4), torch.float32)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        ids = torch.randint(g.n_tokens or g.vocab_size, (2, sequences, g.block_size))
        self.batches = [(ids[0], ids[1])]

    def __call__(self):
        optimizer_step(self.model, self.optimizers, self.scaler, self.batches)

    def second_of_two(self):
        """Seconds of a step right after another one of the same model: its weights are as near as in a real run."""
        self()
        return seconds(self)


def measure_time(axes, rounds):
    """Curves of a training step."""
    steps = {(axis, x): Step(*config_at(axis, x)) for axis, (xs, held, _) in axes.items() for x in [*xs, held]}
    times = in_turns({key: step.second_of_two for key, step in steps.items()}, rounds)
    return curves("time", axes, {key: spread(samples) for key, samples in times.items()})


def curves(part, axes, points):
    """{(axis, x): {"median": ...}} -> {"curves": {axis: points, law, theory}}."""
    found = {}
    for axis, (xs, held, powers) in axes.items():
        medians = {x: points[axis, x]["median"] for x in xs}
        verdict = judge(medians, (held, points[axis, held]["median"]), powers, TOLERANCE[part])
        found[axis] = {"theory": THEORY[part][axis], "points": [{"x": x, **points[axis, x]} for x in [*xs, held]],
                       **verdict}
    return {"curves": found}


# ---- memory: each point in a process of its own, forked before any work is done


def status_bytes(name):
    return 1024 * int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def peak_of(g, sequences, give_back=True):
    """Bytes that building a model and two training steps add to this process at their worst. Linux with glibc only.

    give_back: freed blocks return to the system at once, so the peak is what was in use together, not what the
    allocator kept for later.
    """
    if give_back:
        ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD, which otherwise grows to 32 MB
    Step(config_at()[0], 1)()  # code and buffers that any step brings along
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    step = Step(g, sequences)
    step()
    step()
    return status_bytes("VmHWM") - before


def in_fork(work):
    """What work() returns, computed in a forked process whose memory goes back when it ends."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    if not answer:
        raise TrainError("A point of the memory curve died, most likely for want of memory: close other programs.")
    return json.loads(answer)


def measure_memory(axes, rounds):
    """Curves of the memory of a step, each point beside what gpt2.plan.memory_plan foretells."""
    torch.set_num_threads(1)  # a fork that inherits a pool of threads would hang
    points = {}
    for axis, (xs, held, _) in axes.items():
        for x in [*xs, held]:
            g, sequences = config_at(axis, x, MEMORY_BASE)
            measured = spread([in_fork(lambda g=g, s=sequences: peak_of(g, s)) for _ in range(rounds)])
            plan = sum(memory_plan(g, sequences).values())
            points[axis, x] = {**measured, "plan": plan, "plan_error": round(plan / measured["median"] - 1, 4)}
    errors = [point["plan_error"] for point in points.values()]
    return {"base": MEMORY_BASE, "largest_plan_error": max(errors, key=abs), **curves("memory", axes, points)}


# ---- sampling


def letters(model, n, count, use_cache):
    """Seconds a letter behind n letters, the mean of `count`; reading the prompt into the cache is not counted."""
    steps = model.stream(torch.randint(65, (1, n)), count + use_cache, temperature=0.8, top_k=50, use_cache=use_cache)
    if use_cache:
        next(steps)
    start = time.perf_counter()
    for _ in range(count):
        next(steps)
    return (time.perf_counter() - start) / count


def measure_sampling(lengths, held, rounds, g):
    torch.manual_seed(0)
    model = GPT(g).eval()
    measures = {(way, n): lambda n=n, way=way: letters(model, n, 12 if way == "cached" else 1, way == "cached")
                for way in ("cached", "uncached") for n in [*lengths, held]}
    in_turns(measures, 1)  # warm
    points = {key: spread(times) for key, times in in_turns(measures, rounds).items()}
    axes = {"cached": (lengths, held, (0, 1)), "uncached": (lengths, held, (0, 1, 2))}
    times = {n: points["uncached", n]["median"] / points["cached", n]["median"] for n in [*lengths, held]}
    return {"shape": f"{g.n_layer} layers, {g.n_head} heads, {g.n_embd} wide, context {g.block_size}",
            "cache_is_faster": {str(n): round(t, 1) for n, t in times.items()},
            **curves("sampling", axes, points)}


# ---- table


def signed(error):
    """+3%, -4% or 0%."""
    return "0%" if abs(error) < 0.005 else f"{error:+.0%}"


LAWS = {(0, 1): "a + b x", (0, 1, 2): "a + b x + c x²"}


def table_markdown(result=None):
    """README table: the laws, how well they fit, and how they did on the point that they had not seen."""
    parts = (result or read_json(RESULT)).get("parts", {})
    rows = []
    for part, what in (("time", "seconds a step"), ("memory", "memory of a step"), ("sampling", "seconds a letter")):
        for axis, curve in parts.get(part, {}).get("curves", {}).items():
            held = curve["held_out"]
            verdict = f"{signed(held['error'])} at {held['x']}" + ("" if held["holds"] else ": the law fails")
            rows.append([f"{what}, {axis}", LAWS[tuple(curve["powers"])], f"{curve['largest_error']:.0%}", verdict])
    return markdown(["cost against", "law", "largest error of the fit", "on the point held out"], rows) \
        if rows else "Not yet measured."


# ---- the command

QUICK_AXES = {"layers": ([1, 2], 3, (0, 1))}
MEASURES = {
    "time": lambda quick: measure_time(QUICK_AXES if quick else TIME_AXES, 1 if quick else 9),
    "memory": lambda quick: measure_memory(QUICK_AXES if quick else MEMORY_AXES, 1),
    "sampling": lambda quick: measure_sampling([8, 16, 32], 48, 1, GPTConfig(64, 65, 1, 1, 16)) if quick else
    measure_sampling([16, 128, 256, 384, 512, 768], 1000, 15, GPTConfig(1024, 65, 6, 6, 384)),
}


def run_part(part, out, quick):
    """Measure one part and put it into the result file beside the others; runs before it keep their verdicts."""
    torch.set_num_threads(cores())
    start = time.perf_counter()
    found = MEASURES[part](quick)
    config = {"threads": torch.get_num_threads(), "precision": "fp32", "base": BASE, "optimizer": "adamw"}
    parts = read_json(out).get("parts", {})
    with tempfile.TemporaryDirectory() as folder:
        seconds_taken = round(time.perf_counter() - start, 1)
        found = write_result(Path(folder) / "part.json", config, seconds=seconds_taken, **found)
    if old := parts.get(part):
        errors = {axis: curve["held_out"]["error"] for axis, curve in old["curves"].items()}
        verdict = {"date": old["date"], "commit": old["commit"], "held_out_errors": errors}
        found["earlier_runs"] = [*old.get("earlier_runs", []), verdict]
    merge(out, parts={**parts, part: found})


def merge(out, **changes):
    write_atomic(out, json.dumps({**read_json(out), **changes}, indent=1) + "\n")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=list(MEASURES))
    parser.add_argument("--out", default=str(RESULT), help="the JSON file to add to")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, for tests")
    args = parser.parse_args(argv)
    try:
        run_part(args.part, args.out, args.quick)
        print(table_markdown(read_json(args.out)))
        return 0
    except TrainError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
