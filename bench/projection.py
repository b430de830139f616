"""What 10 billion tokens would take on cards that we do not have: arithmetic only, none of it measured by us.

    python -m bench.projection        rewrites results/projection.json

A step on a card is bounded by its arithmetic, by the bytes that go through its memory, and by the bytes
that the cards exchange. How much of the first two a card reaches is taken from one run that others
measured, on an A100; a card's peaks are its vendor's figures. So the A100 row repeats, spread over
eight cards, what it was calibrated with.
"""

from dataclasses import dataclass

import torch

from data.files import say
from gpt2.plan import PEAK, count_params, flops_per_token, memory_plan
from lab.machine import markdown, write_json
from lab.project import ROOT, read_json
from model_gpt2 import GPTConfig

RESULT = ROOT / "results" / "projection.json"


@dataclass(frozen=True)
class Card:
    """One accelerator in the numbers that bound a step, all vendor figures."""

    peak: float  # FLOP/s of its matmuls, half precision without sparsity
    memory: float  # bytes a second between its memory and its units
    link: float = 0.0  # bytes a second that it sends to the other cards of its machine, one direction


# SXM modules with 80 GB
CARDS = {"A100": Card(1e12 * PEAK["A100"][0], 2039e9, 300e9),
         "H100": Card(1e12 * PEAK["H100"][0], 3350e9, 450e9)}
GPT2 = GPTConfig(n_tokens=50257)  # GPT-2 small, 50,304 rows
TOKENS, STEP_TOKENS = 10e9, 524_288  # 512 sequences of 1,024 a step, as GPT-2's own size of step
NETWORK_PORT = 50e9  # bytes a second of one 400 Gb/s network port, one direction, vendor figure
SEEN = {"card": "A100", "tok_s": 182_000, "sequences": 16, "micro": 16,
        "source": "build-nanogpt, one A100, 16 x 1,024 tokens in 90 ms, bf16, compiled"}
SETUPS = [  # micro: sequences at once; link: bytes a second, the narrowest; others: what others measured
    {"name": "8 A100", "card": "A100", "cards": 8, "micro": 16, "link": CARDS["A100"].link,
     "others": {"hours": 1.5, "source": "llm.c, discussion 481 (C and CUDA, not PyTorch): about 90 minutes"}},
    {"name": "8 H100", "card": "H100", "cards": 8, "micro": 16, "link": CARDS["H100"].link,
     "others": {"hours": 0.75, "source": "modded-nanogpt's README, of llm.c: 45 minutes"}},
    {"name": "64 H100, 8 ports of 400 Gb/s a machine", "card": "H100", "cards": 64, "micro": 8,
     "link": 8 * NETWORK_PORT, "others": None},
    {"name": "64 H100, 1 port a machine", "card": "H100", "cards": 64, "micro": 8, "link": NETWORK_PORT,
     "others": None},
]
BOUNDS = {"arithmetic": "arithmetic", "memory": "memory traffic", "all_reduce": "all-reduce"}


def step_bytes(g, sequences, micro, dtype):
    """Bytes that one step of `sequences` moves through a card's memory, `micro` at once.

    Attention is not written out. Each number that memory_plan keeps is written once, read once by the
    layer that follows and once by the backward pass, and its gradient is written and read: 5 passes.
    memory_plan's logits hold their gradient already: 2 passes. A micro-batch reads the weights twice
    (in half precision after casting them) and adds into the gradients. A step of AdamW reads 4 numbers
    a weight and writes 3; clipping reads the gradient twice and writes it once.
    """
    n, half = count_params(g)[0], torch.empty((), dtype=dtype).element_size()
    one, two = (memory_plan(g, b, dtype) for b in (1, 2))
    kept = two["activations"] - one["activations"]  # of one sequence, without the casts
    weights = (8 if half == 4 else 4 + half + 2 * half) + 8
    return sequences * (5 * kept + 2 * one["logits"]) + sequences / micro * weights * n + (28 + 12) * n


def floors(g, card, sequences, micro, dtype=torch.float16):
    """{"arithmetic": s, "memory": s}: the least that each of the two can take for one step on one card."""
    flops = sequences * g.block_size * flops_per_token(g)
    return {"arithmetic": flops / card.peak, "memory": step_bytes(g, sequences, micro, dtype) / card.memory}


def all_reduce_seconds(n_bytes, cards, rate):
    """A ring: every card sends (and receives) 2 (N-1)/N of the bytes, at the rate of the narrowest link."""
    return 0.0 if cards == 1 else 2 * (cards - 1) / cards * n_bytes / rate


def reach():
    """The share of the sum of both floors that the card of SEEN has reached in the hands of others."""
    took = SEEN["sequences"] * GPT2.block_size / SEEN["tok_s"]
    return sum(floors(GPT2, CARDS[SEEN["card"]], SEEN["sequences"], SEEN["micro"]).values()) / took


def project(setup, tokens=TOKENS):
    """One row: seconds of a step by part, tokens a second, hours, what bounds it; no exchange is hidden."""
    card, n = CARDS[setup["card"]], setup["cards"]
    one = floors(GPT2, card, STEP_TOKENS / GPT2.block_size / n, setup["micro"])
    parts = {name: s / reach() for name, s in one.items()}
    parts["all_reduce"] = all_reduce_seconds(4 * count_params(GPT2)[0], n, setup["link"])
    step = sum(parts.values())
    hours = tokens / STEP_TOKENS * step / 3600
    mfu = STEP_TOKENS * flops_per_token(GPT2) / step / n / card.peak
    row = {"name": setup["name"], "projection": True, "tok_s": round(STEP_TOKENS / step),
           "hours": round(hours, 3), "mfu": round(mfu, 3), "bound": BOUNDS[max(parts, key=parts.get)],
           "step_seconds": {name: round(s, 6) for name, s in parts.items()}}
    if setup["others"]:
        row["others"] = {**setup["others"], "ratio": round(hours / setup["others"]["hours"], 2)}
    return row


def projections():
    """All rows, with the inputs that they share."""
    return {"what": "projections by formula for GPT-2 124M, context 1,024, 10 B tokens; none of it measured "
                    "by us",
            "tokens": TOKENS, "step_tokens": STEP_TOKENS, "parameters": count_params(GPT2)[0],
            "flops_per_token": flops_per_token(GPT2), "reach": round(reach(), 3), "reach_from": SEEN,
            "rows": [project(setup) for setup in SETUPS]}


def table_markdown():
    """README table: 10 B tokens on cards we do not have."""
    rows = [[r["name"], f"{r['tok_s'] / 1e6:.2f} M", f"{60 * r['hours']:.0f} min", f"{r['mfu']:.0%}",
             r["bound"], f"{60 * r['others']['hours']:.0f} min" if "others" in r else ""]
            for r in read_json(RESULT)["rows"]]
    return markdown(["cards", "tokens/s (projection)", "10 B tokens (projection)", "MFU", "bound by",
                     "others measured"], rows)


if __name__ == "__main__":
    write_json(RESULT, projections())
    say(table_markdown())
