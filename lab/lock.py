"""The lock between a notebook's code and its committed outputs: a short hash for each piece of code that ran.

Comments, layout and docstrings do not count, so prose can be mended without a new run.
"""

import ast
import hashlib
import re
from pathlib import Path

from IPython.core.inputtransformer2 import TransformerManager

from lab.project import ROOT


def lock(nb, files, root=ROOT):
    """{"cells": hash, "lab/plots.py": hash, ...} of a notebook's cells and of our files that it imported.

    The set-up cell is left out: its text is checked by itself, and moving the project changes no result.
    """
    code = [cell.source for cell in nb.cells if cell.cell_type == "code" and cell.get("id") != "setup"]
    cells = "\n".join(fingerprint(TransformerManager().transform_cell(source)) for source in code)
    found = {"cells": short_hash(cells)}
    for name in sorted(files):
        found[name] = short_hash(fingerprint((Path(root) / name).read_text(encoding="utf-8")))
    return found


def what_changed(nb, root=ROOT):
    """Names of what is no longer as it was when the outputs were made; ["cells"] where nothing is known."""
    old = nb.metadata.get("walkthrough", {}).get("code") or {"cells": None}
    new = lock(nb, [name for name in old if (Path(root) / name).is_file()], root)
    return [name for name in old if old[name] != new.get(name)]


def fingerprint(source):
    """The syntax tree of some code as text, without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
    return re.sub(r"(, )?\w+=\[\]", "", ast.dump(tree))  # newer versions of Python leave out what is empty


def short_hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]
