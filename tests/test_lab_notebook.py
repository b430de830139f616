"""lab.notebook, lab.lock, lab.run: the lock between code and outputs, the checks, a run, the set-up cell."""

import io
import os
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lab import notebook
from lab.lock import lock, what_changed
from lab.notebook import NotebookError, check, fill_standard_parts, read, setup_cell, words, write
from lab.run import execute


def demo(code="1 + 1", *more):
    """A notebook with the standard parts and some cells of code."""
    cells = [new_markdown_cell("# A title\n\n<!-- badges -->\n<!-- /badges -->", id="top"),
             new_code_cell(id="setup"), new_markdown_cell("## 1 · One\n\nSome words.", id="one"),
             *(new_code_cell(source, id=f"answer{i}") for i, source in enumerate((code, *more)))]
    return fill_standard_parts(new_notebook(cells=cells), "demo.ipynb")


@pytest.fixture(params=["", "https://example.org/a/b"])
def address(request, monkeypatch):
    """The project without an address, and with one."""
    monkeypatch.setattr(notebook, "address", lambda: request.param)
    return request.param


def test_the_standard_parts_follow_the_address(address):
    """Catches badges of an address that nobody has set, and a set-up cell without it."""
    nb = demo()
    assert nb.cells[1].source == setup_cell("demo") and f'or "{address}"' in nb.cells[1].source
    shown = [f"Open in {place}" in nb.cells[0].source for place in ("Colab", "Kaggle")]
    assert shown == [bool(address)] * 2


def test_a_bad_file_is_one_sentence(tmp_path):
    """Catches a traceback for a missing or broken file."""
    (tmp_path / "broken.ipynb").write_text("{")
    for name in ("none.ipynb", "broken.ipynb"):
        with pytest.raises(NotebookError, match=rf"{name} (does not exist|is not a notebook)"):
            read(tmp_path / name)


# ---- the lock


def test_prose_does_not_count_and_code_does(tmp_path):
    """Catches a run demanded for a mended comment or docstring, and a change that keeps its old outputs."""
    (tmp_path / "a.py").write_text('"""Doc."""\ndef f(x):\n    """Doc."""\n    return x + 1  # why\n')
    sources = "import a  # here", "%time x = 1\ndef g():\n    return 1", "!ls"
    nb = new_notebook(cells=[new_code_cell(source) for source in sources])
    nb.metadata["walkthrough"] = {"code": lock(nb, ["a.py"], tmp_path)}
    nb.cells[0].source, nb.cells[1].source = "import a", '%time x = 1\ndef g():\n    "New."\n    return (1)'
    (tmp_path / "a.py").write_text('"""Other."""\ndef f(x):\n    return (x + 1)\n')
    assert what_changed(nb, tmp_path) == []
    (tmp_path / "a.py").write_text("def f(x):\n    return x + 2\n")
    assert what_changed(nb, tmp_path) == ["a.py"]
    nb.cells[2].source = "!ls -l"
    assert what_changed(nb, tmp_path) == ["cells", "a.py"]
    (tmp_path / "a.py").unlink()
    assert what_changed(nb, tmp_path) == ["cells", "a.py"]
    assert what_changed(demo(), tmp_path) == ["cells"], "outputs of which nothing is known"


# ---- run


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One good notebook after its run in a folder with an awkward name, and what the run printed."""
    code = ("class corpus: name, sha256 = 'standin', 'ab'\n"
            "print([os.environ.get(name) for name in ('QUICK', 'HF_TOKEN', 'GPT2_HEADLESS')])\n"
            "print(os.getcwd() == HOME)\n"
            "import lab.claims, tqdm, sys\n"
            "for _ in tqdm.tqdm(range(2), leave=False): pass").replace("HOME", repr(str(ROOT)))
    picture = ("from IPython.display import display\n"
               f"png = {{'image/png': {PNG!r}}}\n"
               "display(png, raw=True, metadata={'image/png': {'alt': 'one <dot>'}})")
    folder = tmp_path_factory.mktemp("good") / "Bob's \"plays\" {x}"
    folder.mkdir()
    path, stream = folder / "demo.ipynb", io.StringIO()
    write(demo(code, picture), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "secret")
        patch.setenv("GPT2_DATA", str(folder / "Bob's play.txt"))
        execute(path, path, stream=stream)
    return read(path), stream.getvalue()


def test_run_records_where_its_outputs_come_from(good):
    """Catches outputs without their facts, an apostrophe that loses them, a token in a headless run."""
    nb, printed = good
    run = nb.metadata["walkthrough"]
    assert {"machine", "date", "commit", "seconds", "peak_mb", "corpus", "code", "quick"} <= set(run)
    assert run["corpus"] == {"name": "standin", "sha256": "ab"} and what_changed(nb) == []
    assert {"cells", "lab/claims.py", "lab/setup.py"} <= set(run["code"]) and "lab/run.py" not in run["code"]
    assert 20 < run["peak_mb"] < 10_000 and run["seconds"] > 0 and run["quick"] is False
    assert nb.cells[3].outputs[0].text == "[None, None, '1']\nTrue\n"
    assert len(nb.cells) == 5 and len(nb.cells[3].outputs) == 1 and "1 · One" in printed


def test_only_the_typed_word_lets_a_token_in(tmp_path, monkeypatch):
    """Catches `make run` that publishes because there is a token, and --publish that cannot."""
    from lab.run import kernel_environment

    monkeypatch.setenv("HF_TOKEN", "secret")
    rehearsal, real = (kernel_environment(False, publish, {}) for publish in (False, True))
    assert "secret" not in rehearsal.values() and rehearsal["GPT2_HEADLESS"] == "1"
    assert rehearsal["HF_TOKEN_PATH"] == os.devnull
    assert real["HF_TOKEN"] == "secret" and "GPT2_HEADLESS" not in real


def test_good_notebook_passes_the_checks(good):
    """Catches checks so strict that no notebook can pass them."""
    assert list(check(good[0], "demo.ipynb")) == []


def output(kind, **fields):
    return lambda nb: nb.cells[3].outputs.append(nbformat.v4.new_output(kind, **fields))


def set_source(index, source):
    return lambda nb: nb.cells[index].update(source=source)


FAULTS = {
    "the code has changed since the outputs were made (cells)": set_source(3, "print(2)"),
    "not the standard set-up cell": set_source(1, "print(1)"),
    "lacks the badges": set_source(0, "# A title"),
    "words, at most": set_source(2, "word " * 5001),
    "cells, at most": lambda nb: nb.cells.extend([new_markdown_cell("x") for _ in range(60)]),
    "has 36 lines": set_source(3, "x = 1\n" * 35 + "x"),
    "more than 120 columns": set_source(3, f"x = '{'y' * 120}'"),
    "not from one run in order": lambda nb: nb.cells[3].update(execution_count=9),
    "from a QUICK run": lambda nb: nb.metadata["walkthrough"].update(quick=True),
    "ended in ValueError": output("error", ename="ValueError", evalue="x", traceback=[]),
    "printed a warning": output("stream", name="stderr", text="UserWarning: x"),
    "shows a path": output("stream", name="stdout", text="/root/x"),
    "shows a picture without alt text": lambda nb: nb.cells[4].outputs[0].update(metadata={}),
    "has a picture without alt text": set_source(2, "![](results/ladder.png)"),
    "loads something from outside": set_source(2, "![a ladder](https://example.org/ladder.png)"),
}


@pytest.mark.parametrize("says", FAULTS)
def test_every_check_can_fail(good, says):
    """Catches a check of the committed notebooks that passes whatever they hold."""
    nb = nbformat.reads(nbformat.writes(good[0]), as_version=4)
    FAULTS[says](nb)
    assert any(says in problem for problem in check(nb, "demo.ipynb"))


def test_main_notebooks_show_the_real_text(good):
    """Catches outputs of the stand-in, from a machine without network, committed as the walkthrough's."""
    assert any("stand-in" in problem for problem in check(good[0], "gpt_dev.ipynb"))


def test_words_counts_prose_only():
    """Catches a word limit that counts code, tags or addresses."""
    text = "two words [three](http://a.b/c-d) <b>four</b>\n\n```\nnot these\n```\n"
    cells = [new_markdown_cell(text), new_code_cell("not this")]
    assert words(new_notebook(cells=cells)) == 4


def test_a_broken_cell_is_named_in_plain_words(tmp_path):
    """Catches a run that dies in nbclient's traceback, and one that puts broken outputs over good ones."""
    path, out = tmp_path / "demo.ipynb", tmp_path / "out.ipynb"
    write(demo("x = 1\nassert x == 2, 'two was expected'"), path)
    before = path.read_bytes()
    with pytest.raises(NotebookError) as caught:
        execute(path, out, stream=io.StringIO())
    message = str(caught.value)
    where = "demo.ipynb stopped in cell 4 of 4 (answer0, in '1 · One')"
    assert f"{where}: AssertionError: two was expected" in message
    assert "assert x == 2" in message and "\x1b" not in message and len(message.splitlines()) == 2
    assert read(out).cells[3].outputs[0].output_type == "error" and path.read_bytes() == before


def test_a_cell_that_never_ends_is_stopped(tmp_path):
    """Catches a run that hangs for ever, and one in place that loses the outputs of the last good run."""
    path = tmp_path / "demo.ipynb"
    write(demo("import time\ntime.sleep(60)"), path)
    before = path.read_bytes()
    with pytest.raises(NotebookError, match="longer than 5 seconds"):
        execute(path, path, timeout=5, stream=io.StringIO(), quick=True)
    assert path.read_bytes() == before


# ---- the set-up cell


def run_setup(folder, name="gpt_dev", **env):
    code = setup_cell(name) + "\nprint(os.getcwd(), repr(TEXT))\n"
    env = {**{k: v for k, v in os.environ.items() if k != "GPT2_REPO"}, "QUICK": "1", **env}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_setup_finds_the_project_from_a_folder_below():
    """Catches a side road in notebooks/ that clones the project into itself."""
    done = run_setup(ROOT / "tests", GPT2_REPO="/nowhere")
    assert done.returncode == 0, done.stderr
    first, where = done.stdout.splitlines()
    assert re.fullmatch(r".+: QUICK=1, small budgets, about a minute\.", first) and where == f"{ROOT} ''"


def test_setup_fetches_the_project(tmp_path):
    """Catches a notebook opened from a badge, alone in an empty folder, that cannot find its project."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the project as a git clone")
    command = ["git", "-C", str(ROOT), "show", "HEAD:lab/setup.py"]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("lab/setup.py is not committed yet")
    assert run_setup(tmp_path, GPT2_REPO=str(ROOT)).stdout.splitlines()[-1] == f"{tmp_path / 'gpt2'} ''"
    again = run_setup(tmp_path, GPT2_REPO="/nowhere")
    assert again.stdout.splitlines()[-1] == f"{tmp_path / 'gpt2'} ''", "the first run's clone is used again"


@pytest.mark.parametrize("repo, says", [
    ("/nowhere", r"could not be fetched from /nowhere: turn on Internet in the notebook's settings\.$"),
    ("https://me:pass@127.0.0.1:9/a/b", r"could not be fetched from https://127\.0\.0\.1:9/a/b: turn on"),
    ("", r"^The project has no address on the web yet: .*pyproject\.toml.*GPT2_REPO.*\.$")])
def test_setup_that_cannot_go_on_is_one_sentence(tmp_path, monkeypatch, repo, says):
    """Catches git's own words, a password on the screen, and an address that nobody owns."""
    monkeypatch.setattr(notebook, "address", lambda: "")
    done = run_setup(tmp_path, **({"GPT2_REPO": repo} if repo else {}))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 1 and re.search(says, said[0]), said
