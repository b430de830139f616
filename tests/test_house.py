"""The house: one address, one test command, pins, the environment that `make` builds, the machine report, results."""

import ast
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

from gpt2 import machine as machine_facts
from lab import bootstrap, machine, notebook, project, readme, setup, walkthrough


def tracked(*patterns):
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs the project as a git clone")
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


# --- one place for each thing ---


def test_badges_and_readme_agree_with_their_sources():
    """Catches an address, a measured minute or a ladder that was changed in its one place and not carried over."""
    assert [path.name for path, _ in readme.stale()] == [], "run `make readme`"


def page(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_readme_has_every_generated_block():
    """Catches a lost mark: its table would silently stay what it was for ever."""
    for name in readme.BLOCKS:
        found = [(text.count(f"<!-- {name} -->"), text.count(f"<!-- /{name} -->")) for text in map(page, readme.PAGES)]
        assert (1, 1) in found and set(found) <= {(0, 0), (1, 1)}, name


@pytest.mark.parametrize("address", ["", "https://github.com/somebody/else"])
def test_badges_are_shown_where_there_is_an_address(address, monkeypatch):
    """Catches dead badges of an address that nobody owns, and badges that stay away once there is one."""
    for module in (readme, notebook):
        monkeypatch.setattr(module, "address", lambda: address)
    text = readme.filled(page("README.md"))
    shown = (text.count("colab.research.google.com"), text.count(f"git clone {address}\ncd else"))
    assert shown == ((3, 1) if address else (0, 0))


def test_the_page_is_linked_where_somebody_published_it(monkeypatch):
    """Catches a dead link to a Space, and a README that does not say how to get one."""
    assert "python -m space.publish" in readme.page_block() or "duplicate=true" in readme.page_block()
    monkeypatch.setattr(readme, "settings", lambda: {"urls": {"space": "https://huggingface.co/spaces/me/app"}})
    assert "(https://huggingface.co/spaces/me/app?duplicate=true)" in readme.page_block()


def test_address_stands_in_one_place_only():
    """Catches a second home of the address, which the next move would forget."""
    for path in tracked("*.py", "*.md", "*.yml", "*.html", "Makefile", ".ci/run", "*.txt"):
        if project.address() and path.name != "README.md":
            assert project.address() not in path.read_text(encoding="utf-8"), path.relative_to(ROOT)


@pytest.mark.parametrize("origin, address", [
    ("https://user:pass@github.com/me/my.fork.git", "https://github.com/me/my.fork"),
    ("git@github.com:me/fork.git", "https://github.com/me/fork"), ("https://github.com/me/fork/", "https://github.com/me/fork"),
    ("/srv/git/here", ""), (None, "")])
def test_a_fork_takes_its_own_address(origin, address, tmp_path, monkeypatch):
    """Catches a fork whose badges open the original, and a token of the remote that is written into files."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if origin:
        subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", origin], check=True)
    assert project.remote(tmp_path) == address
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    monkeypatch.setattr(readme, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "remote", lambda: project.remote(tmp_path))
    monkeypatch.setattr(readme, "address", lambda: project.address(tmp_path))
    readme.adopt_remote()
    assert project.address(tmp_path) == address or project.address()


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
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    fenced = re.findall(r"^```\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    assert any("make run\nmake test\n" in block for block in fenced)
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md" in script and "pytest " not in script.split("# the command of the README")[1].split("if [")[0]


def test_make_knows_every_command_of_the_readme():
    """Catches a renamed target: `make x` in the README must exist in the Makefile."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`)(?:QUICK=1 )?make ([a-z]+)\b", readme, re.MULTILINE))  # not "make us" in a sample
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"run", "test"} <= named <= targets


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
    """Catches a pin that the project's own ranges forbid: the notebooks would then reinstall what `make` installed."""
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
                assert "First Citizen:\\nBefore we proceed any further, hear me speak.\\n\\nAll" not in text, path


def test_code_keeps_its_style():
    """Catches unused names, unsorted imports and lines over 120, in modules and notebooks alike: `make lint`."""
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_code_can_be_read_by_the_oldest_python():
    """Catches syntax that Python 3.11 does not know."""
    for path in tracked("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), filename=str(path), feature_version=(3, 11))


# --- what make makes first ---


def test_torch_is_installed_first():
    """Catches a range that pulls a CUDA torch of gigabytes before the pinned one is there."""
    assert bootstrap.pins()[0].startswith("torch==")


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    """bootstrap pointed at an empty folder, with its installs written down instead of done."""
    done = []
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    for name, path in (("PYTHON", "bin/python"), ("STAMP", "installed"), ("LOG", "install.log")):
        monkeypatch.setattr(bootstrap, name, tmp_path / ".venv" / path)

    def fake_venv():
        bootstrap.PYTHON.parent.mkdir(parents=True)
        bootstrap.PYTHON.write_text("")
        done.append("venv")

    monkeypatch.setattr(bootstrap, "usable", lambda: bootstrap.PYTHON.exists())
    monkeypatch.setattr(bootstrap, "make_venv", fake_venv)
    monkeypatch.setattr(bootstrap, "answers", lambda address: False)
    monkeypatch.setattr(bootstrap, "install", lambda what, packages, *options: done.append((packages[0], options)))
    return done


def test_second_run_installs_nothing(sandbox):
    """Catches a stamp that never matches: every `make` would go to the package index again."""
    bootstrap.make_environment()
    torch = bootstrap.pins()[0]
    assert [step if step == "venv" else step[0] for step in sandbox] == ["venv", torch, torch]
    sandbox.clear()
    bootstrap.make_environment()
    assert sandbox == []


def test_a_changed_pin_installs_again(sandbox, monkeypatch):
    """Catches a stamp that always matches: an update of the project would run on old packages."""
    bootstrap.make_environment()
    sandbox.clear()
    monkeypatch.setattr(bootstrap, "pins", lambda: ["torch==0.0.1"])
    bootstrap.make_environment()
    assert "venv" not in sandbox and len(sandbox) == 2


def test_broken_install_leaves_no_stamp(sandbox, monkeypatch):
    """Catches a stamp written too early: a run that broke off would pass for complete."""

    def fail(*_):
        raise bootstrap.SetupError("no")

    monkeypatch.setattr(bootstrap, "install", fail)
    with pytest.raises(bootstrap.SetupError):
        bootstrap.make_environment()
    assert not bootstrap.STAMP.exists()


def test_cpu_wheels_are_tried_once_and_then_the_ordinary_index(monkeypatch):
    """Catches a machine that is left without torch because PyTorch's own index was half reachable."""
    tried = []

    def install(what, packages, *options):
        tried.append(options)
        if options:
            raise bootstrap.SetupError("no")

    monkeypatch.setattr(bootstrap, "install", install)
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: False)
    monkeypatch.setattr(bootstrap, "answers", lambda address: True)
    monkeypatch.setattr(bootstrap.platform, "system", lambda: "Linux")
    bootstrap.install_torch("torch==1")
    assert len(tried) == 2 and bootstrap.CPU_WHEELS in tried[0] and tried[1] == ()
    tried.clear()
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: True)
    bootstrap.install_torch("torch==1")
    assert tried == [()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "The disk is full"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError(...)'", "index cannot be reached"),
        (
            "WARNING: 'NameResolutionError()'\nERROR: No matching distribution found for torch==9",
            "cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch==2.13.0", "pip finds no torch==2.13.0 for Python"),
        ("ERROR: something new", "failed: something new"),
        ("", "failed"),
    ],
)
def test_pip_s_trouble_becomes_one_sentence(text, says):
    """Catches a wall of pip's output where a person needs to know what to do."""
    sentence = bootstrap.explain(text, "torch")
    assert says in sentence and "\n" not in sentence


def test_little_room_is_said_before_anything_is_fetched(sandbox, monkeypatch):
    """Catches a download of a gigabyte that ends in a full disk."""
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(bootstrap.SetupError, match="The disk is full"):
        bootstrap.make_environment()
    assert sandbox == []


def test_unreachable_index_for_real(tmp_path):
    """Catches a change in pip's words: the real pip, sent to a port where nobody listens, still gives one sentence."""
    code = (
        "import sys; sys.path.insert(0, 'lab'); import bootstrap; from pathlib import Path\n"
        f"bootstrap.PYTHON = Path({sys.executable!r}); bootstrap.LOG = Path({str(tmp_path / 'log')!r})\n"
        "try: bootstrap.install('x', ['no-such-package-here==1'])\n"
        "except bootstrap.SetupError as error: print(error)\n"
    )
    quiet = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    nowhere = "http://127.0.0.1:9/simple"
    env = {**quiet, "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": nowhere, "PIP_RETRIES": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1].startswith("The package index cannot be reached"), done.stdout + done.stderr


# --- machine and results ---


def test_machine_is_plain_json():
    """Catches a tensor or a path among the facts: every results file holds this dict."""
    facts = machine_facts.machine()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["device"] in {"cpu", "cuda", "mps"} and facts["cores"] >= 1 and facts["torch"]


TABLE = {"gpt_dev": {"CPU": {"seconds": 540, "cores": 2, "machine": {"cpu": "Fast"}}, "Tesla T4": {"seconds": 61}}}
ELSEWHERE = "not yet measured here (about 9 minutes on 2 cores of Fast)"


@pytest.mark.parametrize("here, says", [
    ({"gpu": None, "cores": 2, "cpu": "Fast"}, "about 9 minutes"), ({"gpu": "Tesla T4", "cores": 2}, "about 1 minute"),
    ({"gpu": None, "cores": 64, "cpu": "Fast"}, ELSEWHERE), ({"gpu": None, "cores": 2, "cpu": "Slow"}, ELSEWHERE),
    ({"gpu": "Other", "cores": 2, "cpu": "Fast"}, ELSEWHERE)])
def test_minutes_are_only_promised_where_measured(here, says, monkeypatch):
    """Catches a time measured on one machine and promised on another: other card, other cores, another processor."""
    monkeypatch.delenv("QUICK", raising=False)
    assert setup.minutes_sentence("gpt_dev", here, TABLE) == says
    assert setup.minutes_sentence("other", here, TABLE) == "not yet measured"


@pytest.mark.parametrize("have, need, met", [
    ("6.24.0", "gradio>=6", True), ("5.50.0", "gradio>=6", False), ("2.4.0", "huggingface_hub>=1.27,<3", True),
    ("3.0.0", "huggingface_hub>=1.27,<3", False), ("1.9.1", "huggingface_hub>=1.27,<3", False),
    ("2.11.0+cu128", "torch>=2.10", True), ("2.14.0a0+git1", "torch>=2.10", True), (None, "torchinfo>=1.8", False)])
def test_what_counts_as_missing(have, need, met, monkeypatch):
    """Catches versions compared as text ("1.9" > "1.27"), and Kaggle's old gradio taken for good."""
    monkeypatch.setattr(setup, "version_of", lambda name: have)
    assert setup.is_met(need) is met


def test_torch_is_never_installed_by_the_notebooks(monkeypatch, capsys):
    """Catches a set-up cell that replaces Colab's torch (gigabytes), or the Hub's client under an old transformers."""
    asked = []
    monkeypatch.setattr(setup, "version_of", lambda name: None if name == "torchinfo" else "0.1")
    monkeypatch.setattr(setup.subprocess, "run",
                        lambda command, **_: asked.extend(command) or subprocess.CompletedProcess(command, 0))
    setup.install_missing(["ship"])
    assert any(word.startswith("torchinfo") for word in asked) and "transformers" in asked
    assert not any(re.match(r"torch\W", word) for word in asked)
    said = capsys.readouterr().out
    assert "PyTorch here is 0.1" in said and "Installing" in said and "torchinfo" in said


def test_result_is_whole_and_complete(tmp_path):
    """Catches a results file without its machine, date, commit or text, and a half-written one."""
    path = tmp_path / "deep" / "r.json"
    corpus = SimpleNamespace(name="standin", sha256="ab")
    written = machine.write_result(path, {"lr": 0.1}, corpus, val_loss=1.5, seconds=2.0)
    assert json.loads(path.read_text()) == json.loads(json.dumps(written))
    assert {"machine", "date", "commit", "command", "config", "corpus", "val_loss", "seconds"} <= set(written)
    with pytest.raises(TypeError):
        machine.write_result(path, {"lr": object()}, corpus)
    assert json.loads(path.read_text())["val_loss"] == 1.5, "a result that cannot be written keeps the old file"
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


# --- make run ---


def fake_run(tmp_path, monkeypatch, error=None):
    """The walkthrough of one notebook with nothing really executed; an old ladder lies in the build folder."""
    def execute(path, out, publish):
        if error:
            raise error
        (tmp_path / "ladder.json").write_text(json.dumps({"rungs": [{"name": "bigram", "val_loss": 2.4821,
                                               "mark": "2 letters", "seconds": 1.0}, {"name": "odd", "val_loss": 2}]}))
        return {"seconds": 60, "peak_mb": 5, "corpus": {"name": "standin", "sha256": "a"}, "quick": True}

    (tmp_path / "ladder.json").write_text('{"rungs": [{"name": "OLD", "val_loss": 1}]}')
    monkeypatch.setattr(walkthrough, "BUILD", tmp_path)
    monkeypatch.setattr(walkthrough, "execute", execute)
    monkeypatch.setattr(walkthrough.book, "build", lambda out, executed: Path("/book/index.html"))
    return walkthrough.main([str(tmp_path / "demo.ipynb")])


def test_walkthrough_ends_with_ladder_and_book_of_this_run(tmp_path, monkeypatch, capsys):
    """Catches old numbers printed under a new run, and a run that does not say where its book lies."""
    assert fake_run(tmp_path, monkeypatch) == 0
    said = capsys.readouterr().out
    assert "2.482" in said and "as good as 2 letters" in said and "odd" in said and "OLD" not in said
    assert said.rstrip().endswith("file:///book/index.html") and "QUICK budgets" in said and "standin" in said


@pytest.mark.parametrize("error", [notebook.NotebookError("x stopped"), OSError(28, "No space"), KeyboardInterrupt()])
def test_walkthrough_ends_in_status_1_and_a_sentence(error, tmp_path, monkeypatch, capsys):
    """Catches a `make run` that exits 0 after a failed notebook, or that says why in a traceback."""
    assert fake_run(tmp_path, monkeypatch, error) == 1
    said = capsys.readouterr().err.strip()
    assert any(words in said for words in ("x stopped", "The disk is full", "Stopped.")) and "\n" not in said
