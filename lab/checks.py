"""Checks of the exercises: not tried is shown and passed over, a wrong answer raises, a right one is praised.

Each check compares the reader's answer with one worked out in another way, on inputs small enough to print.
"""

import functools


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


def same(got, wanted, tolerance):
    import torch
    if isinstance(wanted, torch.Tensor) or isinstance(got, torch.Tensor):
        try:
            got, wanted = torch.as_tensor(got), torch.as_tensor(wanted)
        except (TypeError, ValueError, RuntimeError):
            return False
        alike = got.shape == wanted.shape
        return alike and torch.allclose(got.double(), wanted.double(), rtol=0, atol=tolerance)
    if isinstance(wanted, float):
        return isinstance(got, int | float) and abs(got - wanted) <= tolerance
    return got == wanted


def short(value):
    text = str(value.tolist() if hasattr(value, "tolist") else value)
    return text if len(text) < 300 else text[:300] + " ..."
