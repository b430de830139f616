"""The exercises of the notebooks: every solution passes, every stub is not tried, a wrong answer raises."""

import ast
import importlib
import inspect
import io
import math
import os
import re

import pytest
import torch
from conftest import ROOT

from lab.checks import WrongAnswer, check, expect
from lab.notebook import read, write
from lab.run import execute

# the notebook's exercises in order: its check, and the functions that the reader writes
EXERCISES = {"gpt_dev": (["never_seen"], ["surprise_add_k"], ["predict_first_loss"], ["self_and_two_before"],
                         ["one_head_by_me", "variance"], ["is_order_blind"], ["leaks"], ["heads_without_a_loop"],
                         ["diagnosis"], ["block_parameters"], ["top_p"])}
CASES = [(notebook, n, names) for notebook, exercises in EXERCISES.items() for n, names in enumerate(exercises)]

WRONG = [lambda alphabet, text: sorted(set(text)), lambda count, total, k, V: -math.log((count + k) / (total + k)),
         lambda scale: scale**2 / 2, lambda T: torch.ones(T, T, dtype=torch.bool).tril(),
         (lambda x, wq, wk, wv: ((x @ wq) @ (x @ wk).mT).softmax(-1) @ (x @ wv), lambda hs: 1.0),
         lambda model, idx: True, lambda mask: mask.triu(2).any().item(), lambda q, k, v, nh: q,
         lambda: {"A": "init", "B": "leak", "C": "scale"},
         lambda C: 12 * C * C, lambda probs, p: probs]


def check_of(notebook, n):
    return getattr(importlib.import_module({"gpt_dev": "lab.exercises_dev"}[notebook]), f"check_{n}")


def solutions(notebook):
    spec = importlib.util.spec_from_file_location(f"solutions_{notebook}", ROOT / f"notebooks/solutions/{notebook}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stubs(notebook):
    """The functions that raise NotImplementedError in the notebook, by name, compiled from its own cells."""
    found = {}
    for cell in read(ROOT / f"{notebook}.ipynb").cells:
        if cell.cell_type == "code" and "exercise" in cell.metadata.get("tags", []):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.FunctionDef):
                    exec(compile(ast.Module([node], []), cell.id, "exec"), {"torch": torch}, found)
    return found


@pytest.mark.parametrize("notebook, n, names", CASES)
def test_solution_passes(notebook, n, names, capsys):
    """A check that refuses the right answer, or a solution that is wrong."""
    module = solutions(notebook)
    assert check_of(notebook, n)(*(getattr(module, name) for name in names), strict=True)
    assert "right!" in capsys.readouterr().out


@pytest.mark.parametrize("notebook, n, names", CASES)
def test_stub_is_not_tried(notebook, n, names, capsys):
    """A stub that passes, or that stops Run all."""
    mine = [function for name, function in stubs(notebook).items() if name in names]
    assert len(mine) == len(names)
    assert check_of(notebook, n)(*mine) is False
    assert "not tried yet" in capsys.readouterr().out
    with pytest.raises(NotImplementedError):
        check_of(notebook, n)(*mine, strict=True)


@pytest.mark.parametrize("notebook, n, names", CASES)
def test_wrong_answer_raises(notebook, n, names):
    """A check that cannot fail teaches nothing."""
    wrong = WRONG[n] if isinstance(WRONG[n], tuple) else (WRONG[n],)
    with pytest.raises(WrongAnswer) as caught:
        check_of(notebook, n)(*wrong)
    assert all(word in str(caught.value) for word in ("given", "your answer", "expected"))


def test_the_folded_solutions_are_the_solutions():
    """The solution that a reader unfolds must be the one that is tested."""
    module = solutions("gpt_dev")
    prose = "\n".join(cell.source for cell in read(ROOT / "gpt_dev.ipynb").cells if cell.cell_type == "markdown")
    for names in EXERCISES["gpt_dev"]:
        for name in names:
            assert inspect.getsource(getattr(module, name)).strip() in prose, name


def with_solutions(nb):
    """The notebook as a reader leaves it who pastes every folded solution over its stub. Returns how many."""
    pasted, solution = 0, None
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"<summary>Solution</summary>\n\n```python\n(.*?)```", cell.source, re.DOTALL)
            solution = found[-1] if found else solution
        elif "exercise" in cell.metadata.get("tags", []):
            stubs = [node for node in ast.parse(cell.source).body if isinstance(node, ast.FunctionDef)]
            lines = cell.source.splitlines()
            for node in reversed(stubs):
                del lines[node.lineno - 1:node.end_lineno]
            cell.source = solution + "\n" + "\n".join(lines)
            pasted += 1
    return pasted


def test_every_pasted_solution_leaves_the_notebook_running(tmp_path):
    """A solution that overwrites a name which a later cell needs: `one_head` once replaced the trained model."""
    nb = read(ROOT / "gpt_dev.ipynb")
    assert with_solutions(nb) == len(EXERCISES["gpt_dev"])
    write(nb, tmp_path / "gpt_dev.ipynb")
    execute(tmp_path / "gpt_dev.ipynb", tmp_path / "out.ipynb", quick=True, timeout=600, stream=io.StringIO(),
            root=ROOT, env={"GPT2_DATA": os.environ.get("GPT2_DATA")})
    printed = "".join(output.get("text", "") for cell in read(tmp_path / "out.ipynb").cells
                      for output in cell.get("outputs", []))
    assert printed.count("right!") == len(EXERCISES["gpt_dev"])


def test_no_later_cell_needs_an_answer():
    """Run all must not depend on what the reader wrote."""
    nb = read(ROOT / "gpt_dev.ipynb")
    names = set(stubs("gpt_dev"))
    for cell in nb.cells:
        if cell.cell_type == "code" and "exercise" not in cell.metadata.get("tags", []):
            used = {node.id for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)}
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


def test_strict_check_raises_on_a_stub():
    """Tests would pass over an untouched stub otherwise."""
    def stub():
        raise NotImplementedError

    assert check("x", stub) is False
    with pytest.raises(NotImplementedError):
        check("x", stub, strict=True)
