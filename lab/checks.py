"""Checks of the exercises: not tried is shown and passed over, a wrong answer raises, a right one is praised.

Each check compares the reader's answer with one worked out here in another way, on inputs small enough to print.
"""


class WrongAnswer(AssertionError):
    """The answer was tried and is not right; the message names input, result and expectation."""


def check(name, run, strict=False):
    """Run a check. A stub (NotImplementedError) shows "not tried yet", and raises where `strict`."""
    try:
        run()
    except NotImplementedError:
        if strict:
            raise
        print(f"{name}: not tried yet")
        return False
    print(f"{name}: right!")
    return True


def expect(what, given, got, wanted, tolerance=0.0):
    """WrongAnswer unless `got` is `wanted`: numbers, tensors and lists within `tolerance`, anything else equal."""
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
        return got.shape == wanted.shape and torch.allclose(got.double(), wanted.double(), rtol=0, atol=tolerance)
    if isinstance(wanted, float):
        return isinstance(got, int | float) and abs(got - wanted) <= tolerance
    return got == wanted


def short(value):
    text = str(value.tolist() if hasattr(value, "tolist") else value)
    return text if len(text) < 300 else text[:300] + " ..."
