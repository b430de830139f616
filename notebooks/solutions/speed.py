"""Solutions of the exercises of notebooks/speed.ipynb. Try them first; then compare."""

import torch


# exercise 1
def next_output(x, wq, wk, wv, keys, values):
    keys.append(x @ wk)
    values.append(x @ wv)
    K, V = torch.stack(keys), torch.stack(values)  # (S, hs)
    scores = K @ (x @ wq) / K.size(1) ** 0.5  # (S,)
    return scores.softmax(0) @ V  # (hs,)


# exercise 2
def most_letters(parameters, bytes_each, gb_s):
    return gb_s * 1e9 / (parameters * bytes_each)


# exercise 3
def to_int8(weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().to(torch.int8), scale


# exercise 4
def whole(shares, factors):
    untouched = 1 - sum(shares)
    return 1 / (untouched + sum(s / f for s, f in zip(shares, factors, strict=True)))
