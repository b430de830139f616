"""Run a notebook from start to end in a kernel of this Python, and record where its outputs come from.

The lock between code and committed outputs is a short hash for each piece of code that ran. Comments, layout
and docstrings do not count, so prose can be mended without a new run.
"""

import ast
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from data.files import say
from gpt2.machine import commit, machine
from lab.machine import today
from lab.notebook import NotebookError, read, write
from lab.project import ROOT

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")

# a last cell, taken out again afterwards: what only the kernel knows; a line a file, since nbclient looks for
# progress bars in a time that grows with the square of a line
FACTS = """\
import json, resource, sys
print(json.dumps({
    "corpus": {key: getattr(globals().get("corpus"), key, None) for key in ("name", "sha256")},
    "peak": max(resource.getrusage(who).ru_maxrss for who in (0, -1)),  # itself, its children
    "files": [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))],
}, indent=0))"""


def execute(path_in, path_out, quick=False, timeout=1800, stream=None, root=ROOT, env=None):
    """Run every cell of `path_in` in order and write the notebook with its outputs to `path_out`.

    The two may be the same. The kernel is this interpreter, its folder `root`, its environment this one
    with `env` on top (None unsets a name). `quick` sets QUICK=1; `timeout` is seconds for one cell;
    progress goes to `stream` (standard output). The run is headless: nothing is published, and no token
    reaches the kernel. Returns what is also put into the notebook's metadata as
    "walkthrough": machine, date, commit, seconds, peak_mb, corpus, code, quick.

    Raises NotebookError with the cell and its error in plain words; the run up to there is written to
    `path_out`, unless that would replace `path_in`.
    """
    nb, start = read(path_in), time.monotonic()
    quick = quick or os.environ.get("QUICK") == "1"
    facts = {"machine": machine(), "date": today(), **commit(), "quick": quick}
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nb.metadata.pop("walkthrough", None)
    try:
        environment = kernel_environment(quick, env or {})
        found = run_cells(nb, Path(path_in).name, timeout, environment, root, stream or sys.stdout)
    except NotebookError:
        if Path(path_in).resolve() != Path(path_out).resolve():
            write(nb, path_out)
        raise
    facts["seconds"] = round(time.monotonic() - start, 1)
    facts["peak_mb"] = found["peak"] // (1024 if sys.platform != "darwin" else 2**20)
    facts["corpus"] = found["corpus"] if found["corpus"]["name"] else None
    facts["code"] = lock(nb, project_files(found["files"], root), root)
    facts["code_hash"] = hashlib.sha256(json.dumps(facts["code"], sort_keys=True).encode()).hexdigest()[:16]
    nb.metadata["walkthrough"] = facts
    nb.metadata["language_info"] = {"name": "python"}
    write(nb, path_out)
    return facts


def kernel_environment(quick, changes):
    """This process's environment as a kernel gets it: headless, and without a token."""
    here = {**os.environ, "PYTHONUNBUFFERED": "1", "GPT2_HEADLESS": "1", "QUICK": "1" if quick else None}
    here |= {**dict.fromkeys(TOKENS), "HF_TOKEN_PATH": os.devnull}  # the Hub's client keeps one on disk too
    return {name: value for name, value in {**here, **changes}.items() if value is not None}


def run_cells(nb, name, timeout, env, root, stream):
    """Run all cells of nb, in place, and say each section as it begins; returns the kernel's own facts."""
    start, last, now = time.monotonic(), len(nb.cells), {"section": "", "cell": 0}

    def enter(cell, cell_index):
        now["cell"] = cell_index
        heading = cell.cell_type == "markdown" and re.search(r"^##? (.*)", cell.source, re.MULTILINE)
        if heading:
            now["section"] = heading[1]
            minutes, seconds = divmod(int(time.monotonic() - start), 60)
            say(f"  {minutes:3d}:{seconds:02d}  {heading[1]}", stream)

    def stopped(why):
        at = f"cell {now['cell'] + 1} of {last} ({nb.cells[now['cell']].id}, in '{now['section']}')"
        return NotebookError(f"{name} stopped in {at}: {why}")

    nb.cells.append(nbformat.v4.new_code_cell(FACTS))
    with tempfile.TemporaryDirectory(prefix="gpt2-") as folder:
        # this very Python, whatever is registered as "python3"; ipc keeps the traffic off the network
        own = KernelSpecManager(kernel_dirs=[])
        kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=own, transport="ipc",
                                    ip=os.path.join(folder, "kernel"))
        client = NotebookClient(nb, km=kernel, timeout=timeout, record_timing=False, coalesce_streams=True,
                                on_cell_start=enter)
        try:
            client.execute(env=env, cwd=str(root), cleanup_kc=True)
            return json.loads(nb.cells[-1].outputs[0].text)
        except CellExecutionError as error:
            raise stopped(plain_error(error)) from None
        except CellTimeoutError:
            raise stopped(f"it ran longer than {timeout} seconds") from None
        except DeadKernelError:
            raise stopped("the kernel died, most often because memory ran out") from None
        finally:
            nb.cells.pop()
            for cell in nb.cells:
                if cell.cell_type == "code":
                    cell.outputs = [output for output in cell.outputs if not only_bars(output)]


def project_files(files, root):
    """Those of the files that a kernel loaded that are the project's, as "lab/plots.py"."""
    root = Path(root).resolve()
    paths = (Path(file).resolve() for file in files if Path(file).is_absolute())
    inside = (path.relative_to(root) for path in paths if path.is_relative_to(root))
    ours = (path for path in inside if path.suffix == ".py" and not path.parts[0].startswith("."))
    return sorted(path.as_posix() for path in ours)


def only_bars(output):
    """Whether an output is nothing but progress bars, which are wiped when done and leave blanks behind."""
    return output.get("name") == "stderr" and not re.sub(r"[^\r\n]*\d+%\|[^\r\n]*", "", output.text).strip()


def plain_error(error):
    """Name, message and line of the error that ended a cell."""
    trace = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback)
    line = re.findall(r"^-+> *\d+ (.*)$", trace, re.MULTILINE)
    at = f"\n    in the line: {line[0].strip()}" if line else ""
    return f"{error.ename}: {error.evalue}{at}"


# ---- the lock


def lock(nb, files, root=ROOT):
    """{"cells": hash, "lab/plots.py": hash, ...} of a notebook's cells and of our files that it imported.

    The set-up cell is left out: its text is checked by itself, and moving the project changes no result.
    """
    code = [cell.source for cell in nb.cells if cell.cell_type == "code" and cell.get("id") != "setup"]
    cells = "\n".join(fingerprint(TransformerManager().transform_cell(source)) for source in code)
    texts = {name: fingerprint((Path(root) / name).read_text(encoding="utf-8")) for name in sorted(files)}
    texts = {"cells": cells, **texts}
    return {name: hashlib.sha256(text.encode()).hexdigest()[:12] for name, text in texts.items()}


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
