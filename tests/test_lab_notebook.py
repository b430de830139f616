"""lab.notebook, lab.codehash, lab.execute, lab.page: notebooks as text, their hash, their run, their page."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lab import walkthrough
from lab.codehash import code_hash
from lab.execute import execute
from lab.notebook import NotebookError, badge_lines, check, from_text, main, read, setup_cell, to_text, words, write
from lab.page import export_html

ROOT = Path(__file__).resolve().parents[1]
TEXT = """\
# %% [markdown] id=top
# A title

Some *words*, and `code`.

<!-- badges -->
<!-- /badges -->

# %% [code] id=setup tags=folded

# %% [markdown] id=one
## 1 · One

- a list
  - deeper

```python
not = "a word"
```

# %% [code] id=answer tags=folded,exercise
# why it is so
def f(x):
    \"\"\"A docstring.\"\"\"

    return x + 1


f(1)
"""


def demo(code="1 + 1", extra=""):
    """A notebook with the standard parts and one cell of code."""
    head = TEXT.split("# %% [code] id=answer")[0]
    return from_text(f"{head}# %% [code] id=answer\n{code}\n{extra}", "demo.ipynb")


def ran(tmp_path, code, extra="", **options):
    """The demo notebook after a run, and what the run printed."""
    path = tmp_path / "demo.ipynb"
    write(demo(code, extra), path)
    stream = io.StringIO()
    execute(path, path, stream=stream, **options)
    return read(path), stream.getvalue()


# --- text form ---


def test_text_and_notebook_are_the_same_thing(tmp_path):
    """Catches an edit by script that loses a blank line, an indent, a tag or an id on the way."""
    nb = from_text(TEXT, "demo.ipynb")
    text = to_text(nb)
    assert to_text(from_text(text, "demo.ipynb")) == text
    assert [c.id for c in nb.cells] == ["top", "setup", "one", "answer"]
    assert text.split("# %% [code] id=answer")[1] == TEXT.split("# %% [code] id=answer")[1]
    write(nb, tmp_path / "a.ipynb")
    first = (tmp_path / "a.ipynb").read_bytes()
    write(from_text(text, "demo.ipynb"), tmp_path / "a.ipynb")
    assert (tmp_path / "a.ipynb").read_bytes() == first


def test_build_fills_in_the_standard_parts():
    """Catches a notebook without badges or with an own set-up cell, and folding that one of the three sites ignores."""
    nb = from_text(TEXT, "demo.ipynb")
    assert nb.cells[1].source == setup_cell("demo") and badge_lines("demo.ipynb") in nb.cells[0].source
    assert nb.cells[1].metadata["jupyter"]["source_hidden"] and nb.cells[1].metadata["cellView"] == "form"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# %% [code] id=a\n1\n# %% [code] id=a\n2", "used twice: a"),
        ("# %% [code]\n1", "line 1"),
        ("x = 1\n# %% [code] id=a\n", "before the first cell"),
        ("# %% [code] id=a tag=b\n", "line 1"),
    ],
)
def test_bad_text_says_where(text, says):
    """Catches a typing error in a cell line that would turn it, silently, into a line of the cell before."""
    with pytest.raises(NotebookError, match=says):
        from_text(text)


def test_commands_name_a_bad_file_in_one_sentence(tmp_path, capsys):
    """Catches a traceback for a missing or broken file."""
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    for path in (tmp_path / "none.ipynb", broken):
        assert main(["text", str(path)]) == 1
        said = capsys.readouterr().err
        assert path.name in said and len(said.splitlines()) == 1


# --- hash of the code ---

# one of each kind of syntax whose tree has changed between versions of Python
SYNTAX = '''
import os, re as r
from math import *
async def g(a, /, b: int = 1, *c, d=None, **e) -> "x":
    """doc"""
    async with a as b, c: pass
    return [await i async for i in b if i]
@g
class A(B, metaclass=C):
    """doc"""
    x: int = 1
    def m(self): return f"{self.x!r:>{10}} {a=} {'q'}" "tail" f"{b:%Y}"
match x:
    case {"a": [1, *_], **rest} if rest: y = x[1:2, ..., ::3]
    case A(x=None) | 1.5e300 | -2j: pass
try: (z := lambda *a, k=1: {**a, 'b': b"1"})
except (E, F) as e: raise G from e
else: del q[0]
finally: global_ = u"u" + """t"""; print(*a, sep="")
t = not a < b <= c is not None and ~d @ e // f
'''
HASH = "c45d6aee29e3c286"


def code_only(*sources):
    return {"cells": [{"cell_type": "code", "id": f"c{i}", "source": s} for i, s in enumerate(sources)]}


def test_hash_is_the_same_on_every_python():
    """Catches a hash that depends on the version of Python: Colab's, Kaggle's and CI's would disagree."""
    assert code_hash(code_only(SYNTAX)) == HASH


@pytest.fixture
def project(tmp_path):
    """A small project: model_gpt2 <- data.text <- lab.tools, and a script."""
    for name, text in {
        "model_gpt2.py": '"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    return x + 1  # why\n',
        "data/__init__.py": "",
        "data/text.py": "import model_gpt2\n",
        "lab/__init__.py": "",
        "lab/tools.py": "from data import text\n",
        "lab/other.py": "OTHER = 1\n",
        "lab/near.py": "from .other import OTHER\n",
        "train_gpt2.py": "STEPS = 1\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_prose_does_not_count(project):
    """Catches a run demanded for a mended comment, docstring, blank line or markdown cell."""
    nb = code_only("from lab.tools import text  # here", "def g():\n    return 1")
    before = code_hash(nb, project)
    (project / "model_gpt2.py").write_text('"""Other."""\ndef f(x):\n    "new"\n    # because\n    return (x + 1)\n')
    nb["cells"][0]["source"] = "from lab.tools import (\n    text,\n)"
    nb["cells"][1]["source"] = 'def g():\n    """New."""\n    return 1'
    nb["cells"].append({"cell_type": "markdown", "id": "m", "source": "words"})
    assert code_hash(nb, project) == before


@pytest.mark.parametrize("file", ["model_gpt2.py", "data/text.py", "lab/tools.py", "lab/__init__.py"])
def test_code_counts_through_every_import(project, file):
    """Catches a hash that looks at the first module only: a changed model would keep its old outputs."""
    nb = code_only("def late():\n    from lab import tools")
    before = code_hash(nb, project)
    with (project / file).open("a") as source:
        source.write("\nNEW = 1\n")
    assert code_hash(nb, project) != before


def test_relative_imports_and_scripts_count_and_others_do_not(project):
    """Catches a module reached by `from .x import` or `!python x.py` left out, and one that is not reached counted."""
    near, script = code_only("import lab.near"), code_only("x = 1\n!python train_gpt2.py --seed 1")
    before = code_hash(near, project), code_hash(script, project)
    (project / "lab" / "other.py").write_text("OTHER = 2\n")
    assert (code_hash(near, project) != before[0], code_hash(script, project) != before[1]) == (True, False)
    (project / "train_gpt2.py").write_text("STEPS = 2\n")
    assert code_hash(script, project) != before[1]


def test_small_changes_of_code_count():
    """Catches a dump that drops a field which matters: each of these must differ from the others."""
    variants = ["x = 1", "x = 1.0", "x = '1'", "x = True", "x = None", "x = -1", "x += 1", "y = 1", "x: int = 1"]
    variants += ["f(x)", "f(*x)", "f(**x)", "f(x=x)", "[x]", "(x,)", "{x}", "x[:1]", "x[1:]", "x[::1]", "x == 1"]
    variants += ["f'{x}'", "f'{x!r}'", "f'{x!s}'"]
    variants += ["!ls", "!ls -l", "%time x", "%%time\nx", "{**x, 'a': 1}", "{'a': 1, **x}", "f'{x:1}'", "f'{x}1'"]
    assert len({code_hash(code_only(source)) for source in variants}) == len(variants)


def test_moving_the_project_keeps_the_hash():
    """Catches outputs that go stale because the address of the repository changed."""
    nb = demo()
    before = code_hash(nb)
    nb.cells[1].source = nb.cells[1].source.replace("https://github.com/", "https://example.org/x")
    assert code_hash(nb) == before
    nb.cells[1].source += "\nprint(1)"
    assert code_hash(nb) != before


# --- run ---


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One good notebook after its run, and what the run printed."""
    code = "class corpus: name, sha256 = 'standin', 'ab'\nprint(os.environ.get('QUICK'), os.getcwd() == HOME)"
    picture = """
# %% [code] id=pic tags=folded
# a picture
from IPython.display import display
png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
display({"image/png": png}, raw=True, metadata={"image/png": {"alt": "one <dot>"}})
"""
    return ran(tmp_path_factory.mktemp("good"), code.replace("HOME", repr(str(ROOT))), picture)


def test_run_records_where_its_outputs_come_from(good):
    """Catches outputs without machine, date, commit, time, memory, text or hash; also a kernel in another folder."""
    nb, printed = good
    run = nb.metadata["walkthrough"]
    assert {"machine", "date", "commit", "seconds", "peak_mb", "corpus", "code_hash", "quick"} <= set(run)
    assert run["corpus"] == {"name": "standin", "sha256": "ab"} and run["code_hash"] == code_hash(nb)
    assert run["peak_mb"] > 20 and run["seconds"] > 0 and run["quick"] is False
    assert nb.cells[3].outputs[0].text == "None True\n"
    assert "1 · One" in printed


def test_good_notebook_passes_the_checks(good, tmp_path):
    """Catches checks so strict that no notebook can pass them."""
    assert list(check(good[0], "demo.ipynb")) == []


def edited(nb, change):
    nb = nbformat.from_dict(nb)
    nb = nbformat.reads(nbformat.writes(nb), as_version=4)
    change(nb)
    return nb


def set_source(index, source):
    return lambda nb: nb.cells[index].update(source=source)


FAULTS = {
    "the code has changed": set_source(3, "print(2)"),
    "not the standard set-up cell": set_source(1, "print(1)"),
    "lacks the badges": set_source(0, "# A title"),
    "words, at most": set_source(2, "word " * 4001),
    "cells, at most": lambda nb: nb.cells.extend([nbformat.v4.new_markdown_cell("x") for _ in range(60)]),
    "has 36 lines": set_source(3, "x = 1\n" * 35 + "x"),
    "not from one run in order": lambda nb: nb.cells[3].update(execution_count=9),
    "from a QUICK run": lambda nb: nb.metadata["walkthrough"].update(quick=True),
    "ended in ValueError": lambda nb: nb.cells[3].outputs.append(
        nbformat.v4.new_output("error", ename="ValueError", evalue="x", traceback=[])
    ),
    "printed a warning": lambda nb: nb.cells[3].outputs.append(
        nbformat.v4.new_output("stream", name="stderr", text="UserWarning: x")
    ),
    "shows a path": lambda nb: nb.cells[3].outputs.append(
        nbformat.v4.new_output("stream", name="stdout", text="/root/x")
    ),
    "shows a picture without alt text": lambda nb: nb.cells[4].outputs[0].update(metadata={}),
    "has a picture without alt text": set_source(2, "![](results/ladder.png)"),
    "loads something from outside": set_source(2, "![a ladder](https://example.org/ladder.png)"),
}


@pytest.mark.parametrize("says", FAULTS)
def test_every_check_can_fail(good, says):
    """Catches a check of the committed notebooks that passes whatever they hold."""
    assert any(says in problem for problem in check(edited(good[0], FAULTS[says]), "demo.ipynb"))


def test_main_notebooks_show_the_real_text(good):
    """Catches outputs of the stand-in, from a machine without network, committed as the walkthrough's."""
    assert any("stand-in" in problem for problem in check(good[0], "gpt_dev.ipynb"))


def test_words_counts_prose_only():
    """Catches a word limit that counts code, tags or addresses."""
    nb = nbformat.v4.new_notebook()
    text = "two words [three](http://a.b/c-d) <b>four</b>\n\n```\nnot these\n```\n"
    nb.cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("not this")]
    assert words(nb) == 4


def test_a_broken_cell_is_named_in_plain_words(tmp_path):
    """Catches a run that dies in a traceback of nbclient, and one that puts the broken outputs over the good ones."""
    path, out = tmp_path / "demo.ipynb", tmp_path / "out.ipynb"
    write(demo("x = 1\nassert x == 2, 'two was expected'"), path)
    before = path.read_bytes()
    with pytest.raises(NotebookError) as caught:
        execute(path, path, stream=io.StringIO())
    message = str(caught.value)
    assert "demo.ipynb stopped in cell 4 of 4 (answer, in '1 · One'): AssertionError: two was expected" in message
    assert "assert x == 2" in message and "\x1b" not in message and len(message.splitlines()) == 2
    assert path.read_bytes() == before
    with pytest.raises(NotebookError):
        execute(path, out, stream=io.StringIO())
    assert read(out).cells[3].outputs[0].output_type == "error"


def test_a_cell_that_never_ends_is_stopped(tmp_path):
    """Catches a run that hangs for ever in CI."""
    write(demo("import time\ntime.sleep(60)"), tmp_path / "demo.ipynb")
    with pytest.raises(NotebookError, match="longer than 1 seconds"):
        execute(tmp_path / "demo.ipynb", tmp_path / "out.ipynb", timeout=1, stream=io.StringIO())


def test_quick_reaches_the_kernel(tmp_path):
    """Catches QUICK=1 that is set for us and not for the notebook."""
    nb, _ = ran(tmp_path, "import os\nprint(os.environ['QUICK'])", quick=True)
    assert nb.cells[3].outputs[0].text == "1\n" and nb.metadata["walkthrough"]["quick"] is True


def test_walkthrough_ends_in_status_1_at_a_broken_cell(tmp_path, monkeypatch, capsys):
    """Catches a `make run` that exits 0 after a failed notebook, or that says why in a traceback."""
    write(demo("1 / 0"), tmp_path / "demo.ipynb")
    monkeypatch.setattr(walkthrough, "BUILD", tmp_path / "build")
    assert walkthrough.main([str(tmp_path / "demo.ipynb")]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "Traceback" not in said
    assert "ZeroDivisionError" in (tmp_path / "build" / "demo.html").read_text(encoding="utf-8")


# --- the page ---


def test_page_needs_nothing_from_outside(good, tmp_path):
    """Catches a page that is blank without network, or that runs a script: MathJax, require.js, fonts, badges."""
    outside = "## 1\n\n![x](https://a.b/c.png) <img src='https://a.b/d.png'> <script>1</script>"
    nb = edited(good[0], set_source(2, outside))
    write(nb, tmp_path / "demo.ipynb")
    export_html(tmp_path / "demo.ipynb", tmp_path / "demo.html")
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|iframe)\b|@import|url\(|\ssrc=[\"']?http", page)
    assert set(re.findall(r"<img[^>]*src=\"([a-z]+:)", page)) <= {"data:"}


def test_page_folds_and_describes(good, tmp_path):
    """Catches a page that shows the set-up code to everybody, hides a folded cell's picture, or drops its alt text."""
    write(good[0], tmp_path / "demo.ipynb")
    export_html(tmp_path / "demo.ipynb", tmp_path / "demo.html")
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    assert page.count("<details>") == 2
    assert "<summary>Set-up: find the project" in page and "<summary>a picture</summary>" in page
    assert 'alt="one &lt;dot&gt;"' in page.split("</details>")[-1]
    assert "<h2>1 · One</h2>" in page and "standin" in page.split("<footer>")[1]


def test_page_keeps_folded_solutions_and_links_to_pages(tmp_path):
    """Catches a solution in sight because its <details> came apart, and a link from a page to a raw notebook."""
    fold = "<details>\n<summary>Solution</summary>\n\n```python\nx = 1\n```\n\n</details>\n\n"
    write(demo(extra=f"\n# %% [markdown] id=fold\n{fold}[next](notebooks/road.ipynb)\n"), tmp_path / "demo.ipynb")
    export_html(tmp_path / "demo.ipynb", tmp_path / "demo.html")
    page = (tmp_path / "demo.html").read_text(encoding="utf-8")
    inside = page.split("<summary>Solution</summary>")[1].split("</details>")[0]
    assert 'class="highlight"' in inside and "<summary" not in inside
    assert 'href="road.html"' in page


# --- the set-up cell ---


def run_setup(folder, **env):
    code = setup_cell("gpt_dev") + "\nprint(os.getcwd())\n"
    command, env = [sys.executable, "-c", code], {**os.environ, "QUICK": "1", **env}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_setup_finds_the_project_from_a_folder_below():
    """Catches a side road in notebooks/ that clones the project into itself."""
    done = run_setup(ROOT / "tests", GPT2_REPO="/nowhere")
    assert done.returncode == 0, done.stderr
    first, where = done.stdout.splitlines()
    assert re.fullmatch(r".+: QUICK=1, small budgets, about a minute\.", first) and where == str(ROOT)


def test_setup_fetches_the_project(tmp_path):
    """Catches a notebook opened from a badge, alone in an empty folder, that cannot find its project."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the project as a git clone")
    done = run_setup(tmp_path, GPT2_REPO=str(ROOT))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "gpt2")
    again = run_setup(tmp_path, GPT2_REPO="/nowhere")
    assert again.stdout.splitlines()[-1] == str(tmp_path / "gpt2"), "the second run uses the first one's clone"


@pytest.mark.parametrize("address", ["/nowhere", "https://github.com/nobody/nothing"])
def test_setup_without_internet_is_one_sentence(tmp_path, address):
    """Catches git's own words, or a question for a password, where a reader needs to know what to switch on."""
    done = run_setup(tmp_path, GPT2_REPO=address)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 1 and said[0].endswith("turn on Internet in the notebook's settings.") and address in said[0]
