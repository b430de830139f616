"""What the cost and GPU measurements share: vendor figures of the cards, the least a step can take, and fits.

Nothing is measured here. A step on a card is bounded by its arithmetic, by the bytes that go through the card's memory
and by the bytes that the cards exchange; `floors` counts the first two, `all_reduce_seconds` the third.
"""

import statistics
from dataclasses import dataclass

import numpy as np
import torch

from gpt2.plan import PEAK, count_params, flops_per_token, memory_plan
from model_gpt2 import GPTConfig


@dataclass(frozen=True)
class Card:
    """One accelerator, or one CPU, in the numbers that bound a step. Vendor figures unless `source` says otherwise."""

    name: str
    peak: float  # FLOP/s of its matmuls
    memory: float  # bytes a second between its memory and its units
    link: float = 0.0  # bytes a second that it sends to the other cards of its machine
    source: str = "vendor figures"


# half precision without sparsity; A100 and H100 as SXM modules with 80 GB; NVLink's two directions counted once
CARDS = {
    "T4": Card("T4", 1e12 * PEAK["T4"][0], 320e9),
    "A100": Card("A100", 1e12 * PEAK["A100"][0], 2039e9, 300e9),
    "H100": Card("H100", 1e12 * PEAK["H100"][0], 3350e9, 450e9),
}
NETWORK_PORT = 50e9  # bytes a second of one 400 Gb/s network port, one direction, vendor figure

GPT2 = GPTConfig(n_tokens=50257)  # GPT-2 small, 50,304 rows


def step_bytes(g, sequences, micro, dtype):
    """Bytes that one step of `sequences` moves through a card's memory, `micro` at once, attention not written out.

    Each number that memory_plan keeps is written once, read once by the layer that follows and once by the backward
    pass, and its gradient is written and read: 5 passes. memory_plan's logits hold their gradient already: 2 passes.
    A micro-batch reads the weights twice (in half precision after casting them) and adds into the gradients. A step of
    AdamW reads 4 numbers a weight and writes 3; clipping reads the gradient twice and writes it once.
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


def reach(g, card, sequences, micro, seconds, dtype=torch.float16):
    """Sum of the two floors over the measured seconds: 1 would be both at full rate, one after the other."""
    return sum(floors(g, card, sequences, micro, dtype).values()) / seconds


def all_reduce_seconds(n_bytes, cards, rate):
    """A ring: every card sends (and receives) 2 (N-1)/N of the bytes, at the rate of the narrowest link."""
    return 0.0 if cards == 1 else 2 * (cards - 1) / cards * n_bytes / rate


# ---- Fits


def design(x, powers):
    return np.stack([np.asarray(x, float) ** p for p in powers], axis=1)


def fit(x, y, powers):
    """Coefficients of sum c_p x^p with the least squared *relative* error, so that small points count as large ones."""
    y = np.asarray(y, float)
    coefficients, *_ = np.linalg.lstsq(design(x, powers) / y[:, None], np.ones_like(y), rcond=None)
    return [float(c) for c in coefficients]


def value(coefficients, powers, x):
    """The law at x: a number for a number, an array for several."""
    y = design(np.atleast_1d(x), powers) @ np.asarray(coefficients)
    return y if np.ndim(x) else float(y[0])


def judge(points, held, powers, tolerance):
    """Fit a law to points {x: y}, then ask it for the one point `held` (x, y) that it has not seen."""
    x, y = list(points), list(points.values())
    coefficients = fit(x, y, powers)
    worst = max(abs(value(coefficients, powers, a) / b - 1) for a, b in points.items())
    predicted = value(coefficients, powers, held[0])
    error = predicted / held[1] - 1
    return {"powers": list(powers), "coefficients": coefficients, "largest_error": round(worst, 4),
            "held_out": {"x": held[0], "measured": held[1], "predicted": predicted, "error": round(error, 4),
                         "tolerance": tolerance, "holds": abs(error) <= tolerance}}


def spread(samples):
    """{"median", "low", "high", "n"} of a list of seconds: low and high are the quartiles."""
    low, high = np.percentile(samples, [25, 75])
    return {"median": statistics.median(samples), "low": float(low), "high": float(high), "n": len(samples)}


def markdown(head, rows):
    """Lists of strings -> a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
