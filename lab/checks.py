"""Checks of the exercises: not tried is shown and passed over, a wrong answer raises, a right one is praised.

Each check compares the reader's answer with one worked out in another way, on inputs small enough to print.
"""

import functools

import torch


class WrongAnswer(AssertionError):
    """The answer was tried and is not right; the message names input, result and expectation."""


def exercise(number):
    """Make an exercise's check of a function that takes the reader's answers and raises where one is wrong.

    A stub (NotImplementedError) shows "not tried yet", and raises where `strict`, as in tests.
    """
    def make(compare):
        @functools.wraps(compare)
        def check(*answers, strict=False):
            try:
                compare(*answers)
            except NotImplementedError:
                if strict:
                    raise
                print(f"Exercise {number}: not tried yet")
                return False
            print(f"Exercise {number}: right!")
            return True
        return check
    return make


def expect(what, given, got, wanted, tolerance=0.0):
    """WrongAnswer unless `got` is `wanted`: numbers, tensors and lists within `tolerance`, else equal."""
    if not same(got, wanted, tolerance):
        raise WrongAnswer(f"{what}\n  given       {short(given)}\n  your answer {short(got)}\n"
                          f"  expected    {short(wanted)}")


def expect_each(what, answer, names, cases, tolerance=0.0):
    """Expect what `answer` gives for each case: its arguments, which are called `names`, what is wanted."""
    for *given, wanted in cases:
        got = answer(*given)
        got = float(got) if isinstance(wanted, float) else got
        expect(what, dict(zip(names.split(), given, strict=True)), got, wanted, tolerance)


def same(got, wanted, tolerance):
    if isinstance(wanted, float):
        return isinstance(got, int | float) and abs(got - wanted) <= tolerance
    if not isinstance(wanted, torch.Tensor) and not isinstance(got, torch.Tensor):
        return got == wanted
    try:
        got, wanted = torch.as_tensor(got).double(), torch.as_tensor(wanted).double()
    except (TypeError, ValueError, RuntimeError):
        return False
    return got.shape == wanted.shape and torch.allclose(got, wanted, rtol=0, atol=tolerance)


def short(value):
    text = str(value.tolist() if hasattr(value, "tolist") else value)
    return text if len(text) < 300 else text[:300] + " ..."
