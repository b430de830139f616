"""How the cost of training and sampling grows, and what that says about 10 billion tokens on cards we do not have.

    python -m bench.cost time         a training step against layers, sequences, context, width     (about 80 s)
    python -m bench.cost memory       the most memory of a step, against the same four               (about 60 s)
    python -m bench.cost sampling     one more letter, against the letters so far, with and without a cache
    python -m bench.cost processes    two processes that exchange gradients, against one with two threads
    python -m bench.cost whole        GPT-2 124M itself, one sequence of 1,024: foretold, then measured
    python -m bench.cost predict      10 B tokens on 1 T4, 8 A100, 8 H100, 64 H100, by formula
    python -m bench.cost figure       results/cost.png from results/cost.json

Each part writes its own piece of results/cost.json, with its machine, date and commit. The points of a curve are
visited in turns, round after round, so that whatever else the machine does disturbs all of them alike. What theory
expects stands in THEORY below; it was written before the part was run. One thread a core, fp32, characters at random.
"""

import ctypes
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from bench.common import (
    CARDS,
    GPT2,
    NETWORK_PORT,
    Card,
    all_reduce_seconds,
    floors,
    judge,
    markdown,
    reach,
    spread,
    value,
)
from data.files import write_atomic
from gpt2.errors import TrainError
from gpt2.machine import cores, cpu_name
from gpt2.plan import count_params, flops_per_token, memory_plan
from gpt2.settings import OneSentence, TrainConfig
from lab.machine import write_result
from lab.project import ROOT, read_json
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import make_optimizers, optimizer_step

RESULT, PICTURE = ROOT / "results" / "cost.json", ROOT / "results" / "cost.png"
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
TOLERANCE = {"time": 0.15, "memory": 0.10, "sampling": 0.15, "processes": 0.20, "whole": 0.30}
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
    "processes": "Two processes do half of the batch each, then exchange all gradients (4 bytes a parameter): step = "
                 "half a batch, the other process beside it, + all-reduce alone. One process with two threads pays "
                 "neither, but its threads wait for each other at the end of every operation. So two processes lose at "
                 "small batches and may win at large ones.",
    "whole": "A step of GPT-2 124M takes (operations / matmul rate + bytes / copy rate) / reach, with the reach of the "
             "widest point of the width curve, both rates and the reach from the same run.",
}


# ---- What is measured


def config_at(axis=None, x=None, base=BASE):
    """(GPTConfig, sequences) of the base shape with one thing changed."""
    s = {**base, **({axis: x} if axis else {})}
    return GPTConfig(s["context"], 65, s["layers"], max(1, s["width"] // 32), s["width"]), s["sequences"]


class Step:
    """A model, its AdamW and one batch of random ids: calling it does one optimizer step."""

    def __init__(self, g, sequences, wrap=lambda model: model):
        torch.manual_seed(0)
        raw = GPT(g)
        self.model, self.tokens = wrap(raw), sequences * g.block_size
        self.optimizers = make_optimizers(raw, TrainConfig(optimizer="adamw", lr=1e-4), torch.float32)
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        ids = torch.randint(g.n_tokens or g.vocab_size, (2, sequences, g.block_size))
        self.batches = [(ids[0], ids[1])]

    def __call__(self):
        optimizer_step(self.model, self.optimizers, self.scaler, self.batches)

    def seconds(self):
        start = time.perf_counter()
        self()
        return time.perf_counter() - start


def in_turns(measures, rounds):
    """{name: function that returns seconds} -> {name: [seconds of each round]}, all names once a round."""
    samples = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            samples[name].append(measure())
    return samples


def second_of_two(step):
    """Seconds of a step right after another one of the same model: its weights are as near as in a real run."""
    step()
    return step.seconds()


class Rates:
    """The machine's own two rates, asked again and again: the best of an fp32 matmul and of a large copy."""

    def __init__(self, size=1024):
        self.a, self.b = torch.randn(2, size, size)
        self.big = torch.randn(size // 16, 1 << 20)
        self.other = torch.empty_like(self.big)
        self.flops = self.copy = 0.0

    def __call__(self):
        """One more try of each; returns its seconds. Reads and writes of the copy both count."""
        start = time.perf_counter()
        self.a @ self.b
        middle = time.perf_counter()
        self.other.copy_(self.big)
        end = time.perf_counter()
        self.flops = max(self.flops, 2 * self.a.size(0) ** 3 / (middle - start))
        self.copy = max(self.copy, 2 * 4 * self.big.numel() / (end - middle))
        return end - start

    def card(self):
        return Card(cpu_name(), self.flops, self.copy, source="measured in this run")


def measure_time(axes, rounds):
    """Curves of a training step, the machine's own rates, and the share of them that each held-out step reaches."""
    steps = {(axis, x): Step(*config_at(axis, x)) for axis, (xs, held, _) in axes.items() for x in [*xs, held]}
    rates = Rates()
    turns = {f"rates {i}": rates for i in range(4)}  # between the steps, so that a quiet moment is met by both
    turns |= {key: lambda step=step: second_of_two(step) for key, step in steps.items()}
    points = {key: spread(times) for key, times in in_turns(turns, rounds).items() if key in steps}
    here, got = rates.card(), {}
    for axis, (_, held, _) in axes.items():
        g, sequences = config_at(axis, held)
        got[axis] = round(reach(g, here, sequences, sequences, points[axis, held]["median"], torch.float32), 3)
    found = curves(axes, points, THEORY["time"], TOLERANCE["time"])
    if "context" in axes:
        xs, held, _ = axes["context"]
        found["attention_ns_a_pair"] = attention_alone([*xs, held], rounds)
    return {"matmul_flops": here.peak, "copy_bytes": here.memory, "reach": got, **found}


def attention_alone(lengths, rounds):
    """{T: nanoseconds a pair of positions} of attention's kernel, forward and backward, in the base shape.

    If this is not one number, c of the context's law is not one either.
    """
    g, sequences = config_at()
    heads = sequences * g.n_head

    def seconds(q, k, v):
        start = time.perf_counter()
        F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
        return time.perf_counter() - start

    qkv = {T: [torch.randn(sequences, g.n_head, T, g.n_embd // g.n_head, requires_grad=True) for _ in range(3)]
           for T in lengths}
    samples = in_turns({T: lambda T=T: (seconds(*qkv[T]), seconds(*qkv[T]))[1] for T in lengths}, rounds)
    return {str(T): round(1e9 * statistics.median(times) / (heads * T * T), 3) for T, times in samples.items()}


def curves(axes, points, theory, tolerance):
    """{(axis, x): {"median": ...}} -> {"curves": {axis: points, law, theory}}."""
    found = {}
    for axis, (xs, held, powers) in axes.items():
        medians = {x: points[axis, x]["median"] for x in xs}
        found[axis] = {"theory": theory[axis], "points": [{"x": x, **points[axis, x]} for x in [*xs, held]],
                       **judge(medians, (held, points[axis, held]["median"]), powers, tolerance)}
    return {"curves": found}


# ---- Memory: each point in a process of its own, forked before any work is done


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
    """Curves of the memory of a step, each point beside what gpt2.plan.memory_plan foretells, and once with malloc
    as it comes."""
    torch.set_num_threads(1)  # a fork that inherits a pool of threads would hang
    points = {}
    for axis, (xs, held, _) in axes.items():
        for x in [*xs, held]:
            g, sequences = config_at(axis, x, MEMORY_BASE)
            measured = spread([in_fork(lambda g=g, s=sequences: peak_of(g, s)) for _ in range(rounds)])
            plan = sum(memory_plan(g, sequences).values())
            points[axis, x] = {**measured, "plan": plan, "plan_error": round(plan / measured["median"] - 1, 4)}
    g, sequences = config_at(base=MEMORY_BASE)
    kept = in_fork(lambda: peak_of(g, sequences, give_back=False))
    return {"base": MEMORY_BASE, "base_bytes": in_fork(lambda: peak_of(g, sequences)), "base_bytes_malloc_keeps": kept,
            "largest_plan_error": max((p["plan_error"] for p in points.values()), key=abs),
            **curves(axes, points, THEORY["memory"], TOLERANCE["memory"])}


MEMORY_BASE = {"layers": 4, "sequences": 16, "context": 256, "width": 256}  # large beside what Python and torch take


# ---- Sampling


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
            **curves(axes, points, THEORY["sampling"], TOLERANCE["sampling"])}


# ---- Two processes


def worker(out, batches, steps):
    """What torchrun starts: seconds of a step for each global batch, alone and exchanging, and of the exchange."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    torch.set_num_threads(max(1, cores() // world))
    if world > 1:
        dist.init_process_group("gloo")
    g, found = PROCESS_SHAPE, {}
    gradients = torch.zeros(count_params(g)[0])
    for batch in batches:
        kinds = {"alone": Step(g, batch // world)}
        if world > 1:
            kinds["exchanging"] = Step(g, batch // world, DistributedDataParallel)
        for name, step in kinds.items():
            step()
            found[f"{name} {batch}"] = [timed_together(step, world) for _ in range(steps)]
    if world > 1:
        found["all_reduce"] = [timed_together(lambda: dist.all_reduce(gradients), world) for _ in range(2 * steps)]
        dist.destroy_process_group()
    if int(os.environ.get("RANK", 0)) == 0:
        Path(out).write_text(json.dumps(found))


def timed_together(work, world):
    if world > 1:
        dist.barrier()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def launch(processes, batches, steps):
    """Run `worker` under torchrun and return what process 0 wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.json")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}",
                   __file__, "worker", "--out", out, "--batches", ",".join(map(str, batches)), "--rounds", str(steps)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores() // processes))}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        if not os.path.exists(out):
            raise TrainError(f"torchrun with {processes} processes failed: {done.stderr.strip().splitlines()[-1:]}.")
        return json.loads(Path(out).read_text())


PROCESS_SHAPE = GPTConfig(128, 65, 4, 5, 160)  # the cpu preset's


def measure_processes(batches, steps, rounds):
    """One process with all threads against two with half of them each, launched in turns, the same global batch."""
    one, two = {}, {}
    for _ in range(rounds):
        for processes, into in ((1, one), (2, two)):
            for name, times in launch(processes, batches, steps).items():
                into.setdefault(name, []).extend(times)
    exchange, rows = spread(two["all_reduce"]), []
    for batch in batches:
        single, double, half = (spread(t[f"{kind} {batch}"]) for t, kind in
                                ((one, "alone"), (two, "exchanging"), (two, "alone")))
        predicted = half["median"] + exchange["median"]
        error = predicted / double["median"] - 1
        rows.append({"sequences": batch, "one_process": single, "two_processes": double, "half_batch": half,
                     "predicted": predicted, "error": round(error, 4), "tolerance": TOLERANCE["processes"],
                     "holds": abs(error) <= TOLERANCE["processes"],
                     "two_are_faster": round(single["median"] / double["median"], 3)})
    return {"theory": THEORY["processes"], "shape": "4 layers, 5 heads, 160 wide, context 128, AdamW",
            "gradient_bytes": 4 * count_params(PROCESS_SHAPE)[0], "all_reduce": exchange, "rows": rows}


# ---- GPT-2 124M itself


def measure_whole(g, wide, rounds):
    """A step of one whole sequence: foretold from the machine's rates and a smaller model's reach, then measured."""
    small, sequences, rates = Step(*wide), wide[1], Rates()
    near = in_turns({"small": lambda: second_of_two(small), "rates": rates, "again": rates}, 5)["small"]
    here = rates.card()
    share = reach(wide[0], here, sequences, sequences, spread(near)["median"], torch.float32)
    parts = floors(g, here, 1, 1, torch.float32)
    predicted = sum(parts.values()) / share
    step = Step(g, 1)
    step()
    measured = spread([step.seconds() for _ in range(rounds)])
    error = predicted / measured["median"] - 1
    tokens = g.block_size / measured["median"]
    return {"theory": THEORY["whole"], "parameters": count_params(g)[0], "context": g.block_size,
            "matmul_flops": here.peak, "copy_bytes": here.memory, "reach_of_small": round(share, 3), "floors": parts,
            "measured": measured, "predicted": predicted, "error": round(error, 4), "tolerance": TOLERANCE["whole"],
            "holds": abs(error) <= TOLERANCE["whole"], "tok_s": round(tokens, 1),
            "flops_used": round(tokens * flops_per_token(g) / here.peak, 3),
            "years_for_10b": round(10e9 / tokens / 3600 / 24 / 365, 2)}


# ---- What it would take on cards that we do not have: arithmetic only, nothing here is measured by us

TOKENS, STEP_TOKENS = 10e9, 524_288  # 512 sequences of 1,024 a step, as GPT-2's own size of step
# what others measured, from which the reach of a card is taken
SEEN = {
    "T4": {"tok_s": 18_100, "sequences": 512, "micro": 8, "source": "124M in fp16 on one T4, measured by others; the "
           "size of its step is not known, so ours is assumed"},
    "A100": {"tok_s": 182_000, "sequences": 16, "micro": 16, "source": "build-nanogpt, one A100, 16 x 1,024 tokens in "
             "90 ms, bf16, compiled"},
}
SETUPS = [  # name, card, cards, sequences at once, bytes a second through the narrowest link, what others measured
    {"name": "1 T4", "card": "T4", "cards": 1, "micro": 8, "reach_of": "T4", "link": 0, "others": None},
    {"name": "8 A100", "card": "A100", "cards": 8, "micro": 16, "reach_of": "A100", "link": CARDS["A100"].link,
     "others": {"hours": 1.5, "source": "llm.c, discussion 481 (C and CUDA, not PyTorch): about 90 minutes"}},
    {"name": "8 H100", "card": "H100", "cards": 8, "micro": 16, "reach_of": "A100", "link": CARDS["H100"].link,
     "others": {"hours": 0.75, "source": "modded-nanogpt's README, of llm.c: 45 minutes"}},
    {"name": "64 H100, 8 ports of 400 Gb/s a machine", "card": "H100", "cards": 64, "micro": 8, "reach_of": "A100",
     "link": 8 * NETWORK_PORT, "others": None},
    {"name": "64 H100, 1 port a machine", "card": "H100", "cards": 64, "micro": 8, "reach_of": "A100",
     "link": NETWORK_PORT, "others": None},
]
BOUNDS = {"arithmetic": "arithmetic", "memory": "memory traffic", "all_reduce": "all-reduce"}


def seen_reach(name, g=GPT2):
    """The share of its two floors' sum that a card has reached in the hands of others, 124M in half precision."""
    seen = SEEN[name]
    seconds = seen["sequences"] * g.block_size / seen["tok_s"]
    return reach(g, CARDS[name], seen["sequences"], seen["micro"], seconds)


def project(setup, g=GPT2, tokens=TOKENS, step_tokens=STEP_TOKENS):
    """One row of the table of predictions: seconds of a step by part, tokens a second, hours, what bounds it."""
    card, n = CARDS[setup["card"]], setup["cards"]
    sequences = step_tokens / g.block_size / n
    share = seen_reach(setup["reach_of"], g)
    parts = {name: s / share for name, s in floors(g, card, sequences, setup["micro"]).items()}
    parts["all_reduce"] = all_reduce_seconds(4 * count_params(g)[0], n, setup["link"])
    alone = parts["arithmetic"] + parts["memory"]
    step = alone + parts["all_reduce"]  # not hidden behind the backward pass; hidden whole, it would be `best`
    hours, best = (tokens / step_tokens * s / 3600 for s in (step, max(alone, parts["all_reduce"])))
    row = {"name": setup["name"], "projection": True, "tok_s": round(step_tokens / step), "hours": round(hours, 3),
           "hours_if_hidden": round(best, 3), "mfu": round(step_tokens * flops_per_token(g) / step / n / card.peak, 3),
           "bound": BOUNDS[max(parts, key=parts.get)], "step_seconds": {k: round(v, 6) for k, v in parts.items()},
           "inputs": {"peak_flops": card.peak, "memory_bytes_s": card.memory, "link_bytes_s": setup["link"],
                      "rates": card.source, "sequences_at_once": setup["micro"], "reach": round(share, 3),
                      "reach_from": f"{setup['reach_of']}: {SEEN[setup['reach_of']]['source']}"}}
    if setup["others"]:
        row["others"] = {**setup["others"], "ratio": round(hours / setup["others"]["hours"], 2)}
    return row


def predictions():
    """The table of predictions, with the formulas' inputs that all rows share."""
    return {"what": "projections by formula for GPT-2 124M, context 1,024, 10 B tokens; none of it measured by us",
            "tokens": TOKENS, "step_tokens": STEP_TOKENS, "parameters": count_params(GPT2)[0],
            "flops_per_token": flops_per_token(GPT2), "gradient_bytes": 4 * count_params(GPT2)[0],
            "all_reduce": "ring, 2 (N-1)/N of the gradient bytes, not hidden behind the backward pass",
            "rows": [project(setup) for setup in SETUPS]}


# ---- Tables and the picture


def count(x):
    return f"{x / 1e6:.2f} M" if x >= 1e6 else f"{x / 1e3:.1f} k" if x >= 1e4 else f"{x:,.0f}"


def hours(h):
    return f"{h / 24:.1f} days" if h >= 48 else f"{h:.1f} h" if h >= 2 else f"{60 * h:.0f} min"


def predictions_markdown(result=None):
    """README table: 10 B tokens on cards we do not have."""
    found = (result or read_json(RESULT)).get("predictions")
    if not found:
        return "Not yet computed."
    rows = [[r["name"], count(r["tok_s"]), hours(r["hours"]), f"{r['mfu']:.0%}", r["bound"],
             hours(r["others"]["hours"]) if "others" in r else ""] for r in found["rows"]]
    return markdown(["cards", "tokens/s (projection)", "10 B tokens (projection)", "MFU", "bound by",
                     "others measured"], rows)


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


def draw_curve(ax, curve, unit, color, title, xlabel):
    """Points, their law, and the held-out point as a ring."""
    import numpy as np
    *seen, last = curve["points"]
    grid = np.linspace(seen[0]["x"], last["x"], 60)
    ax.plot(grid, value(curve["coefficients"], curve["powers"], grid) * unit, color=color, linewidth=1.5)
    ax.plot([p["x"] for p in seen], [p["median"] * unit for p in seen], "o", color=color, markersize=5)
    ax.plot(last["x"], last["median"] * unit, "o", markerfacecolor="white", markeredgecolor=color, markersize=8)
    ax.set(title=title, xlabel=xlabel, ylim=(0, None), xlim=(0, None))
    held = curve["held_out"]
    ax.text(0.97, 0.04, f"held out: {signed(held['error'])}", transform=ax.transAxes, ha="right", fontsize=11)


def draw(result):
    """The picture of results/cost.json: a figure with its alt text as fig.alt."""
    from lab.plots import ACCENT, GREY, INK, figure
    parts = result["parts"]
    fig, axes = figure(14, 10.5, rows=3, columns=4)
    names = {"layers": "layers", "sequences": "sequences a step", "context": "context", "width": "width"}
    for part, row, unit, color in (("time", 0, 1e3, ACCENT), ("memory", 1, 1e-6, INK)):
        for ax, (axis, name) in zip(axes[row], names.items(), strict=True):
            draw_curve(ax, parts[part]["curves"][axis], unit, color, "", name)
        axes[row][0].set_ylabel("ms a step" if part == "time" else "MB")
        axes[row][0].set_title("Time of a training step" if part == "time" else "Memory of a training step")
    for ax, axis in zip(axes[1], names, strict=True):
        points = parts["memory"]["curves"][axis]["points"]
        ax.plot([p["x"] for p in points], [p["plan"] / 1e6 for p in points], "x", color=GREY, label="memory_plan")
    axes[1][0].legend(loc="upper left", frameon=False)
    for ax, way in zip(axes[2], ("uncached", "cached"), strict=False):
        draw_curve(ax, parts["sampling"]["curves"][way], 1e3, ACCENT, "", "letters so far")
        ax.set(title="A letter without a cache" if way == "uncached" else "… with a cache", ylabel="ms a letter")
    draw_processes(axes[2][2], parts["processes"]["rows"])
    draw_predictions(axes[2][3], result["predictions"]["rows"])
    fig.alt = alt_text(result)
    return fig


def draw_processes(ax, rows):
    from lab.plots import ACCENT, GREY
    at = range(len(rows))
    for shift, key, color, label in ((-0.2, "one_process", GREY, "one, 2 threads"),
                                     (0.2, "two_processes", ACCENT, "two, 1 thread")):
        heights = [r[key]["median"] / r["one_process"]["median"] for r in rows]
        ax.bar([i + shift for i in at], heights, 0.38, color=color, label=label)
    ax.set_xticks(list(at), [str(r["sequences"]) for r in rows])
    ax.set(title="Processes", xlabel="sequences a step", ylabel="time, one process = 1", ylim=(0, None))
    ax.legend(loc="lower center", frameon=True)


def draw_predictions(ax, rows):
    from lab.plots import GREY
    short = [r["name"].replace(" 400 Gb/s", "").replace(" a machine", "").replace(", ", "\n").replace("8 ports of",
             "8 ports") for r in rows]
    ax.barh(range(len(rows)), [r["hours"] for r in rows], color=GREY, hatch="//", edgecolor="white")
    for i, r in enumerate(rows):
        ax.text(r["hours"] * 1.15, i, hours(r["hours"]), va="center", fontsize=11)
    ax.set_yticks(range(len(rows)), short)
    ax.invert_yaxis()
    ax.set(xscale="log", xlabel="hours", title="10 B tokens (projection)", xlim=(0.03, 5000))


def alt_text(result):
    parts, rows = result["parts"], result["predictions"]["rows"]
    said = [f"{axis} {signed(c['held_out']['error'])}" for part in ("time", "memory") for axis, c in
            ((f"{part} against {a}", c) for a, c in parts[part]["curves"].items())]
    faster = parts["sampling"]["cache_is_faster"]
    n = max(faster, key=int)
    return ("Twelve small graphs of cost. Training step time and memory, each against layers, sequences, context and "
            "width: points, fitted laws, and a held-out point with the law's error (" + ", ".join(said) + "). A letter "
            f"behind {n} letters costs {faster[n]:.0f} times as much without a cache. Two processes against one: "
            + ", ".join(f"{r['two_are_faster']:.2f} times as fast at {r['sequences']} sequences"
                        for r in parts["processes"]["rows"])
            + ". Projected time for 10 billion tokens: "
            + ", ".join(f"{r['name']} {hours(r['hours'])}" for r in rows) + ".")


# ---- The command

WIDE = config_at("width", 512)
MEASURES = {
    "time": lambda quick: measure_time({"layers": ([1, 2], 3, (0, 1))} if quick else TIME_AXES, 1 if quick else 9),
    "memory": lambda quick: measure_memory({"layers": ([1, 2], 3, (0, 1))} if quick else MEMORY_AXES, 1),
    "sampling": lambda quick: measure_sampling([8, 16, 32], 48, 1, GPTConfig(64, 65, 1, 1, 16)) if quick else
    measure_sampling([16, 128, 256, 384, 512, 768], 1000, 15, GPTConfig(1024, 65, 6, 6, 384)),
    "processes": lambda quick: measure_processes([2], 1, 1) if quick else measure_processes([4, 16, 64], 6, 3),
    "whole": lambda quick: measure_whole(replace(GPT2, n_layer=1, block_size=32, vocab_size=64, n_tokens=64),
                                         config_at(), 1) if quick else measure_whole(GPT2, WIDE, 5),
}


def run_part(part, out, quick):
    """Measure one part and put it into the result file beside the others."""
    torch.set_num_threads(cores())
    start = time.perf_counter()
    found = MEASURES[part](quick)
    with tempfile.TemporaryDirectory() as folder:
        config = {"threads": torch.get_num_threads(), "precision": "fp32", "base": BASE, "optimizer": "adamw"}
        found = write_result(Path(folder) / "part.json", config, seconds=round(time.perf_counter() - start, 1), **found)
    parts = read_json(out).get("parts", {})
    if "curves" in found:
        found["earlier_runs"] = earlier_runs(parts.get(part, {}))
    merge(out, parts={**parts, part: found})


def earlier_runs(old):
    """What runs before this one said of their held-out points: a lucky last run must not be all that is left."""
    if "curves" not in old:
        return []
    errors = {axis: curve["held_out"]["error"] for axis, curve in old["curves"].items()}
    return [*old.get("earlier_runs", []), {"date": old["date"], "commit": old["commit"], "held_out_errors": errors}]


def merge(out, **changes):
    write_atomic(out, json.dumps({**read_json(out), **changes}, indent=1) + "\n")


def draw_file(out):
    result = read_json(out)
    missing = [part for part in MEASURES if part not in result.get("parts", {})]
    if missing or "predictions" not in result:
        raise TrainError(f"{out} has no {', '.join(missing) or 'predictions'} yet: run those parts first.")
    fig = draw(result)
    picture = Path(out).with_suffix(".png")
    fig.savefig(picture, dpi=100)
    merge(out, picture={"file": picture.name, "alt": fig.alt})


def main(argv=None):
    parser = OneSentence(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*MEASURES, "predict", "figure", "worker"])
    parser.add_argument("--out", default=str(RESULT), help="the JSON file to add to")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, for tests")
    parser.add_argument("--batches", default="4", help="for worker")
    parser.add_argument("--rounds", type=int, default=1, help="for worker")
    try:
        args = parser.parse_args(argv)
        if args.part == "worker":
            worker(args.out, [int(b) for b in args.batches.split(",")], args.rounds)
        elif args.part == "predict":
            merge(args.out, predictions=predictions())
            print(predictions_markdown(read_json(args.out)))
        elif args.part == "figure":
            draw_file(args.out)
        else:
            run_part(args.part, args.out, args.quick)
            print(table_markdown(read_json(args.out)))
        return 0
    except TrainError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
