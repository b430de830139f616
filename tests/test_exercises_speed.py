"""The exercises of notebooks/speed.ipynb: every solution passes, a stub is not tried, likely mistakes raise."""

import importlib.util

import pytest
import torch
from conftest import ROOT

from lab import exercises_speed as exercises
from lab.checks import WrongAnswer

spec = importlib.util.spec_from_file_location("solutions_speed", ROOT / "notebooks/solutions/speed.py")
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)


def forgets_itself(x, wq, wk, wv, keys, values):
    out = solutions.next_output(x, wq, wk, wv, list(keys), list(values))
    if keys:  # the new letter looks at the old ones only
        out = (torch.stack(keys) @ (x @ wq) / wq.size(1) ** 0.5).softmax(0) @ torch.stack(values)
    keys.append(x @ wk)
    values.append(x @ wv)
    return out


def divides_by_width(x, wq, wk, wv, keys, values):
    return solutions.next_output(x, wq * (wq.size(1) / wq.size(0)) ** 0.5, wk, wv, keys, values)


def one_scale(weight):
    scale = weight.abs().max() / 127
    return (weight / scale).round().to(torch.int8), scale.expand(len(weight), 1)


def cut_off(weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).to(torch.int8), scale


def largest_positive(weight):
    scale = weight.amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


CHECKS = [(exercises.check_1, "next_output"), (exercises.check_2, "most_letters"), (exercises.check_3, "to_int8"),
          (exercises.check_4, "whole")]  # fmt: skip
MISTAKES = [
    (exercises.check_1, forgets_itself),
    (exercises.check_1, divides_by_width),
    (exercises.check_1, lambda x, wq, wk, wv, keys, values: x @ wv),  # looks at nothing but itself
    (exercises.check_2, lambda n, bytes_each, gb_s: gb_s * 1e9 / n),  # letters of one byte a weight
    (exercises.check_2, lambda n, bytes_each, gb_s: gb_s * 2**30 / (n * bytes_each)),  # another GB
    (exercises.check_3, one_scale),
    (exercises.check_3, cut_off),
    (exercises.check_3, largest_positive),
    (exercises.check_3, lambda w: (w.round(), torch.ones(len(w), 1))),  # rounded, and still floats
    (exercises.check_4, lambda shares, factors: sum(s * f for s, f in zip(shares, factors, strict=True))),  # a mean
    (exercises.check_4, lambda shares, factors: 1 / sum(s / f for s, f in zip(shares, factors, strict=True))
     if shares else 1.0),  # the untouched part forgotten
]


@pytest.mark.parametrize("check, name", CHECKS)
def test_solution_passes(check, name):
    """Catches a check that refuses the right answer, or a solution that is wrong."""
    assert check(getattr(solutions, name), strict=True)


@pytest.mark.parametrize("check, name", CHECKS)
def test_stub_is_shown_as_not_tried(check, name, capsys):
    """Catches an untouched stub that stops the notebook, or that counts as right."""
    def stub(*_):
        raise NotImplementedError

    assert check(stub) is False and "not tried yet" in capsys.readouterr().out


@pytest.mark.parametrize("check, answer", MISTAKES)
def test_a_likely_mistake_raises(check, answer):
    """Catches a check that accepts what readers get wrong."""
    with pytest.raises(WrongAnswer):
        check(answer)
