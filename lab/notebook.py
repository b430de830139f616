"""Notebooks as files: read and write them, the parts that all share, what a committed one must keep to."""

import re
from pathlib import Path

import nbformat

from data.files import write_atomic
from lab.lock import what_changed
from lab.project import MAIN, address, project_path

BADGES = re.compile(r"(<!-- badges -->\n).*?(<!-- /badges -->)", re.DOTALL)

# most cells and words (prose, without code) that a notebook may have; side roads share the last line
LIMITS = {"gpt_dev": (125, 9500), "gpt2_training": (105, 7500), "gpt2_gradio": (65, 5500),
          "speed": (70, 4500), None: (60, 4500)}
LONGEST_CELL, LONGEST_LINE = 35, 120  # lines of a cell, about 25 is the aim; columns, modules have 110

SETUP_CELL = '''\
#@title Set-up: find the project or fetch it, and install what is missing (never torch)
TEXT = ""  # your own text: a file or an address; empty is Tiny Shakespeare

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = os.environ.get("GPT2_REPO") or "{address}"
here = Path.cwd()
home = next((p for p in [here, *here.parents, here / "gpt2"] if (p / "model_gpt2.py").exists()), None)
if home is None:
    if not REPO:
        sys.exit("The project has no address on the web yet: its owner sets one in pyproject.toml "
                 "([project.urls]); until then, set GPT2_REPO to the address or folder of a copy.")
    home = here / "gpt2"
    clone = ["git", "-c", "credential.helper=", "clone", "--quiet", "--depth", "1", REPO, str(home)]
    asks_nothing = {{**os.environ, "GIT_TERMINAL_PROMPT": "0"}}
    if not shutil.which("git") or subprocess.run(clone, env=asks_nothing, capture_output=True).returncode:
        shown = re.sub("//[^/@]*@", "//", REPO)  # without a password that it may hold
        sys.exit(f"The project could not be fetched from {{shown}}: "
                 "turn on Internet in the notebook's settings.")
os.chdir(home)
if str(home) not in sys.path:
    sys.path.insert(0, str(home))

from lab.setup import hello

hello(notebook="{name}")'''


class NotebookError(ValueError):
    """A notebook that cannot be used or run; the message says where and what to do."""


# ---- files


def read(path):
    """The notebook in a file; NotebookError when it is missing or not a notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"{path} does not exist") from None
    except Exception as error:
        raise NotebookError(f"{path} is not a notebook ({type(error).__name__})") from None


def write(nb, path):
    """Write a notebook in one piece."""
    write_atomic(path, nbformat.writes(nb) + "\n")


# ---- the parts that all notebooks share


def setup_cell(name):
    """Source of the set-up cell: the same in every notebook but for the notebook's name."""
    return SETUP_CELL.format(address=address(), name=name)


def badge_addresses(path):
    """(Colab, Kaggle): addresses that open a notebook there; `path`: as "notebooks/bpe.ipynb"."""
    blob = f"{address()}/blob/main/{path}"
    colab = blob.replace("https://github.com", "https://colab.research.google.com/github")
    return colab, f"https://kaggle.com/kernels/welcome?src={blob}"


def badge_lines(path):
    """The badges of a notebook's first cell, as links; nothing while there is no address."""
    if not address():
        return ""
    colab, kaggle = badge_addresses(path)
    return f"[<kbd>Open in Colab</kbd>]({colab}) [<kbd>Open in Kaggle</kbd>]({kaggle})\n"


def fill_standard_parts(nb, path):
    """Put the badges into the first cell and the set-up code into the cell `setup`."""
    for cell in nb.cells:
        if cell.id == "setup":
            cell.source = setup_cell(Path(path).stem)
        elif cell.cell_type == "markdown":
            cell.source = BADGES.sub(lambda found: found[1] + badge_lines(path) + found[2], cell.source)
    return nb


# ---- what a committed notebook must keep to


def check(nb, path):
    """What is wrong with a committed notebook, as sentences; an empty list is a good notebook."""
    return [*check_form(nb, path), *check_run(nb, path), *check_outputs(nb), *check_pictures(nb)]


def check_form(nb, path):
    """Set-up cell, badges, size and length of cells."""
    name = Path(path).stem
    most_cells, most_words = LIMITS.get(name, LIMITS[None])
    if len(nb.cells) > most_cells:
        yield f"{len(nb.cells)} cells, at most {most_cells}"
    if words(nb) > most_words:
        yield f"{words(nb)} words, at most {most_words}"
    if len(nb.cells) < 2 or nb.cells[1].id != "setup" or nb.cells[1].source != setup_cell(name):
        yield "the second cell is not the standard set-up cell: type `make readme`"
    badges = f"<!-- badges -->\n{badge_lines(project_path(path))}<!-- /badges -->"
    if not nb.cells or badges not in nb.cells[0].source:
        yield "the first cell lacks the badges of today's address: type `make readme`"
    for cell in nb.cells:
        lines = cell.source.count("\n") + 1
        if cell.cell_type == "code" and cell.id != "setup" and lines > LONGEST_CELL:
            yield f"cell {cell.id} has {lines} lines, at most {LONGEST_CELL}"
        if cell.cell_type == "code" and max(map(len, cell.source.splitlines()), default=0) > LONGEST_LINE:
            yield f"cell {cell.id} has a line of more than {LONGEST_LINE} columns"


def check_run(nb, path):
    """One complete run, in order, of this very code, on the text that the notebook is about."""
    code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "the outputs are not from one run in order: type `make notebooks`"
    if changed := what_changed(nb):
        named = ", ".join(changed)
        yield f"the code has changed since the outputs were made ({named}): type `make notebooks`"
    run = nb.metadata.get("walkthrough", {})
    if run.get("quick"):
        yield "the outputs are from a QUICK run"
    if Path(path).stem in MAIN and (run.get("corpus") or {}).get("name") == "standin":
        yield "the outputs are from the stand-in text: set GPT2_DATA, then type `make notebooks`"


def check_outputs(nb):
    """No errors, no warnings, no path of the machine that it ran on."""
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            text = output.get("text", "") or str(output.get("data", {}).get("text/html", ""))
            if output.output_type == "error":
                yield f"cell {cell.id} ended in {output.ename}"
            elif output.get("name") == "stderr" and "Warning" in text:
                yield f"cell {cell.id} printed a warning: {text.strip().splitlines()[0][:100]}"
            if re.search(r"(?<![\w.])/(root|home|Users|work|tmp)/", text):
                yield f"cell {cell.id} shows a path of the machine that it ran on"


def check_pictures(nb):
    """Alt text for every picture, and none that is loaded from elsewhere."""
    for cell in nb.cells:
        html = [cell.source] if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            html += [str(data[kind]) for kind in ("text/html", "text/markdown") if kind in data]
            if any(kind.startswith("image/") and not alt_text(output, kind) for kind in data):
                yield f"cell {cell.id} shows a picture without alt text: use lab.plots.show(fig, alt)"
        for text in html:
            if re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", text):
                yield f"cell {cell.id} has a picture without alt text"
            if re.search(r"!\[[^\]]*\]\(\s*http|<(img|script|iframe)[^>]*\bsrc=\"?(http|//)", text):
                yield f"cell {cell.id} loads something from outside"


def alt_text(output, kind):
    """Alt text of a picture in an output, from its metadata {"image/png": {"alt": text}} (lab.plots.show)."""
    return output.get("metadata", {}).get(kind, {}).get("alt", "").strip()


def words(nb):
    """Words of prose: markdown without fenced code, tags and addresses."""
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", text)
    return len(re.findall(r"\w[\w'’.,-]*", text))
