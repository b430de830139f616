"""The house: one address, one test command, pins, what `make` makes, the machine report, results."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import ROOT
from packaging.requirements import Requirement

from data import files
from lab import bootstrap, machine, notebook, project, readme, setup, walkthrough


def tracked(*patterns):
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs the project as a git clone")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


# --- one place for each thing ---


def test_badges_and_readme_agree_with_their_sources():
    """Catches an address, a minute or a ladder that was changed in its one place and not carried over."""
    assert [path.name for path, _ in readme.stale()] == [], "run `make readme`"


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_readme_has_every_generated_block():
    """Catches a lost mark: its table would silently stay what it was for ever."""
    for name in readme.BLOCKS:
        found = [[page(file).count(mark) for mark in (f"<!-- {name} -->", f"<!-- /{name} -->")]
                 for file in readme.PAGES]
        assert [1, 1] in found and all(pair in ([0, 0], [1, 1]) for pair in found), name


@pytest.mark.parametrize("address", ["", "https://github.com/somebody/else"])
def test_the_web_is_linked_where_there_is_an_address(address, monkeypatch):
    """Catches dead badges and links of an address that nobody owns, ones that stay away for ever, and a
    set-up cell without the address.
    """
    known = {"repository": address, "space": "https://a.example" if address else ""}
    for module in (readme, notebook):
        monkeypatch.setattr(module, "address", lambda what="repository": known[what])
    text = readme.filled(page("README.md"))
    links = {"colab.research.google.com": 3, f"git clone {address}\ncd else": 1,
             "(https://a.example?duplicate=true)": 1}
    for link, n in links.items():
        assert text.count(link) == (n if address else 0), link
    assert ("Nobody has published a page yet" in text) == (not address)
    nb = notebook.fill_standard_parts(notebook.read(ROOT / "gpt_dev.ipynb"), "gpt_dev.ipynb")
    top, setup_cell = (cell.source for cell in nb.cells[:2])
    assert ("Open in Kaggle" in top) == bool(address) and f'or "{address}"' in setup_cell


@pytest.mark.parametrize("origin, address", [
    ("https://user:pass@github.com/me/my.fork.git", "https://github.com/me/my.fork"),
    ("git@github.com:me/fork.git", "https://github.com/me/fork"),
    ("https://github.com/me/fork/", "https://github.com/me/fork"), ("/srv/git/here", ""), (None, "")])
def test_a_fork_takes_its_own_address(origin, address, tmp_path, monkeypatch):
    """Catches a fork whose badges open the original, and a token of the remote that is written into files."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if origin:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", origin], check=True)
    assert project.remote(tmp_path) == address
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "remote", lambda: project.remote(tmp_path))
    monkeypatch.setattr(readme, "address", lambda: files.address(root=tmp_path))
    readme.adopt_remote()
    assert files.address(root=tmp_path) == (address or files.address())


def test_workflows_are_pinned_and_keep_no_credentials():
    """Catches an action that its owner, or a thief, can change under us, and a token left in the checkout."""
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert len(files) == 2
    for file in files:
        text = file.read_text(encoding="utf-8")
        uses = re.findall(r"uses: (\S+)", text)
        assert uses and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in uses), file.name
        assert text.count("actions/checkout@") == text.count("persist-credentials: false"), file.name
        assert "permissions:\n  contents: read\n" in text, file.name


def test_ci_runs_the_readme_s_own_command():
    """Catches a CI that tests something else than what the README tells people to type."""
    fenced = re.findall(r"^```\n(.*?)^```", page("README.md"), re.MULTILINE | re.DOTALL)
    assert any("make run\nmake test\n" in block for block in fenced)
    command = page(".ci/run").split("# the command of the README")[1].split("if [")[0]
    assert "README.md" in command and "pytest " not in command


def test_make_knows_every_command_of_the_pages():
    """Catches a renamed target: `make x` in the README or on the map must exist in the Makefile."""
    text = page("README.md") + page("ARCHITECTURE.md")
    named = set(re.findall(r"(?:^|`)(?:QUICK=1 )?make ([a-z]+)\b", text, re.MULTILINE))
    assert {"run", "test"} <= named <= set(re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE))


def test_readme_links_lead_somewhere():
    """Catches a link or picture in a README whose file was renamed or never committed."""
    for file in tracked("*.md"):
        text = file.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"<img[^>]*src=\"([^\"]+)", text):
            if "{" not in target and not re.match(r"[a-z]+:", target):
                assert (file.parent / target).exists(), f"{file.relative_to(ROOT)}: {target}"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_without_a_python_is_one_sentence():
    """Catches a shell error where a person without Python needs a sentence."""
    done = subprocess.run(["make", "-s", "run", "PYTHON="], cwd=ROOT, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0 and len(said) == 1 and "Python 3.11 or newer was not found" in said[0]


def test_ranges_hold_the_pins():
    """Catches a pin that our own ranges forbid: the notebooks would reinstall what `make` installed."""
    pins = dict(pin.split("==") for pin in bootstrap.pins())
    for need in map(Requirement, project.requirements(["train", "ship"])):
        assert need.specifier.contains(pins[need.name]), need


def test_nothing_of_others_and_no_secret_is_tracked():
    """Catches a committed corpus, BPE file, token, or a path of the machine that it was written on."""
    for path in tracked():
        assert path.name != "input.txt" and path.suffix not in {".tiktoken", ".pt"}, path
        if path.suffix in {".py", ".md", ".json", ".toml", ".yml", ".html", ".js", ".txt", ".ipynb", ""}:
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not re.search(r"hf_[A-Za-z0-9]{30,}", text), path
            if path != Path(__file__).resolve() and path.name != "run":
                assert "../shared" not in text and "/work/" + "main" not in text, path
            if path.suffix in {".json", ".ipynb", ".txt"}:
                assert "First Citizen:\\nBefore we proceed any further, hear me" not in text, path


# --- what make makes first ---


@pytest.mark.parametrize("nvidia", [False, True])
def test_packages_are_installed_when_they_must_be_and_not_again(nvidia, tmp_path, monkeypatch):
    """Catches a stamp that never matches, that always does, or is written too early; torch after the others,
    or not at all because PyTorch's own index was half reachable.
    """
    done, broken = [], [True]

    def install(what, packages, *options):
        done.append((packages[0], bootstrap.CPU_WHEELS in options))
        if options or broken:
            raise bootstrap.SetupError("no")

    for name, path in (("VENV", ""), ("PYTHON", "python"), ("STAMP", "installed"), ("LOG", "install.log")):
        monkeypatch.setattr(bootstrap, name, tmp_path / path)
    (tmp_path / "python").touch()
    for name, answer in (("usable", True), ("has_nvidia", nvidia)):
        monkeypatch.setattr(bootstrap, name, lambda answer=answer: answer)
    monkeypatch.setattr(bootstrap, "install", install)
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    torch = bootstrap.pins()[0]
    with pytest.raises(bootstrap.SetupError):
        bootstrap.make_environment()
    broken.clear()
    done.clear()
    bootstrap.make_environment()
    first_tries = [] if nvidia else [(torch, True)]
    assert done == [*first_tries, (torch, False), (torch, False)] and torch.startswith("torch==")
    done.clear()
    bootstrap.make_environment()
    assert done == [], "a second `make` goes to no index"
    monkeypatch.setattr(bootstrap, "pins", lambda: ["torch==0.0.1"])
    bootstrap.make_environment()
    assert done[-1] == ("torch==0.0.1", False), "a changed pin is installed"


@pytest.mark.parametrize("text, says", [
    ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left", "The disk is full"),
    ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'", "index cannot be reached"),
    ("WARNING: 'NameResolutionError()'\nERROR: No matching distribution found for torch==9", "be reached"),
    ("ERROR: No matching distribution found for torch==2.13.0", "pip finds no torch==2.13.0 for Python"),
    ("ERROR: something new", "failed: something new"), ("", "failed")])
def test_pip_s_trouble_becomes_one_sentence(text, says):
    """Catches a wall of pip's output where a person needs to know what to do."""
    sentence = bootstrap.explain(text, "torch")
    assert says in sentence and "\n" not in sentence


def test_unreachable_index_for_real(tmp_path, monkeypatch, capsys):
    """Catches a change in pip's words: the real pip, sent to where nobody listens, is one sentence."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    settings = {"CONFIG_FILE": os.devnull, "INDEX_URL": "http://127.0.0.1:9/", "RETRIES": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setattr(bootstrap, "PYTHON", sys.executable)
    monkeypatch.setattr(bootstrap, "LOG", tmp_path / "log")
    with pytest.raises(bootstrap.SetupError, match="^The package index cannot be reached"):
        bootstrap.install("x", ["no-such-package-here==1"])
    assert capsys.readouterr().out == "  x\n" and (tmp_path / "log").read_text()


# --- machine and results ---


TABLE = {"gpt_dev": {"CPU": {"seconds": 540, "cores": 2, "machine": {"cpu": "Fast"}},
                     "Tesla T4": {"seconds": 61}}}
ELSEWHERE = "not yet measured here (about 9 minutes on 2 cores of Fast)"


@pytest.mark.parametrize("gpu, cores, cpu, says", [
    (None, 2, "Fast", "about 9 minutes"), ("Tesla T4", 2, "Fast", "about 1 minute"),
    (None, 64, "Fast", ELSEWHERE), (None, 2, "Slow", ELSEWHERE), ("Other", 2, "Fast", ELSEWHERE)])
def test_minutes_are_only_promised_where_measured(gpu, cores, cpu, says, monkeypatch):
    """Catches a time measured on one machine and promised on another: card, cores, processor."""
    monkeypatch.delenv("QUICK", raising=False)
    here = {"gpu": gpu, "cores": cores, "cpu": cpu}
    assert setup.minutes_sentence("gpt_dev", here, TABLE) == says
    assert setup.minutes_sentence("other", here, TABLE) == "not yet measured"


@pytest.mark.parametrize("have, need, met", [
    ("5.50.0", "gradio>=6", False), ("2.4.0", "huggingface_hub>=1.27,<3", True),
    ("3.0.0", "huggingface_hub>=1.27,<3", False), ("1.9.1", "huggingface_hub>=1.27,<3", False),
    ("2.14.0a0+git1", "torch>=2.10", True), (None, "torchinfo>=1.8", False)])
def test_what_counts_as_missing(have, need, met, monkeypatch):
    """Catches versions compared as text ("1.9" > "1.27"), and Kaggle's old gradio taken for good."""
    monkeypatch.setattr(setup, "version_of", lambda name: have)
    assert setup.is_met(need) is met


def test_torch_is_never_installed_by_the_notebooks(monkeypatch, capsys):
    """Catches a set-up cell that replaces Colab's torch, or the Hub's client under an old transformers."""
    asked = []
    monkeypatch.setattr(setup, "version_of", lambda name: None if name == "torchinfo" else "0.1")
    monkeypatch.setattr(setup.subprocess, "run",
                        lambda command, **_: asked.extend(command) or subprocess.CompletedProcess(command, 0))
    setup.install_missing(["ship"])
    assert any(word.startswith("torchinfo") for word in asked) and "transformers" in asked
    assert not any(re.match(r"torch\W", word) for word in asked)
    said = capsys.readouterr().out
    assert "PyTorch here is 0.1" in said and "Installing" in said and "torchinfo" in said


def test_what_pip_replaced_is_said(capsys):
    """Catches Kaggle's Hub client lifted in silence, and a package that stays old until the kernel is new."""
    before = {"gradio": "5.50.0", "huggingface_hub": "0.36.0", "pytest": "1", "numpy": "2.1"}
    new = {"gradio": "6.24.0", "huggingface_hub": "1.27", "pytest": "2", "groovy": "1"}
    setup.say_what_changed(before, {**before, **new})
    said = capsys.readouterr().out
    assert "gradio 5.50.0 -> 6.24.0, groovy 1, huggingface_hub 0.36.0 -> 1.27" in said and "numpy" not in said
    assert "pytest was in use already: restart the kernel" in said


def test_result_is_whole_and_complete(tmp_path):
    """Catches a results file without its machine, date, commit or text, and a half-written one."""
    path = tmp_path / "deep" / "r.json"
    corpus = SimpleNamespace(name="standin", sha256="ab")
    written = machine.write_result(path, {"lr": 0.1}, corpus, val_loss=1.5, seconds=2.0)
    assert json.loads(path.read_text()) == json.loads(json.dumps(written))
    assert {"machine", "date", "commit", "command", "config", "corpus", "val_loss", "seconds"} <= set(written)
    assert written["machine"]["cores"] >= 1 and written["machine"]["torch"]
    assert written["config"] == {"lr": 0.1}
    with pytest.raises(TypeError):
        machine.write_result(path, {"lr": object()}, corpus)
    assert json.loads(path.read_text())["val_loss"] == 1.5, "what cannot be written keeps the old file"
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


# --- make run ---


def fake_run(tmp_path, monkeypatch, error=None):
    """The walkthrough of one notebook with nothing really executed; an old sample lies in build/."""
    rungs = [{"name": "bigram", "val_loss": 2.4821, "mark": "2 letters", "seconds": 1.0},
             {"name": "odd", "val_loss": 2}]

    def execute(path, out):
        if error:
            raise error
        (tmp_path / "ladder.json").write_text(json.dumps({"rungs": rungs}))
        assert not (tmp_path / "sample.txt").exists()
        (tmp_path / "sample.txt").write_text("NEW")
        return {"seconds": 60, "peak_mb": 5, "corpus": {"name": "standin", "sha256": "a"}, "quick": True}

    (tmp_path / "sample.txt").write_text("OLD")
    monkeypatch.setattr(walkthrough, "BUILD", tmp_path)
    monkeypatch.setattr(walkthrough, "execute", execute)
    monkeypatch.setattr(walkthrough.book, "build", lambda out, executed: Path("/book/index.html"))
    return walkthrough.main([str(tmp_path / "demo.ipynb")])


def test_walkthrough_ends_with_ladder_and_book_of_this_run(tmp_path, monkeypatch, capsys):
    """Catches old numbers printed under a new run, and a run that does not say where its book lies."""
    assert fake_run(tmp_path, monkeypatch) == 0
    said = capsys.readouterr().out
    assert "| bigram | 2.482 | 2 letters |" in said and "| odd |" in said
    assert "NEW" in said and "OLD" not in said
    assert said.rstrip().endswith("file:///book/index.html") and "QUICK budgets" in said and "standin" in said


@pytest.mark.parametrize("error", [notebook.NotebookError("x stopped"), OSError(28, "No space"),
                                   KeyboardInterrupt()])
def test_walkthrough_ends_in_status_1_and_a_sentence(error, tmp_path, monkeypatch, capsys):
    """Catches a `make run` that exits 0 after a failed notebook, or that says why in a traceback."""
    assert fake_run(tmp_path, monkeypatch, error) == 1
    said = capsys.readouterr().err.strip()
    assert any(words in said for words in ("x stopped", "The disk is full", "Stopped.")) and "\n" not in said


@pytest.mark.parametrize("name", ["x`touch pwned`.txt", 'a"b.txt', "$HOME.txt", "$(shell touch pwned).txt"])
def test_a_file_name_is_no_command(name, tmp_path):
    """Catches `make page` pasting what a reader's file is called into the shell."""
    (python := tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@" >> told\n')
    python.chmod(0o755)
    command = ["make", "-f", str(ROOT / "Makefile"), "-o", "env", "page", f"TEXT={name}", f"PY={python}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert name in (tmp_path / "told").read_text().splitlines()
    assert not (tmp_path / "pwned").exists()
