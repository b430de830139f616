"""One door for claims about numbers: a claim has bounds, and a number outside them stops the notebook.

What a number should be depends on the text (Tiny Shakespeare or the stand-in) and on the budget (QUICK=1), so each
claim names its bounds for all three.
"""

import os

QUICK = os.environ.get("QUICK") == "1"  # tiny budgets: every cell runs, no number is worth quoting

_corpus = {"name": None}


def use(corpus):
    """Say once, at the top of a notebook, which text the numbers belong to. Returns the corpus."""
    _corpus["name"] = corpus.name
    if corpus.name == "standin":
        print("THE STAND-IN TEXT: the sentences of this notebook speak of Shakespeare's numbers, not of these.")
    return corpus


def budget(full, quick):
    """`full`, or `quick` where QUICK=1."""
    return quick if QUICK else full


def claim(name, value, shakespeare, standin=None, quick=None):
    """Check that `value` lies in the bounds (low, high) of this text and budget, and print it; AssertionError if not.

    `standin` and `quick` may be wider; one that is None makes no claim there, and the line says so.
    """
    where = "quick" if QUICK else _corpus["name"] or "tinyshakespeare"
    bounds = {"quick": quick, "standin": standin}.get(where, shakespeare)
    if bounds is None:
        print(f"- {name}: {show(value)} (nothing is claimed of it in a {where} run)")
        return
    low, high = bounds
    if not low <= value <= high:
        raise AssertionError(f"The claim does not hold. {name}: measured {show(value)}, "
                             f"claimed {show(low)} to {show(high)} ({where}).")
    print(f"✓ {name}: {show(value)}")


def holds(sentence, truth):
    """Check a claim that is true or false, on any text and budget; AssertionError if it is false."""
    if not truth:
        raise AssertionError(f"The claim does not hold: {sentence}")
    print(f"✓ {sentence}")


def show(value):
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 0.1 else f"{value:.3f}"
