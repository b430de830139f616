"""What the tests of the trainer share: a text that has something to learn in it, runs that take a second."""

import random
from pathlib import Path

import torch

from gpt2.settings import TrainConfig

ROOT = Path(__file__).resolve().parents[1]
TINY = dict(n_layer=1, n_head=2, n_embd=16, block_size=16, batch_size=4, tokens_per_step=64, max_steps=20,
            warmup_steps=2, eval_every=10, save_every=5, sample_chars=0, device="cpu", log_every=0,
            dropout=0.1)


def words(n=3000):
    r = random.Random(0)
    known = ["red", "green", "blue", "old", "stone", "rain"]
    return "\n".join(" ".join(r.choice(known) for _ in range(6)) for _ in range(n // 25))


def tiny(folder="", **changes):
    return TrainConfig.preset_of("quick", **{**TINY, "out_dir": str(folder), "resume": "auto", **changes})


def until(step):
    """A callback that stops a run."""
    return lambda record, model: record["step"] == step


def same(a, b):
    """Whether two nested structures of tensors and plain values are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
