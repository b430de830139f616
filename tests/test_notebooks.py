"""The committed notebooks: their outputs belong to their code, they keep to the rules, and they run."""

import io
import os
import shutil

import pytest
from conftest import NO_TEXT, ROOT

from lab.notebook import check, check_pictures, read
from lab.project import notebooks
from lab.run import execute

ALL = notebooks()
LEFT_OUT = (".git", ".venv", "build", "__pycache__", ".pytest_cache", ".ruff_cache", "node_modules")


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


@pytest.mark.parametrize(("path", "text"), RUNS, ids=lambda value: getattr(value, "stem", value))
def test_notebook_runs_in_quick_mode(path, text, copy, tmp_path):
    """Catches a notebook that no longer runs from start to end, and a QUICK mode that is not quick."""
    if text == "real" and NO_TEXT:
        pytest.skip(NO_TEXT)
    data = os.environ.get("GPT2_DATA", str(ROOT / "data" / "input.txt")) if text == "real" else None
    out = tmp_path / path.name
    where = copy / path.relative_to(ROOT)
    run = execute(where, out, quick=True, timeout=240, stream=io.StringIO(), root=copy, env={"GPT2_DATA": data})
    assert run["quick"] and run["seconds"] < 300
    assert not run["corpus"] or (run["corpus"]["name"] == "standin") == (text == "standin")
    assert list(check_pictures(read(out))) == []
