"""The committed notebooks: their outputs belong to their code, they keep to the rules, and they run."""

import ast
import io
import os
import re
import shutil

import pytest
from conftest import NO_TEXT, ROOT

from lab.notebook import check, check_pictures, read, write
from lab.project import notebooks
from lab.run import execute

ALL = notebooks()
LEFT_OUT = (".git", ".venv", "build", "out", "runs", "__pycache__", ".pytest_cache", ".ruff_cache")


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_committed_notebook_is_whole(path):
    """Catches outputs older than the code, errors left in, cells out of order, pictures without alt text."""
    assert check(read(path), path) == []


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """A copy of the project to run in: a test must not replace what the reader has under build/."""
    folder = tmp_path_factory.mktemp("project") / "copy"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT, "input.txt"))
    return folder


def texts(path):
    """The first notebook runs on both texts; the others on the real one where it is at hand."""
    if path.stem == "standin_floor":  # it is about the stand-in, whatever is at hand
        return ["standin"]
    return ["real", "standin"] if path.stem == "gpt_dev" else ["standin" if NO_TEXT else "real"]


RUNS = [(path, text) for path in ALL for text in texts(path)]


def with_solutions(nb):
    """Leave a notebook as a reader does who pastes every folded solution over its stub; returns how many."""
    pasted, solution = 0, None
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"<summary>Solution</summary>\n\n```python\n(.*?)```", cell.source, re.DOTALL)
            solution = found[-1] if found else solution
        elif "exercise" in cell.metadata.get("tags", []):
            lines = cell.source.splitlines()
            for node in reversed(ast.parse(cell.source).body):
                if isinstance(node, ast.FunctionDef):
                    del lines[node.lineno - 1:node.end_lineno]
            cell.source = solution + "\n" + "\n".join(lines)
            pasted += 1
    return pasted


@pytest.mark.parametrize(("path", "text"), RUNS, ids=lambda value: getattr(value, "stem", value))
def test_notebook_runs_in_quick_mode(path, text, copy, tmp_path):
    """Catches a notebook that no longer runs from start to end, and a QUICK mode that is not quick.

    On the stand-in the first one runs with its solutions pasted in: one may overwrite what a later cell
    needs.
    """
    if text == "real" and NO_TEXT:
        pytest.skip(NO_TEXT)
    data = os.environ.get("GPT2_DATA", str(ROOT / "data" / "input.txt")) if text == "real" else None
    nb, where, out = read(path), copy / path.relative_to(ROOT), tmp_path / path.name
    pasted = with_solutions(nb) if (path.stem, text) == ("gpt_dev", "standin") else 0
    write(nb, where)
    env, quiet = {"GPT2_DATA": data}, io.StringIO()
    run = execute(where, out, quick=True, timeout=240, stream=quiet, root=copy, env=env)
    assert run["quick"] and run["seconds"] < 300
    assert not run["corpus"] or (run["corpus"]["name"] == "standin") == (text == "standin")
    assert list(check_pictures(read(out))) == []
    assert out.read_text(encoding="utf-8").count(": right!") == pasted
