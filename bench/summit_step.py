"""How much of this machine's peak a step of the 12-layer GPT-2 reaches: Muon, bf16, 8,192 letters a step.

    python -m bench.summit_step          writes results/summit_step.json

The peak is the best of several large bf16 products, on the same threads, before and after. The share
counts a step's own operations: six a parameter and letter, attention, and Muon's Newton-Schulz
products.
"""

import statistics
from dataclasses import replace

import torch

from bench.common import QUIET, RESULTS, seconds, timed_result
from data.files import say
from data.shakespeare import load_corpus
from gpt2.plan import flops_per_token, model_config
from train_gpt2 import TrainConfig, train

STEP = dict(n_layer=12, n_head=12, n_embd=768, block_size=256, batch_size=8, tokens_per_step=8192,
            precision="bf16", minutes=0.0, max_steps=6, eval_every=10**6, **QUIET)


def peak(n=3072, repeats=5):
    """Operations a second of the fastest of some products of two (n, n) matrices in bf16."""
    a, b = torch.randn(n, n).bfloat16(), torch.randn(n, n).bfloat16()
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(repeats))


def newton_schulz(width, layers, steps=5):
    """Operations of Muon's products in one step: x x', a a and (..) x, for matrices of (m, n), m <= n."""
    shapes = 4 * [(width, width)] + 2 * [(width, 4 * width)]  # q, k, v and c_proj; the two of the MLP
    return layers * sum(steps * (2 * m * m * n + 2 * m**3 + 2 * m * m * n) for m, n in shapes)


def measure(corpus):
    before, config = peak(), TrainConfig.preset_of("cpu", **STEP)
    short = replace(corpus, val=corpus.val[:257])  # validation is not timed
    history = [r for r in train(config, short).history if "loss" in r][1:]  # the first one warms up
    took = statistics.median(r["dt_ms"] for r in history) / 1000
    tokens, best = config.tokens_per_step, max(before, peak())
    model = tokens * flops_per_token(model_config(config, 65))
    muon = newton_schulz(config.n_embd, config.n_layer)
    return {"threads": torch.get_num_threads(), "step_s": took, "tok_s": tokens / took,
            "peak_gflops": best / 1e9, "model_tflop": model / 1e12, "muon_tflop": muon / 1e12,
            "share_of_peak": (model + muon) / took / best}


def main():
    corpus = load_corpus(quiet=True)
    found = timed_result(RESULTS / "summit_step.json", STEP, corpus, lambda: measure(corpus))
    say("{step_s:.1f} s a step, {tok_s:.0f} letters a second: {share_of_peak:.0%} of {peak_gflops:.0f} "
        "GFLOP/s".format(**found))


if __name__ == "__main__":
    main()
