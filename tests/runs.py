"""What the tests of the trainer share: a text that has something to learn in it, runs that take a moment."""

import multiprocessing
import random
from pathlib import Path

import torch

from data.corpus import corpus_from_text
from train_gpt2 import TrainConfig, train

ROOT = Path(__file__).resolve().parents[1]
TINY = dict(n_layer=1, n_head=2, n_embd=8, block_size=8, batch_size=4, tokens_per_step=64, max_steps=12,
            warmup_steps=2, eval_every=6, save_every=3, sample_chars=0, device="cpu", precision="fp32",
            log_every=0, bar=False, dropout=0.1)


def words(n=3000):
    r = random.Random(0)
    known = ["red", "green", "blue", "old", "stone", "rain"]
    return "\n".join(" ".join(r.choice(known) for _ in range(6)) for _ in range(n // 25))


CORPUS = corpus_from_text(words(), "words")


def tiny(folder="", **changes):
    return TrainConfig.preset_of("quick", **{**TINY, "out_dir": str(folder), "resume": "auto", **changes})


def run(folder="", callback=None, corpus=CORPUS, **changes):
    """A run of 12 steps, saved after 3, 6, 9, 12, validated after 6 and 12."""
    return train(tiny(folder, **changes), corpus, callback)


def until(step):
    """A callback that stops a run."""
    return lambda record, model: record["step"] == step


def forkserver():
    """Starts processes at once: what takes seconds to import is imported once, and forked."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.runs", "pytest", "torch._dynamo"])
    return server


def raising(error):
    def fails(*_):
        raise error
    return fails


def same(a, b):
    """Whether two nested structures of tensors and plain values are equal, bit for bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b
