"""How fast does GPT-2 write on this CPU, beside transformers and the memory's limit? What does int8 cost?

    python -m bench.generate --part speed length loss      [--repeats 3] [--tiny]

speed   results/generate.json: speed, first token and memory of each variant, 16 characters in, 500 out.
        85.9 M parameters with random weights (speed does not depend on what they are). Each text is
        written in a process of its own; the variants take turns, --repeats times, and every figure is a
        median with its range. "No cache" would take minutes: 10 of its 500 steps, evenly spaced, are
        timed instead. The limit is measured after each text, in the same process: one vector is
        multiplied by each weight matrix in turn, with the model's own kernel and nothing between. The
        cache is not counted in it. Without the package transformers its rows are left out.
length  results/generate_length.json: ms a token against the length of the text, past the context too.
loss    results/generate_loss.json: exact validation loss of bf16 and int8, read as text is written, one
        id at a time: the model in space/model on the whole validation split.
"""

import importlib.util
import statistics
import time

import numpy as np
import torch
import torch.nn.functional as F

from bench import common
from bench.common import RESULTS, spread
from data.batches import eval_windows
from data.files import say
from data.shakespeare import load_corpus
from gpt2.fast_cpu import FastLinear
from gpt2.machine import version_of
from gpt2.sampling import KVCache
from lab.project import ROOT, read_json
from model_gpt2 import GPT, GPTConfig

VARIANTS = ("int8", "bf16", "fp32", "no cache, fp32", "transformers, fp32", "transformers, bf16")
TARGETS = ("int8", "bf16")
PROMPT, FIRST_PROMPT, TOKENS, NO_CACHE_STEPS = 16, 200, 500, 10  # characters, but for the last
FULL = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "vocab_size": 65}
TINY = {"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 256, "vocab_size": 65}
SAMPLING = {"temperature": 0.8, "top_k": 50}
FILES = {"speed": "generate.json", "length": "generate_length.json", "loss": "generate_loss.json"}


# ---- one variant


class Ours:
    """GPT-2 of model_gpt2.py; `times` gives the seconds of each token after a prompt of a given length."""

    def __init__(self, variant, shape):
        self.cache = not variant.startswith("no cache")
        self.model = GPT(GPTConfig(**shape)).eval()
        if variant in TARGETS:
            self.model = self.model.for_inference(variant)  # the fp32 model is dropped here
        self.linears = [m for m in self.model.modules() if isinstance(m, (torch.nn.Linear, FastLinear))]

    def times(self, prompt, n):
        stamps = [time.perf_counter()]
        for _ in self.model.stream(prompt_ids(prompt), n, **SAMPLING, seed=0, use_cache=self.cache):
            stamps.append(time.perf_counter())
        return np.diff(stamps).tolist()


class Theirs:
    """GPT-2 of transformers, with its cache, as its own `generate` runs it; it takes us for its streamer."""

    cache, linears = True, []

    def __init__(self, variant, shape):
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(vocab_size=shape["vocab_size"], n_positions=shape["block_size"],
                            n_embd=shape["n_embd"], n_layer=shape["n_layer"], n_head=shape["n_head"],
                            bos_token_id=None, eos_token_id=None)
        dtype = torch.bfloat16 if variant.endswith("bf16") else torch.float32
        self.model = GPT2LMHeadModel(config).eval().to(dtype)

    def put(self, value):
        """Called with the prompt first, then with each token."""
        self.stamps.append(time.perf_counter())

    def end(self):
        """Called when the text is done."""

    def times(self, prompt, n):
        ids, self.stamps = prompt_ids(prompt), []
        self.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, **SAMPLING,
                            max_new_tokens=n, min_new_tokens=n, use_cache=True, pad_token_id=0, streamer=self)
        return np.diff(self.stamps).tolist()


def prompt_ids(length):
    return torch.randint(0, 65, (1, length), generator=torch.Generator().manual_seed(length))


def tokens_a_second(subject, n):
    """Of n tokens after the prompt; without a cache, from a few of the n steps, evenly spaced."""
    if subject.cache:
        return n / sum(subject.times(PROMPT, n))
    lengths = [PROMPT + int((i + 0.5) * n / NO_CACHE_STEPS) for i in range(NO_CACHE_STEPS)]
    return 1 / statistics.mean(sum(subject.times(length, 1)) for length in lengths)


@torch.no_grad()
def limit(subject):
    """Milliseconds to multiply a vector by every weight matrix, the median of nine; None for transformers."""
    if not subject.linears:
        return None
    dtype = torch.float32 if isinstance(subject.linears[0], torch.nn.Linear) else torch.bfloat16
    pairs = [(m, torch.randn(1, 1, matrix_shape(m)[1]).to(dtype)) for m in subject.linears]
    taken = [common.seconds(lambda: [m(x) for m, x in pairs]) for _ in range(11)]
    return 1000 * statistics.median(taken[2:])


def matrix_shape(linear):
    known = hasattr(linear, "in_features")
    return (linear.out_features, linear.in_features) if known else tuple(linear.weight.shape)


def child(part, variant, tiny):
    """In a process of its own: one text with its limit and three first tokens, or ms a token by position."""
    shape, n = (TINY, 20) if tiny else (FULL, TOKENS)
    torch.manual_seed(0)
    subject = (Theirs if variant.startswith("transformers") else Ours)(variant, shape)
    subject.times(PROMPT, 8 if subject.cache else 1)  # warm
    if part == "length":
        return [1000 * t for t in subject.times(PROMPT, shape["block_size"] * 3 // 2 - PROMPT)]
    common.forget_peak()
    tok_s, peak = tokens_a_second(subject, n), common.status_mb("VmHWM")
    firsts = [1000 * sum(subject.times(FIRST_PROMPT, 1)) for _ in range(3)]
    return {"tok_s": tok_s, "sweep_ms": limit(subject), "first_ms": statistics.median(firsts), "peak": peak}


def turns(part, variants, tiny, repeats):
    """{variant: [what its process measured, each turn]}"""
    measures = {v: lambda v=v: common.in_process("bench.generate", part, v, tiny) for v in variants}
    return common.in_turns(measures, repeats)


# ---- the three parts


def speed(tiny, repeats):
    """All variants in turns."""
    there = importlib.util.find_spec("transformers")
    found = turns("speed", [v for v in VARIANTS if there or "transformers" not in v], tiny, repeats)
    return {"rows": [row(v, found) for v in found], "turns": found}


def row(variant, found):
    """Medians and ranges of one variant's turns; its ratios are taken turn by turn."""
    mine = found[variant]
    out = {"variant": variant, **{key: spread([t[key] for t in mine]) for key in ("tok_s", "first_ms")}}
    if mine[0]["sweep_ms"]:
        out["share_of_sweep"] = spread([t["tok_s"] * t["sweep_ms"] / 1000 for t in mine])
    out["memory_mb"] = {"peak_writing": round(mine[0]["peak"])}  # of the whole process
    theirs = [found[v] for v in found if v.startswith("transformers")]
    if theirs:
        best = [max(t["tok_s"] for t in same_turn) for same_turn in zip(*theirs, strict=True)]
        out["times_transformers"] = spread([t["tok_s"] / b for t, b in zip(mine, best, strict=True)])
    plain = found["no cache, fp32"]
    out["times_no_cache"] = spread([t["tok_s"] / p["tok_s"] for t, p in zip(mine, plain, strict=True)])
    return out


def length(tiny, repeats):
    """ms a token by position, int8 and bf16 in turns."""
    context, runs = (TINY if tiny else FULL)["block_size"], turns("length", TARGETS, tiny, repeats)
    rows = [{"variant": v, "bins": bins(runs[v], context // 8), **past_context(runs[v], context)}
            for v in TARGETS]
    return {"context": context, "rows": rows}


def bins(runs, step):
    """Mean ms a token for lengths in (from, to], the window's move included; median and range over runs."""
    last = PROMPT + len(runs[0])
    out, edges = [], [*range(0, last, step), last]
    for a, b in zip(edges, edges[1:], strict=False):
        means = [statistics.mean(run[max(0, a - PROMPT):b - PROMPT]) for run in runs]
        out.append({"from": a, "to": b, "mean_ms": spread(means)})
    return out


def past_context(runs, context):
    """Mean ms a token over one cycle of the window, from the step on in which it first is too long."""
    move = context + 1 - PROMPT
    return {"past_context_ms": spread([statistics.mean(run[move:move + context // 2]) for run in runs])}


def loss(tiny, repeats):
    """Exact validation loss in fp32, bf16 and int8."""
    model, corpus, rows = GPT.from_pretrained(ROOT / "space" / "model"), load_corpus(quiet=True), []
    ids = corpus.val[:1000] if tiny else corpus.val
    for name in ("fp32", *TARGETS):
        copy = model if name == "fp32" else model.for_inference(name)
        rows.append({"variant": name, "loss": loss_as_written(copy, ids)})
        rows[-1]["cost"] = rows[-1]["loss"] - rows[0]["loss"]
    return {"corpus": {"name": corpus.name, "sha256": corpus.sha256}, "targets": len(ids) - 1,
            "model": "the 1.27 M model of space/model", "rows": rows}


@torch.no_grad()
def loss_as_written(model, ids, batch=16):
    """Nats a target in the exact loss's windows, one position at a time: through sampling's own kernels."""
    total = 0.0
    for x, y in eval_windows(ids, model.config.block_size, batch):
        cache = KVCache(model.config, x.size(0), model.transformer.wte.weight)
        for t in range(x.size(1)):
            logits = model(x[:, t:t + 1], cache=cache)[0][:, 0].float()  # (B, V)
            total += F.cross_entropy(logits, y[:, t], reduction="sum").item()
    return total / (len(ids) - 1)


def table_markdown(folder=RESULTS):
    """The paired table, the lengths and the loss for the README, from the three files."""
    speeds, lengths, losses = (read_json(folder / file).get("rows", []) for file in FILES.values())
    costs, rows = {r["variant"]: f"{r['cost']:+.5f}" for r in losses}, []
    for r in speeds:
        t = r["tok_s"]
        rows.append([r["variant"], f"{t['median']:.1f} ({t['low']:.1f} to {t['high']:.1f})",
                     middle(r, "times_transformers", ".1f"), middle(r, "times_no_cache", ".0f"),
                     middle(r, "share_of_sweep", ".0%"), middle(r, "first_ms", ".0f"),
                     r["memory_mb"]["peak_writing"], costs.get(r["variant"], "")])
    ways = [f"{r['variant']} {r['bins'][0]['mean_ms']['median']:.1f} ms a token at the start, "
            f"{r['past_context_ms']['median']:.1f} past the context" for r in lengths]
    head = ["way", "tok/s (range)", "x `transformers`", "x no cache", "of the bandwidth", "first, ms",
            "peak MB", "loss"]
    return common.table(head, rows) + f"\n\nAgainst length, moves of the window included: {'; '.join(ways)}."


def middle(found, name, form):
    return format(found[name]["median"], form) if name in found else "-"


def main(argv=None):
    args = common.options(__doc__, argv, part=list(FILES), repeats=3, tiny=False)
    folder = ROOT / "build" if args.tiny else RESULTS
    config = {"shape": TINY if args.tiny else FULL, "prompt": PROMPT, "first_token_prompt": FIRST_PROMPT,
              **SAMPLING, "tokens": 20 if args.tiny else TOKENS, "threads": torch.get_num_threads(),
              "tiny": args.tiny, "repeats": args.repeats, "transformers": version_of("transformers")}
    for part in args.part:
        measure = {"speed": speed, "length": length, "loss": loss}[part]
        common.timed_result(folder / FILES[part], config, None, lambda m=measure: m(args.tiny, args.repeats))
    say(table_markdown(folder))


if __name__ == "__main__":
    common.start(main, child)
