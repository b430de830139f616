"""Checks of the exercises of notebooks/gradients.ipynb and notebooks/bpe.ipynb.

Each compares the reader's answer with another way to get it: a nudge, torch, or counting on a small text.
"""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F

from lab.checks import exercise, expect

# ---- gradients.ipynb


@exercise(1)
def check_slopes(slopes):
    """Against nudges: (L(w + h) - L(w - h)) / 2h for each of the three numbers."""
    for numbers in ((3.0, 2.0, -5.0), (0.5, -1.0, 2.0), (1.5, 0.0, 0.3)):
        wanted = [nudged(lambda w, x, b: (w * x + b) ** 2, numbers, i) for i in range(3)]
        given = dict(zip("wxb", numbers, strict=True))
        for name, got, want in zip("wxb", slopes(*numbers), wanted, strict=True):
            expect(f"slope with respect to {name}", given, float(got), want, 1e-6)


def nudged(function, numbers, i, h=1e-5):
    up, down = ([n + sign * h * (j == i) for j, n in enumerate(numbers)] for sign in (1, -1))
    return (function(*up) - function(*down)) / (2 * h)


@exercise(2)
def check_log(log, Number):
    """ln(e^a + e^b + ...): its slopes are the softmax."""
    for values in ([2.0, 1.0, 0.0], [-1.0], [0.0, 3.0]):
        numbers = [Number(value) for value in values]
        total = numbers[0].exp()
        for number in numbers[1:]:
            total = total + number.exp()
        result = log(total)
        given = f"ln of the sum of e to the power of {values}"
        expect("value", given, result.value, math.log(sum(map(math.exp, values))), 1e-9)
        result.backward()
        wanted = torch.tensor(values).softmax(0)
        expect("slopes", given, torch.tensor([float(number.slope) for number in numbers]), wanted, 1e-6)


@exercise(3)
def check_gelu(gelu, Array):
    x = np.array([[-3.0, -1.0, -0.2], [0.0, 0.7, 4.0]])
    against_torch(gelu, lambda x: F.gelu(x, approximate="tanh"), Array, {"x": x})


@exercise(4)
def check_rms_norm(rms_norm, Array):
    x, w = np.array([[1.0, 2.0, 3.0, 6.0], [-1.0, 0.5, 0.0, 0.2]]), np.array([1.0, -0.5, 2.0, 0.3])
    against_torch(rms_norm, lambda x, w: F.rms_norm(x, (4,), w, 1e-5), Array, {"x": x, "w": w})


def against_torch(ours, theirs, Array, given):
    """Result and slopes of an operation on Arrays, each within 1e-6 of torch's; slopes of a weighted sum."""
    mine = {name: Array(data) for name, data in given.items()}
    torchs = {name: torch.tensor(data, requires_grad=True) for name, data in given.items()}
    out, wanted = ours(*mine.values()), theirs(*torchs.values())
    expect("result", given, torch.tensor(out.data), wanted.detach(), 1e-6)
    weights = np.linspace(-1, 2, out.data.size).reshape(out.data.shape)
    (out * Array(weights)).backward()
    (wanted * torch.tensor(weights)).sum().backward()
    for name in given:
        slopes = torch.tensor(mine[name].grad)
        what = f"slopes of {name} (its result is multiplied by {weights.round(1).tolist()} and summed)"
        expect(what, given, slopes, torchs[name].grad, 1e-6)


@exercise(5)
def check_arrives(arrives):
    """Against the slope of the chain itself, by a nudge."""
    for speeds in ([0.5, 0.1], [0.16] * 24, [-0.5, 2.0, 0.0], []):
        for residual in (False, True):
            def chain(x, speeds=speeds, residual=residual):
                for s in speeds:
                    x = x + s * x if residual else s * x
                return x
            given = {"speeds": speeds, "residual": residual}
            expect("what arrives", given, float(arrives(speeds, residual)), nudged(chain, [1.0], 0), 1e-6)


# ---- bpe.ipynb


@exercise(1)
def check_commonest(commonest):
    """Against counting by eye: every pair of the alphabet, looked for one after the other."""
    for ids in ([1, 2, 3, 1, 2, 1, 2], [5, 4, 5, 4, 5, 3, 1, 3, 1], [7, 7, 7, 2, 2], [2, 9, 9, 2], [3, 1]):
        pairs = itertools.product(sorted(set(ids)), repeat=2)
        wanted = max(pairs, key=lambda pair: sum(ids[i : i + 2] == [*pair] for i in range(len(ids))))
        expect("the commonest pair", {"ids": ids}, commonest(list(ids)), wanted)


@exercise(2)
def check_merge(merge):
    """Against replacing in a string, which also goes from left to right."""
    cases = (("abcab", "ab"), ("aaaaa", "aa"), ("cba", "ab"), ("abab", "ab"), ("aab", "ab"), ("", "ab"))
    for text, pair in cases:
        ids, wanted = [ord(c) for c in text], [ord(c) for c in text.replace(pair, "Z")]
        given, before = {"ids": ids, "pair": tuple(map(ord, pair)), "new": ord("Z")}, list(ids)
        expect("the merged row", given, list(merge(*given.values())), wanted)
        expect("the row that was given, which must stay", given, ids, before)


@exercise(3)
def check_by_the_rules(by_the_rules):
    """Against every rule once, in the order of age: the same, since no rule makes an older one's pair."""
    rules = {(1, 2): 10, (2, 3): 11, (10, 3): 12, (3, 3): 13, (12, 1): 14}
    for ids in ([1, 2, 3], [2, 3, 1, 2], [1, 2, 3, 1, 2, 3], [3, 3, 3], [9, 9], [1], [1, 2, 3, 1], []):
        text = "".join(map(chr, ids))
        for (a, b), new in rules.items():
            text = text.replace(chr(a) + chr(b), chr(new))
        got = by_the_rules(list(ids), dict(rules))
        expect("the row when no rule is left", {"ids": ids, "merges": rules}, list(got), list(map(ord, text)))


@exercise(4)
def check_nats_a_character(nats_a_character):
    """Pieces with known probabilities: -ln of the probability of the whole text, divided by its letters."""
    cases = (([1, 1, 1], [0.5, 0.25]), ([3, 2, 4, 1], [0.1, 0.2, 0.4]), ([5, 2], [0.5]))
    for lengths, probabilities in cases:
        mean = -sum(map(math.log, probabilities)) / len(probabilities)
        wanted = -math.log(math.prod(probabilities)) / sum(lengths[1:])
        given = {"nats_a_piece": round(mean, 4), "lengths": lengths}
        expect("nats a character", given, float(nats_a_character(mean, lengths)), wanted, 1e-6)
