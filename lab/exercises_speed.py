"""Checks of the exercises of notebooks/speed.ipynb: each compares the reader's function with another way."""

import torch

from lab.checks import exercise, expect, expect_each
from model_gpt2 import attention_by_hand


@exercise(1)
def check_1(next_output):
    """One letter at a time through the reader's cache against causal attention over the whole text."""
    draw = torch.Generator().manual_seed(0)
    for T, C, hs in ((1, 4, 4), (5, 6, 3), (7, 4, 4)):
        x, (wq, wk, wv) = torch.randn(T, C, generator=draw), torch.randn(3, C, hs, generator=draw)
        wanted = attention_by_hand(*(y[None, None] for y in (x @ wq, x @ wk, x @ wv)))[0][0, 0]  # (T, hs)
        keys, values = [], []
        for t in range(T):
            given = {"letter": t + 1, "of": T, "C": C, "hs": hs}
            got = next_output(x[t], wq, wk, wv, keys, values)
            expect("output of this letter", given, got, wanted[t], 1e-5)
            expect("keys and values that are kept", given, [len(keys), len(values)], [t + 1, t + 1])


@exercise(2)
def check_2(most_letters):
    cases = ((10**6, 4, 20, 5000.0), (10**6, 1, 20, 20000.0), (10**9, 2, 3, 1.5))
    expect_each("letters a second", most_letters, "parameters bytes_each gb_s", cases, 1e-6)


@exercise(3)
def check_3(to_int8):
    """Type and range, the largest of each row at 127, and no weight off by more than half a scale."""
    sizes = torch.tensor([[1.0], [9], [0.01], [1], [3]])  # rows of very different size need their own scales
    weight = sizes * torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    weight[3, 2] = -weight[3].abs().max() - 1  # a row whose largest weight is negative
    numbers, scale = to_int8(weight.clone())
    given = "a matrix of 5 rows and 16 columns"
    expect("type of the whole numbers", given, str(numbers.dtype), "torch.int8")
    shapes = [*numbers.shape, *scale.shape]
    expect("shape of the whole numbers and of the scale", given, shapes, [5, 16, 5, 1])
    expect("largest size in each row", given, numbers.int().abs().amax(dim=1), torch.full((5,), 127))
    off = (numbers.float() * scale - weight).abs() / (weight.abs().amax(dim=1, keepdim=True) / 127)
    if off.max() > 0.501:
        expect("weights come back as numbers * scale, at most half a scale off", given,
               f"{off.max().item():.2f} of a scale off", "at most 0.50")


@exercise(4)
def check_4(whole):
    cases = (([0.5], [2], 4 / 3), ([0.05], [1e9], 1 / 0.95), ([0.5, 0.25], [2, 5], 1 / 0.55), ([], [], 1.0),
             ([1.0], [3], 3.0))
    expect_each("times as fast", whole, "shares factors", cases, 1e-6)
