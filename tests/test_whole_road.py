"""The reader's whole road: a text of one's own from its file to a page in Chromium."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from pages import chromium, open_page, served

import train_gpt2
from data.text import load_text
from lab.notebook import NotebookError, read, write
from lab.run import execute
from space.static_site import build_static
from tests import texts

whole = pytest.mark.skipif(not os.environ.get("WHOLE_ROAD"), reason="takes minutes: set WHOLE_ROAD=1")
ROAD = ("gpt_dev", "gpt2_training", "gpt2_gradio")
SHAKESPEARE = re.compile(r"ROMEO|PROSPERO|KATHARINA|Shakespeare|\b65 (symbols|letters|choices)")
OURS = re.compile(r"^our run on Tiny Shakespeare|^our twelve layers, which read Tiny Shakespeare"
                  r"|^expect on Tiny Shakespeare|^YOUR TEXT", re.MULTILINE)


def run(nb, name, project, folder):
    """Execute a notebook in QUICK mode as a reader would; returns it with its outputs."""
    source, out = folder / f"{name}.ipynb", folder / f"{name}-out.ipynb"
    write(nb, source)
    execute(source, out, quick=True, timeout=240, stream=io.StringIO(), root=project)
    return read(out)


# ---- a text of one's own


def windows(size=60_000):
    """As an old editor on Windows keeps it: UTF-16, its mark, and two characters at each line's end."""
    return texts.prose("etaoinshrdlucmfwypvbgk", size).replace("\n", "\r\n").encode("utf-16")


TEXTS = {"cyrillic": lambda: texts.cyrillic(60_000), "hebrew": texts.hebrew, "han": lambda: texts.han(60_000),
         "verse": texts.verse, "log": texts.log, "windows": windows}


def with_text(name, file):
    """A notebook of the walkthrough whose set-up cell names a text, the one line that a reader changes."""
    nb = read(ROOT / f"{name}.ipynb")
    setup = next(cell for cell in nb.cells if cell.id == "setup")
    assert 'TEXT = ""' in setup.source
    setup.source = setup.source.replace('TEXT = ""', f"TEXT = {str(file)!r}")
    return nb


def test_a_text_that_cannot_be_used_is_one_sentence(project, tmp_path):
    """Catches a traceback in front of a reader who mistyped a path; tests/test_text.py has all sentences."""
    nb = with_text("gpt_dev", tmp_path / "nowhere.txt")
    nb.cells = nb.cells[:5]
    with pytest.raises(NotebookError, match="is not there"):
        run(nb, "gpt_dev", project, tmp_path)
    shown = said(read(tmp_path / "gpt_dev-out.ipynb"))
    assert "is not there" in shown and "Traceback" not in shown


def said(nb):
    """All that the cells printed or showed, pictures' words included."""
    lines = []
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            lines += [output.get("text", ""), str(output.get("metadata", {}))]
            lines += [str(value) for kind, value in data.items() if kind.startswith("text/")]
    return "\n".join(lines)


def written_to(folder, kind):
    """The file of a text of this kind, with a name that has a space in it."""
    body, file = TEXTS[kind](), folder / f"my {kind}.txt"
    file.write_bytes(body if isinstance(body, bytes) else body.encode())
    return file


BEGINS = r"""text => {
  const first = [...text.querySelectorAll(".ch")].find(letter => /\p{L}/u.test(letter.textContent));
  const [box, letter] = [text, first].map(element => element.getBoundingClientRect());
  return letter.left - box.left > box.right - letter.right ? "right" : "left";
}"""


def visit(page_folder, picture):
    """Open the page in Chromium, let it write, keep a picture; its words, the text, where that begins."""
    with served(page_folder) as address, chromium() as browser:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = open_page(context, address, until="#bars li")
        page.evaluate("document.getElementById('fast').checked = true")
        page.click("#go")
        page.locator("#status", has_text="Done:").wait_for()
        page.screenshot(path=picture, full_page=True)
        assert not page.thrown
        return page.inner_text("body"), page.text_content("#text"), page.eval_on_selector("#text", BEGINS)


def foreign(words):
    """Lines that speak of the plays as if they were the reader's text."""
    return [line[:200] for line in words.splitlines() if SHAKESPEARE.search(line) and not OURS.search(line)]


def check_page(file, best, folder):
    """Build the page of a model of this text, let it write in Chromium: of this text, and of no other."""
    shown, written, side = visit(build_static(best, folder / "page"), folder / "page.png")
    assert len(written) > 50 and not foreign(shown) and side == ("right" if "hebrew" in file.name else "left")
    known = set(load_text(file, quiet=True).text)
    strange = sum(letter not in known for letter in written) / len(written)
    assert strange < (0.25 if "han" in file.name else 1e-9)  # pieces may spell other bytes


@whole
@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_of_ones_own_from_file_to_page(kind, project, tmp_path):
    """Catches what stops another alphabet or thousands of symbols, words not of it, Hebrew from the left."""
    file = written_to(tmp_path, kind)
    words = [said(run(with_text(name, file), name, project, tmp_path)) for name in ROAD]
    assert not foreign("\n".join(words))
    [best] = project.glob(f"runs/notebook-my {kind}*-quick/best")
    check_page(file, best, tmp_path)


def test_the_command_takes_a_text_from_file_to_page(tmp_path):
    """Catches the same on the road of the README, in seconds: a text that is read from the right."""
    file, out = written_to(tmp_path, "hebrew"), tmp_path / "mine"
    settings = "--preset quick --max-steps 20 --no-bar --log-every 0 --sample-chars 0".split()
    assert train_gpt2.main(["--text", str(file), "--out-dir", str(out), *settings]) == 0
    check_page(file, out / "best", tmp_path)


# ---- from one machine to another


def test_a_model_kept_on_the_hub_is_found_on_a_fresh_machine(tmp_path, monkeypatch, capsys):
    """Catches a switch that publishes for all, or by itself, an address that notebook 3 cannot use."""
    pytest.importorskip("huggingface_hub", reason="publishing needs huggingface_hub: pip install -e .[ship]")
    from hub_server import Hub
    from tiny_app import tiny_folder

    [cell] = [cell for cell in read(ROOT / "gpt2_training.ipynb").cells if cell.id == "keep"]
    monkeypatch.chdir(tmp_path)
    tiny_folder("runs/mine/best")
    space = {"out_dir": "runs/mine", "copy_to": "", "twelve_here": False}
    with Hub() as hub:
        hub.prepare_client()
        for name, value in (("HF_ENDPOINT", hub.url), ("HF_TOKEN", hub.token), ("HF_HOME", str(tmp_path))):
            monkeypatch.setenv(name, value)
        exec(cell.source, dict(space))
        assert not hub.repos and 'MODEL = "runs/mine/best"' in capsys.readouterr().out
        exec(cell.source.replace('KEEP_ON_HUB = ""', 'KEEP_ON_HUB = "my-gpt2"'), dict(space))
        line = capsys.readouterr().out.strip().splitlines()[-1]
        assert 'MODEL = "reader/my-gpt2"' in line and hub.repo("models", "reader/my-gpt2").private
        named = line.split('"')[1]
        look = f"from space.find import choose_model; print(*choose_model({named!r}))"
        fresh = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True)
        folder, mine = fresh.stdout.strip().splitlines()[-1].rsplit(" ", 1)
        assert mine == "True" and Path(folder, "model.safetensors").is_file()
