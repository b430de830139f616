"""The exercises, one table: every solution passes, every stub is not tried, wrong answers raise."""

import ast
import functools
import html
import importlib
import inspect
import math
import re

import pytest
import torch
from conftest import ROOT

from lab.checks import WrongAnswer, expect
from lab.notebook import read
from lab.project import notebooks

PLACE = {path.stem: path for path in notebooks()}
MODULE = {"gpt_dev": "dev", "gpt2_training": "training", "gpt2_gradio": "gradio", "speed": "speed"}


@functools.cache
def solutions(notebook):
    path = ROOT / f"notebooks/solutions/{notebook}.py"
    spec = importlib.util.spec_from_file_location(f"solutions_{notebook}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def divides_by_width(x, wq, *rest):
    return solutions("speed").next_output(x, wq * (wq.size(1) / wq.size(0)) ** 0.5, *rest)


def rounded(weight, scale):
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


def mean_of_windows(model, ids):
    parts = [(ids[s : s + 9][:-1], ids[s : s + 9][1:]) for s in range(0, len(ids) - 1, 8)]
    return sum(model.eval()(x[None], y[None])[1].item() for x, y in parts) / len(parts)


# (notebook, check, what the reader writes, usual mistakes: one function for each name)
TABLE = [
    ("gpt_dev", 0, ["never_seen"], [lambda alphabet, text: sorted(set(text))]),
    ("gpt_dev", 1, ["surprise_add_k"], [lambda count, total, k, V: -math.log((count + k) / (total + k))]),
    ("gpt_dev", 2, ["predict_first_loss"], [lambda scale: scale**2 / 2]),
    ("gpt_dev", 3, ["self_and_two_before"], [lambda T: torch.ones(T, T, dtype=torch.bool).tril()]),
    ("gpt_dev", 4, ["one_head_by_me", "variance"],
     [(lambda x, wq, wk, wv: ((x @ wq) @ (x @ wk).mT).softmax(-1) @ (x @ wv), lambda hs: 1.0)]),
    ("gpt_dev", 5, ["is_order_blind"], [lambda model, idx: True]),
    ("gpt_dev", 6, ["leaks"], [lambda mask: mask.triu(2).any().item()]),
    ("gpt_dev", 7, ["heads_without_a_loop"], [lambda q, k, v, nh: q]),
    ("gpt_dev", 8, ["diagnosis"], [lambda: {"A": "init", "B": "leak", "C": "scale"}]),
    ("gpt_dev", 9, ["block_parameters"], [lambda C: 12 * C * C]),
    ("gpt_dev", 10, ["top_p"], [lambda probs, p: probs]),
    ("gpt2_training", 1, ["my_lr"],
     [lambda s, w, n, p, low: p,
      lambda s, w, n, p, low: p * s / w if s < w else low + (p - low) * (n - s) / (n - w)]),
    ("gpt2_training", 2, ["exact_loss"],
     [mean_of_windows, lambda model, ids: model(ids[None, :8], ids[None, :8])[1].item()]),
    ("gpt2_training", 3, ["accumulated"],
     [lambda model, pieces: [model(x, y)[1].backward() for x, y in pieces],
      lambda model, pieces: model(*pieces[-1])[1].backward(), lambda model, pieces: None]),
    ("gpt2_training", 4, ["longest_copy"],
     [lambda text, source: len(text), lambda text, source: 0,
      lambda text, source: next((n for n in range(len(text), 0, -1) if text[:n] in source), 0)]),
    ("gpt2_gradio", 0, ["file_mb", "checkpoint_mb"],
     [(lambda n, bits: n * bits / 1e6, lambda n: 12 * n / 1e6),  # bits taken for bytes
      (lambda n, bits: n * bits / 8e6, lambda n: 8 * n / 1e6)]),  # the weights forgotten
    ("gpt2_gradio", 1, ["cache_mb"], [lambda L, C, T, bytes=4: L * T * C * bytes / 1e6]),  # keys only
    ("gpt2_gradio", 2, ["what_it_sees"],
     [lambda typed, t, B: t.decode(t.encode(typed)[:B]) or "\n",  # the beginning kept
      lambda typed, t, B: t.decode(t.encode(typed[-B:])) or "\n"]),  # cut before encoding
    ("gpt2_gradio", 3, ["harmless"],
     [lambda text: html.escape(text, quote=False),  # breaks out of an attribute
      lambda text: html.escape(text).replace("&", "&amp;"),  # escaped twice
      lambda text: text.replace("<", "")]),  # takes letters away
    ("speed", 1, ["next_output"], [divides_by_width, lambda x, wq, wk, wv, keys, values: x @ wv]),
    ("speed", 2, ["most_letters"],
     [lambda n, bytes_each, gb_s: gb_s * 1e9 / n,  # letters of one byte a weight
      lambda n, bytes_each, gb_s: gb_s * 2**30 / (n * bytes_each)]),  # another GB
    ("speed", 3, ["to_int8"],
     [lambda w: rounded(w, w.abs().max().expand(len(w), 1) / 127),  # one scale for all
      lambda w: rounded(w, w.amax(dim=1, keepdim=True) / 127),  # the sign forgotten
      lambda w: (w.round(), torch.ones(len(w), 1))]),  # still floats
    ("speed", 4, ["whole"], [lambda shares, factors: sum(map(math.prod, zip(shares, factors, strict=True)))]),
]
IDS = [f"{row[0]}-{row[1]}" for row in TABLE]
ROWS = pytest.mark.parametrize("notebook, n, names, wrong", TABLE, ids=IDS)


def module_of(notebook):
    return importlib.import_module(f"lab.exercises_{MODULE[notebook]}")


def check_of(notebook, n):
    return getattr(module_of(notebook), f"check_{n}")


@functools.cache
def cells(notebook):
    """(its prose, {name: stub of an exercise}, the code of all other cells)."""
    stubs, others = {}, []
    nb = read(PLACE[notebook])
    for cell in (cell for cell in nb.cells if cell.cell_type == "code"):
        lines = [line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!"))]
        tree = ast.parse("\n".join(lines))
        if "exercise" in cell.metadata.get("tags", []):
            for node in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
                exec(compile(ast.Module([node], []), cell.id, "exec"), {"torch": torch}, stubs)
        else:
            others.append(tree)
    return "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown"), stubs, others


@pytest.mark.parametrize("notebook", MODULE)
def test_the_table_knows_every_exercise_and_no_later_cell_needs_one(notebook):
    """An exercise that nobody tried to fool, a tool it names that is gone, a Run all that needs an answer."""
    prose, stubs, others = cells(notebook)
    told = re.findall(r"^(?:#+ |\*\*)Exercise (\d+)", prose, re.MULTILINE)
    assert [f"{notebook}-{n}" for n in told] == [name for name in IDS if name.startswith(f"{notebook}-")]
    tools = re.findall(r"`exercises\.(\w+)", prose)
    assert [tool for tool in tools if not hasattr(module_of(notebook), tool)] == []
    used = {node.id for tree in others for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not used & set(stubs)


@ROWS
def test_solution_passes_and_stub_is_not_tried(notebook, n, names, wrong, capsys):
    """A check that refuses the right answer; a stub that stops Run all; a solution that is not shown."""
    check, [prose, stubs, _] = check_of(notebook, n), cells(notebook)
    right = [getattr(solutions(notebook), name) for name in names]
    assert check(*right, strict=True) and capsys.readouterr().out == f"Exercise {n}: right!\n"
    mine = [stubs[name] for name in names]
    assert check(*mine) is False and capsys.readouterr().out == f"Exercise {n}: not tried yet\n"
    with pytest.raises(NotImplementedError):
        check(*mine, strict=True)
    folded = re.findall(r"<summary>Solution</summary>\n+```python\n(.*?)```", prose, re.DOTALL)
    shown = [ast.dump(node) for block in folded for node in ast.parse(block).body]
    assert all(ast.dump(ast.parse(inspect.getsource(f)).body[0]) in shown for f in right)


@ROWS
def test_wrong_answers_raise(notebook, n, names, wrong):
    """A check that a usual mistake passes, a message without what was given, got and expected."""
    for answer in wrong:
        with pytest.raises((WrongAnswer, IndexError)) as caught:
            check_of(notebook, n)(*(answer if isinstance(answer, tuple) else (answer,)))
        said = str(caught.value)
        assert caught.type is not WrongAnswer or "breaks out of" in said or \
            all(word in said for word in ("given", "your answer", "expected"))


def test_expect_names_input_result_and_expectation():
    """A message without these does not help anybody."""
    with pytest.raises(WrongAnswer, match=r"(?s)sum.*\[1, 2\].*4.*3"):
        expect("sum", [1, 2], 4, 3)
    expect("tensor", None, torch.tensor([1.0]), torch.tensor([1.0 + 1e-6]), 1e-5)
    for wrong, wanted in ((torch.ones(2), torch.ones(3)), ("three", torch.tensor(3.0)), (None, 1.0)):
        with pytest.raises(WrongAnswer):
            expect("shape, or a word for a number", None, wrong, wanted, 1.0)
