"""One door for claims about numbers: a claim has bounds, and a number outside them stops the notebook.

What a number should be depends on the text and on the budget (QUICK=1): a claim names its bounds for
Tiny Shakespeare and, where something can be said there, for the stand-in text and for a quick run.
`always` is for what holds on any text and budget. Where nothing is claimed, the line says so.
"""

import os

QUICK = os.environ.get("QUICK") == "1"  # tiny budgets: every cell runs, no number is worth quoting

_corpus = {"name": None}


def use(corpus):
    """Say once, at the top of a notebook, which text the numbers belong to. Returns the corpus."""
    _corpus["name"] = corpus.name
    if corpus.name != "tinyshakespeare":
        which = "THE STAND-IN TEXT" if corpus.name == "standin" else f"YOUR TEXT ({corpus.name})"
        print(f"{which}: what the cells print is measured on it. The sentences between them were written "
              "for Shakespeare: numbers, names and answers in them are his.")
    if corpus.tokenizer.kind != "char":
        print("It is read in pieces: where a cell says letter it means a piece, and losses are nats a piece.")
    return corpus


def budget(full, quick):
    """`full`, or `quick` where QUICK=1."""
    return quick if QUICK else full


def claim(name, value, shakespeare=None, standin=None, quick=None, always=None):
    """Check that `value` lies in the bounds (low, high) of this text and budget, and print it.

    AssertionError if it does not. `always` is checked on every text and budget, in place of the others.
    """
    text = _corpus["name"] or "tinyshakespeare"
    known = text in ("tinyshakespeare", "standin")  # of no other text we know bounds
    where = "quick" if QUICK and known else text
    bounds = {"tinyshakespeare": shakespeare, "standin": standin, "quick": quick}.get(where)
    bounds = always or bounds
    if bounds is None:
        why = "a quick run: nothing is claimed" if QUICK else "nothing is claimed here"
        if shakespeare and not QUICK and not known:
            why += f"; Shakespeare's: {' to '.join(map(show, shakespeare))}"
        print(f"- {name}: {show(value)} ({why})")
        return
    low, high = bounds
    if not low <= value <= high:
        raise AssertionError(f"The claim does not hold. {name}: measured {show(value)}, "
                             f"claimed {show(low)} to {show(high)} ({'always' if always else where}).")
    print(f"✓ {name}: {show(value)}")


def holds(sentence, truth):
    """Check a claim that is true or false, on any text and budget; AssertionError if it is false."""
    if not truth:
        raise AssertionError(f"The claim does not hold: {sentence}")
    print(f"✓ {sentence}")


def show(value):
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 0.1 else f"{value:.3f}"
