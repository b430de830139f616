"""Notebooks as files: read and write them, and the parts that all of them share."""

import re
from pathlib import Path

import nbformat

from data.files import address, write_atomic

BADGES = re.compile(r"(<!-- badges -->\n).*?(<!-- /badges -->)", re.DOTALL)

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


def setup_cell(name):
    """Source of the set-up cell: the same in every notebook but for the notebook's name."""
    return SETUP_CELL.format(address=address(), name=name)


def badge_addresses(path):
    """(Colab, Kaggle): addresses that open a notebook there; `path`: as "notebooks/bpe.ipynb"."""
    blob = f"{address()}/blob/main/{path}"
    colab = blob.replace("https://github.com", "https://colab.research.google.com/github")
    return colab, f"https://kaggle.com/kernels/welcome?src={blob}"


def fill_standard_parts(nb, path):
    """Put the set-up code into the cell `setup` and, if there is an address, badges into the first cell."""
    colab, kaggle = badge_addresses(path)
    badges = f"[<kbd>Open in Colab</kbd>]({colab}) [<kbd>Open in Kaggle</kbd>]({kaggle})\n"
    badges = badges if address() else ""
    for cell in nb.cells:
        if cell.id == "setup":
            cell.source = setup_cell(Path(path).stem)
        elif cell.cell_type == "markdown":
            cell.source = BADGES.sub(lambda found: found[1] + badges + found[2], cell.source)
    return nb
