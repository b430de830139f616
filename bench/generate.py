"""How fast does GPT-2 write on this CPU, beside transformers and the memory's own limit? What does int8 cost in loss?

    python -m bench.generate [--only speed|length|loss] [--repeats 3] [--quick]

writes results/generate.json        speed, first token and memory of each variant: 16 characters in, 500 out
       results/generate_length.json ms a token against the length of the text, up to the context and past it
       results/generate_loss.json   exact validation loss of bf16 and int8, read as text is written: one id at a time

Speed: 85.9 M parameters with random weights (speed does not depend on what they are). Each variant lives in a process
of its own; they take turns, `--repeats` times, and every figure is a median with its range. "No cache" would take
minutes: 10 of its 500 steps, evenly spaced, are timed instead. The limit is measured after each text, in the same
process, in two ways: "sweep" multiplies one vector by each weight matrix in turn, with the model's own kernel and
nothing between; "read" is stricter and only reads as many bytes, in pieces of the same sizes. Neither counts the cache.
Loss: the model in space/model on the whole validation split.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from bench.common import seconds, spread
from data.shakespeare import DataError, eval_windows, load_corpus
from gpt2.fast_cpu import FastLinear
from gpt2.sampling import KVCache
from lab.machine import write_result
from lab.project import ROOT
from model_gpt2 import GPT, GPTConfig

# name -> (bytes a weight, how it is made)
VARIANTS = {"int8": 1, "bf16": 2, "fp32": 4, "no cache, fp32": 4, "transformers, fp32": 4, "transformers, bf16": 2}
TARGETS = "int8", "bf16"
PROMPT, FIRST_PROMPT = 16, 200  # characters
FULL = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "vocab_size": 65}
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 256, "vocab_size": 65}
SAMPLING = {"temperature": 0.8, "top_k": 50}
NO_CACHE_STEPS = 10


# ---- one variant, in a process of its own


class Ours:
    """GPT-2 of model_gpt2.py; `times` gives the seconds of each token after a prompt of a given length."""

    def __init__(self, variant, shape):
        self.cache = not variant.startswith("no cache")
        self.model = GPT(GPTConfig(**shape)).eval()
        if variant in TARGETS:
            self.model = self.model.for_inference(variant)  # the fp32 model is dropped here
        self.linears = [m for m in self.model.modules() if isinstance(m, (torch.nn.Linear, FastLinear))]

    def times(self, prompt, n):
        ids, stamps = prompt_ids(prompt), [time.perf_counter()]
        for _ in self.model.stream(ids, n, **SAMPLING, seed=0, use_cache=self.cache):
            stamps.append(time.perf_counter())
        return differences(stamps)


class Theirs:
    """GPT-2 of transformers, with its cache, as its own `generate` runs it."""

    def __init__(self, variant, shape):
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(vocab_size=shape["vocab_size"], n_positions=shape["block_size"], n_embd=shape["n_embd"],
                            n_layer=shape["n_layer"], n_head=shape["n_head"], bos_token_id=None, eos_token_id=None)
        dtype = torch.bfloat16 if variant.endswith("bf16") else torch.float32
        self.model, self.linears = GPT2LMHeadModel(config).eval().to(dtype), []

    def times(self, prompt, n):
        ids, stamps = prompt_ids(prompt), [time.perf_counter()]
        self.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, **SAMPLING, max_new_tokens=n,
                            min_new_tokens=n, use_cache=True, pad_token_id=0, streamer=Stamps(stamps))
        return differences(stamps)


class Stamps:
    """What transformers calls a streamer: told of the prompt first, then of each token."""

    def __init__(self, stamps):
        self.stamps, self.prompt_seen = stamps, False

    def put(self, value):
        if self.prompt_seen:
            self.stamps.append(time.perf_counter())
        self.prompt_seen = True

    def end(self):
        pass


def prompt_ids(length):
    return torch.randint(0, 65, (1, length), generator=torch.Generator().manual_seed(length))


def differences(stamps):
    return [b - a for a, b in zip(stamps, stamps[1:], strict=False)]


def tokens_a_second(subject, n):
    """Of n tokens after the prompt; without a cache, from a few of the n steps, evenly spaced."""
    if not getattr(subject, "cache", True):
        lengths = [PROMPT + int((i + 0.5) * n / NO_CACHE_STEPS) for i in range(NO_CACHE_STEPS)]
        return 1 / statistics.mean(sum(subject.times(length, 1)) for length in lengths)
    return n / sum(subject.times(PROMPT, n))


@torch.no_grad()
def limits(subject, bytes_each):
    """Milliseconds to multiply by every weight matrix, and only to read as many bytes: medians of nine."""
    if not subject.linears:
        return None, None
    dtype = torch.float32 if bytes_each == 4 else torch.bfloat16
    shapes = [matrix_shape(m) for m in subject.linears]
    vectors = [torch.randn(1, 1, columns).to(dtype) for _, columns in shapes]
    memory = [torch.ones(rows * columns * bytes_each // 4, dtype=torch.int32) for rows, columns in shapes]
    sweep = [seconds(lambda: [m(x) for m, x in zip(subject.linears, vectors, strict=True)]) for _ in range(11)]
    read = [seconds(lambda: [piece.amax() for piece in memory]) for _ in range(11)]
    return 1000 * statistics.median(sweep[2:]), 1000 * statistics.median(read[2:])


def matrix_shape(linear):
    return (linear.out_features, linear.in_features) if hasattr(linear, "in_features") else tuple(linear.weight.shape)


def memory_mb(field):
    """VmRSS or VmHWM (its peak) of this process in MB; None where there is no /proc."""
    status = Path("/proc/self/status")
    return int(re.search(rf"{field}:\s+(\d+)", status.read_text())[1]) / 1000 if status.exists() else None


def forget_peak():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def turn(subject, variant, n):
    """One turn: a text, then the limit, then three first tokens."""
    tok_s = tokens_a_second(subject, n)
    peak = memory_mb("VmHWM")  # before the limit's own buffers
    sweep, read = limits(subject, VARIANTS[variant])
    firsts = [1000 * sum(subject.times(FIRST_PROMPT, 1)) for _ in range(3)]
    return {"tok_s": tok_s, "sweep_ms": sweep, "read_ms": read, "first_ms": statistics.median(firsts), "peak": peak}


def serve(variant, shape, n):
    """The worker: make the variant, then answer each line on stdin by one line of JSON."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    kind = Theirs if variant.startswith("transformers") else Ours
    if kind is Theirs:
        importlib.import_module("transformers")  # counted as a library, not as the model
    before = memory_mb("VmRSS")
    torch.manual_seed(0)
    subject = kind(variant, shape)
    making = memory_mb("VmHWM")
    subject.times(PROMPT, 8 if getattr(subject, "cache", True) else 1)
    forget_peak()
    print(json.dumps({"libraries_mb": before, "making_mb": making}), file=channel, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = subject.times(PROMPT, asked["length"]) if "length" in asked else turn(subject, variant, n)
        print(json.dumps(answer), file=channel, flush=True)


class Worker:
    """The other end: starts the process, asks, and says in one sentence if it died."""

    def __init__(self, variant, quick):
        self.variant, self.errors = variant, tempfile.TemporaryFile("w+")
        command = [sys.executable, "-m", "bench.generate", "--worker", variant, *(["--quick"] if quick else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
                                        text=True)

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            last = (self.errors.read().strip().splitlines() or ["no message"])[-1]
            raise SystemExit(f"The process of {self.variant} ended early: {last}")
        return json.loads(line)

    def ask(self, **what):
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.read()


@contextlib.contextmanager
def workers(variants, quick):
    """{variant: (Worker, what it said when it was ready)}, all closed at the end."""
    started = {v: Worker(v, quick) for v in variants}
    try:
        yield {v: (w, w.read()) for v, w in started.items()}
    finally:
        for worker in started.values():
            worker.process.kill()
            worker.process.communicate()
            worker.errors.close()


# ---- the three parts


def speed(folder, quick, repeats):
    """All variants in turns; results/generate.json."""
    began = time.perf_counter()
    variants = [v for v in VARIANTS if not v.startswith("transformers") or importlib.util.find_spec("transformers")]
    if len(variants) < len(VARIANTS):
        print("transformers is not installed: its rows are left out.")
    turns = {v: [] for v in variants}
    with workers(variants, quick) as ready:
        for _ in range(repeats):
            for v in variants:
                turns[v].append(ready[v][0].ask())
        rows = [row(v, ready[v][1], turns[v]) for v in variants]
    compare(rows, turns)
    print(table(rows))
    save(folder, "generate.json", quick, began, repeats=repeats, rows=rows, turns=turns)


def row(variant, ready, turns):
    """Medians and ranges of one variant's turns."""
    found = {"variant": variant, "tok_s": spread([t["tok_s"] for t in turns]),
             "first_ms": spread([t["first_ms"] for t in turns])}
    if turns[0]["sweep_ms"]:
        for kind in ("sweep", "read"):
            found[f"{kind}_tok_s"] = spread([1000 / t[f"{kind}_ms"] for t in turns])
            found[f"share_of_{kind}"] = spread([t["tok_s"] * t[f"{kind}_ms"] / 1000 for t in turns])
    libraries = ready["libraries_mb"]
    if libraries:
        found["memory_mb"] = {"libraries": round(libraries), "peak_making": round(ready["making_mb"]),
                              "peak_writing": round(turns[0]["peak"])}  # of the whole process; first turn
    return found


def compare(rows, turns):
    """Add each variant's ratio to the better transformers row and to no cache, turn by turn."""
    theirs = [turns[v] for v in turns if v.startswith("transformers")]
    for found in rows:
        mine = turns[found["variant"]]
        if theirs:
            best = [max(t["tok_s"] for t in same_turn) for same_turn in zip(*theirs, strict=True)]
            found["times_transformers"] = spread([m["tok_s"] / b for m, b in zip(mine, best, strict=True)])
        plain = [t["tok_s"] for t in turns["no cache, fp32"]]
        found["times_no_cache"] = spread([m["tok_s"] / p for m, p in zip(mine, plain, strict=True)])


def table(rows):
    """The paired table, as text."""
    lines = [f"{'':20}{'tok/s':>8}{'(range)':>15}{'x transf.':>10}{'x no cache':>11}{'of sweep':>10}{'of read':>9}"
             f"{'first, ms':>11}{'MB writing':>12}"]
    for r in rows:
        tok_s, memory = r["tok_s"], r.get("memory_mb", {}).get("peak_writing", "-")
        lines.append(
            f"{r['variant']:20}{tok_s['median']:8.1f}{tok_s['low']:8.1f}-{tok_s['high']:<6.1f}"
            f"{middle(r, 'times_transformers', '.2f'):>10}{middle(r, 'times_no_cache', '.1f'):>11}"
            f"{middle(r, 'share_of_sweep', '.0%'):>10}{middle(r, 'share_of_read', '.0%'):>9}"
            f"{middle(r, 'first_ms', '.0f'):>11}{memory:>12}")
    return "\n".join(lines)


def table_markdown(folder=ROOT / "results"):
    """The paired table, the lengths and the loss for the README, from the three files."""
    files = [folder / f"generate{part}.json" for part in ("", "_length", "_loss")]
    if not all(path.exists() for path in files):
        return "Not yet measured."
    speed, lengths, loss = (json.loads(path.read_text()) for path in files)
    costs = {r["variant"]: f"{r['cost']:+.5f}" for r in loss["rows"]}
    lines = ["| way | tok/s (range) | x `transformers` | x no cache | of the bandwidth | first, ms | peak MB | loss |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for r in speed["rows"]:
        t, cost = r["tok_s"], "" if "no cache" in r["variant"] else costs.get(r["variant"], "")
        cells = [r["variant"], f"{t['median']:.1f} ({t['low']:.1f} to {t['high']:.1f})",
                 middle(r, "times_transformers", ".1f"), middle(r, "times_no_cache", ".0f"),
                 middle(r, "share_of_sweep", ".0%"), middle(r, "first_ms", ".0f"),
                 f"{r['memory_mb']['peak_writing']}", cost]
        lines.append("| " + " | ".join(cells) + " |")
    ways = [f"{r['variant']} {r['bins'][0]['mean_ms']['median']:.1f} ms a token at the start, "
            f"{r['past_context_ms']['median']:.1f} past the context" for r in lengths["rows"]]
    return "\n".join(lines) + f"\n\nAgainst length, moves of the window included: {'; '.join(ways)}."


def middle(found, name, form):
    return format(found[name]["median"], form) if name in found else "-"


def length(folder, quick, repeats):
    """ms a token by position, int8 and bf16 in turns; results/generate_length.json."""
    began, shape = time.perf_counter(), TINY if quick else FULL
    context = shape["block_size"]
    step, n = context // 8, context * 3 // 2
    runs = {v: [] for v in TARGETS}
    with workers(TARGETS, quick) as ready:
        for _ in range(repeats):
            for v in TARGETS:
                runs[v].append([1000 * t for t in ready[v][0].ask(length=n - PROMPT)])
    rows = [{"variant": v, "bins": bins(runs[v], step), **flatness(runs[v], context)} for v in TARGETS]
    for r in rows:
        print(f"{r['variant']:6}" + "  ".join(f"{b['to']}: {b['mean_ms']['median']:.1f}" for b in r["bins"]) +
              f" ms a token, up to that length; from the context on, moves of the window included: "
              f"{r['past_context_ms']['median']:.1f}")
    save(folder, "generate_length.json", quick, began, repeats=repeats, context=context, rows=rows)


def bins(runs, step):
    """Mean ms a token for lengths in (from, to], what the window's move costs included; median and range over runs."""
    last = PROMPT + len(runs[0])
    edges = [*range(0, last, step), last]
    pairs = zip(edges, edges[1:], strict=False)
    cut = [(a, b, [run[max(0, a - PROMPT):b - PROMPT] for run in runs]) for a, b in pairs]
    return [{"from": a, "to": b, "mean_ms": spread([statistics.mean(piece) for piece in run])} for a, b, run in cut]


def flatness(runs, context):
    """The whole way up to the context, one whole cycle of the window past it, and the step in which it moves."""
    move = context + 1 - PROMPT  # the window is too long for the first time
    cycle = context // 2
    return {"up_to_context_ms": spread([statistics.mean(run[1:move]) for run in runs]),
            "past_context_ms": spread([statistics.mean(run[move:move + cycle]) for run in runs]),
            "move_ms": spread([max(run[move - 1:move + 2]) for run in runs])}


def loss(folder, quick, repeats):
    """Exact validation loss in fp32, bf16 and int8; results/generate_loss.json."""
    began = time.perf_counter()
    try:
        model, corpus = GPT.from_pretrained(ROOT / "space" / "model"), load_corpus(quiet=True)
    except (ValueError, DataError) as error:
        raise SystemExit(str(error)) from None
    ids = corpus.val[:1000] if quick else corpus.val
    rows = []
    for name in ("fp32", "bf16", "int8"):
        copy = model if name == "fp32" else model.for_inference(name)
        rows.append({"variant": name, "loss": loss_as_written(copy, ids), "loss_as_read": loss_as_read(copy, ids)})
        rows[-1]["cost"] = rows[-1]["loss"] - rows[0]["loss"]
        print(f"{name}: {rows[-1]['loss']:.5f} nats/char, {rows[-1]['cost']:+.5f} against fp32 "
              f"(whole windows at once: {rows[-1]['loss_as_read']:.5f})")
    note = "the 1.27 M model of space/model; no trained model of 85.9 M parameters exists on this machine"
    save(folder, "generate_loss.json", quick, began, corpus, model=note, targets=len(ids) - 1, rows=rows)


@torch.no_grad()
def loss_as_written(model, ids, batch=16):
    """Nats a target, the exact loss's windows, one position at a time through the cache: sampling's own kernels."""
    total = 0.0
    for x, y in eval_windows(ids, model.config.block_size, batch):
        cache = KVCache(model.config, x.size(0), model.transformer.wte.weight)
        for t in range(x.size(1)):
            logits = model(x[:, t:t + 1], cache=cache)[0][:, 0].float()
            total += F.cross_entropy(logits, y[:, t], reduction="sum").item()
    return total / (len(ids) - 1)


@torch.no_grad()
def loss_as_read(model, ids, batch=64):
    """The same targets, whole windows at once: a prompt's kernels."""
    total = 0.0
    for x, y in eval_windows(ids, model.config.block_size, batch):
        total += F.cross_entropy(model(x)[0].float().flatten(0, 1), y.flatten(), reduction="sum").item()
    return total / (len(ids) - 1)


def save(folder, name, quick, began, corpus=None, **measured):
    config = {"shape": TINY if quick else FULL, "prompt": PROMPT, "first_token_prompt": FIRST_PROMPT, **SAMPLING,
              "tokens": 20 if quick else 500, "batch": 1, "threads": torch.get_num_threads(), "quick": quick,
              "transformers": version("transformers")}
    if name == "generate_loss.json":
        config = {"batch": 16, "threads": torch.get_num_threads(), "quick": quick}
    write_result(Path(folder) / name, config, corpus, seconds=round(time.perf_counter() - began, 1), **measured)


def version(package):
    import importlib.metadata

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)


def main():
    parts = {"speed": speed, "length": length, "loss": loss}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=parts, help="one part instead of all three")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each variant (default 3)")
    parser.add_argument("--quick", action="store_true", help="a tiny model and short texts: to see that it runs")
    parser.add_argument("--out", help="folder of the results (default: results, or build with --quick)")
    parser.add_argument("--worker", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.repeats < 1:
        parser.error("--repeats must be at least 1")
    if args.worker:
        return serve(args.worker, TINY if args.quick else FULL, 20 if args.quick else 500)
    folder = args.out or ROOT / ("build" if args.quick else "results")
    for name in [args.only] if args.only else parts:
        parts[name](folder, args.quick, args.repeats)


if __name__ == "__main__":
    main()
