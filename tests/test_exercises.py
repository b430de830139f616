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


def solution(notebook, name):
    return getattr(solutions(notebook), name)


# ---- what readers get wrong


def forgets_itself(x, wq, wk, wv, keys, values):
    out = solution("speed", "next_output")(x, wq, wk, wv, list(keys), list(values))
    if keys:  # the new letter looks at the old ones only
        out = (torch.stack(keys) @ (x @ wq) / wq.size(1) ** 0.5).softmax(0) @ torch.stack(values)
    keys.append(x @ wk)
    values.append(x @ wv)
    return out


def divides_by_width(x, wq, wk, wv, keys, values):
    return solution("speed", "next_output")(x, wq * (wq.size(1) / wq.size(0)) ** 0.5, wk, wv, keys, values)


def one_scale(weight):
    scale = weight.abs().max() / 127
    return (weight / scale).round().to(torch.int8), scale.expand(len(weight), 1)


def cut_off(weight):
    scale = weight.abs().amax(dim=1, keepdim=True) / 127
    return (weight / scale).to(torch.int8), scale


def largest_positive(weight):
    scale = weight.amax(dim=1, keepdim=True) / 127
    return (weight / scale).round().clamp(-127, 127).to(torch.int8), scale


def mean_of_windows(model, ids):
    model.eval()
    parts = [(ids[s : s + 9][:-1], ids[s : s + 9][1:]) for s in range(0, len(ids) - 1, 8)]
    return sum(model(x[None], y[None])[1].item() for x, y in parts) / len(parts)


def add_up(shares, factors):
    return sum(s * f for s, f in zip(shares, factors, strict=True))


def forget_the_rest(shares, factors):
    return 1 / sum(s / f for s, f in zip(shares, factors, strict=True)) if shares else 1.0


def straight_down(s, w, n, p, low):
    return p * s / w if s < w else low + (p - low) * (n - s) / (n - w)


# (notebook, check, what the reader writes, wrong answers: one for each name)
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
    ("gpt2_training", 1, ["my_lr"], [lambda s, w, n, p, low: p, straight_down]),
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
    ("speed", 1, ["next_output"],
     [forgets_itself, divides_by_width, lambda x, wq, wk, wv, keys, values: x @ wv]),
    ("speed", 2, ["most_letters"],
     [lambda n, bytes_each, gb_s: gb_s * 1e9 / n,  # letters of one byte a weight
      lambda n, bytes_each, gb_s: gb_s * 2**30 / (n * bytes_each)]),  # another GB
    ("speed", 3, ["to_int8"],
     [one_scale, cut_off, largest_positive, lambda w: (w.round(), torch.ones(len(w), 1))]),  # still floats
    ("speed", 4, ["whole"], [add_up, forget_the_rest]),
]
IDS = [f"{row[0]}-{row[1]}" for row in TABLE]
ROWS = pytest.mark.parametrize("notebook, n, names, wrong", TABLE, ids=IDS)


def check_of(notebook, n):
    return getattr(importlib.import_module(f"lab.exercises_{MODULE[notebook]}"), f"check_{n}")


@functools.cache
def stubs(notebook):
    """The functions that raise NotImplementedError in the notebook, by name, compiled from its own cells."""
    found = {}
    for cell in read(PLACE[notebook]).cells:
        if cell.cell_type == "code" and "exercise" in cell.metadata.get("tags", []):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef):
                    exec(compile(ast.Module([node], []), cell.id, "exec"), {"torch": torch}, found)
    return found


def test_the_table_knows_every_exercise():
    """An exercise without a solution, or one whose check nobody has tried to fool."""
    for notebook in MODULE:
        prose = "\n".join(cell.source for cell in read(PLACE[notebook]).cells)
        told = re.findall(r"^(?:#+ |\*\*)Exercise (\d+)", prose, re.MULTILINE)
        assert [f"{notebook}-{n}" for n in told] == [name for name in IDS if name.startswith(f"{notebook}-")]


@ROWS
def test_solution_passes_and_stub_is_not_tried(notebook, n, names, wrong, capsys):
    """A check that refuses the right answer; a stub that passes, or that stops Run all."""
    assert check_of(notebook, n)(*(solution(notebook, name) for name in names), strict=True)
    mine = [stubs(notebook)[name] for name in names]
    assert check_of(notebook, n)(*mine) is False
    right, not_tried = capsys.readouterr().out.splitlines()
    assert right == f"Exercise {n}: right!" and not_tried == f"Exercise {n}: not tried yet"
    with pytest.raises(NotImplementedError):
        check_of(notebook, n)(*mine, strict=True)


@ROWS
def test_wrong_answers_raise(notebook, n, names, wrong):
    """A check that a usual mistake passes, a message without what was given, got and expected."""
    for answer in wrong:
        with pytest.raises((WrongAnswer, IndexError)) as caught:
            check_of(notebook, n)(*(answer if isinstance(answer, tuple) else (answer,)))
        said = str(caught.value)
        assert caught.type is not WrongAnswer or "breaks out of" in said or \
            all(word in said for word in ("given", "your answer", "expected"))


@functools.cache
def unfolded(notebook):
    """The functions in the code that a notebook's prose shows, as syntax trees."""
    prose = "\n".join(cell.source for cell in read(PLACE[notebook]).cells)
    blocks = re.findall(r"<summary>Solution</summary>\n+```python\n(.*?)```", prose, re.DOTALL)
    return [ast.dump(node) for block in blocks for node in ast.parse(block).body]


@ROWS
def test_the_folded_solution_is_the_tested_one(notebook, n, names, wrong):
    """The solution that a reader unfolds must be the one that is tested."""
    for name in names:
        tested = ast.parse(inspect.getsource(solution(notebook, name))).body[0]
        assert ast.dump(tested) in unfolded(notebook), name


@pytest.mark.parametrize("notebook", MODULE)
def test_no_later_cell_needs_an_answer(notebook):
    """Run all must not depend on what the reader wrote."""
    names = set(stubs(notebook))
    for cell in read(PLACE[notebook]).cells:
        if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", []):
            lines = [line for line in cell.source.splitlines() if not line.lstrip().startswith(("%", "!"))]
            used = {node.id for node in ast.walk(ast.parse("\n".join(lines))) if isinstance(node, ast.Name)}
            assert not used & names, cell.id


def test_expect_names_input_result_and_expectation():
    """A message without these does not help anybody."""
    with pytest.raises(WrongAnswer, match=r"(?s)sum.*\[1, 2\].*4.*3"):
        expect("sum", [1, 2], 4, 3)
    expect("tensor", None, torch.tensor([1.0]), torch.tensor([1.0 + 1e-6]), 1e-5)
    with pytest.raises(WrongAnswer):
        expect("shape", None, torch.ones(2), torch.ones(3), 1.0)
    with pytest.raises(WrongAnswer):
        expect("a word for a number", None, "three", torch.tensor(3.0), 1.0)
