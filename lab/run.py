"""Run a notebook from start to end in a kernel of this Python, and record where its outputs come from."""

import hashlib
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from data.files import say
from gpt2.machine import commit, machine
from lab.lock import lock
from lab.machine import today
from lab.notebook import NotebookError, read, write
from lab.project import ROOT

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN")

# a last cell, taken out again afterwards: what only the kernel knows
FACTS = """\
import json, resource, sys
print(json.dumps({
    "corpus": {key: getattr(globals().get("corpus"), key, None) for key in ("name", "sha256")},
    "peak": max(resource.getrusage(who).ru_maxrss for who in (0, -1)),  # itself, its children
    "files": [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))],
}))"""


def execute(path_in, path_out, quick=False, timeout=1800, stream=None, root=ROOT, env=None, publish=False):
    """Run every cell of `path_in` in order and write the notebook with its outputs to `path_out`.

    The two may be the same. The kernel is this interpreter, its folder `root`, its environment this one
    with `env` on top (None unsets a name). `quick` sets QUICK=1; `timeout` is seconds for one cell;
    progress goes to `stream` (standard output). The run is headless: nothing is published, and no token
    reaches the kernel, unless `publish`. Returns what is also put into the notebook's metadata as
    "walkthrough": machine, date, commit, seconds, peak_mb, corpus, code, quick.

    Raises NotebookError with the cell and its error in plain words; the run up to there is written to
    `path_out`, unless that would replace `path_in`.
    """
    nb = cleared(read(path_in))
    quick = quick or os.environ.get("QUICK") == "1"
    facts = {"machine": machine(), "date": today(), **commit(), "quick": quick}
    progress, start = Progress(Path(path_in).name, nb, stream or sys.stdout), time.monotonic()
    try:
        found = run_cells(nb, progress, timeout, kernel_environment(quick, publish, env or {}), root)
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


def cleared(nb):
    """The notebook without the outputs and facts of an earlier run."""
    nb.metadata.pop("walkthrough", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return nb


def kernel_environment(quick, publish, changes):
    """This process's environment as a kernel gets it: headless, and without a token unless `publish`."""
    here = {**os.environ, "PYTHONUNBUFFERED": "1", "GPT2_HEADLESS": "1", "QUICK": "1" if quick else None}
    if publish:
        here["GPT2_HEADLESS"] = None
    else:
        here.update(dict.fromkeys(TOKENS), HF_TOKEN_PATH=os.devnull)  # the Hub's client keeps one on disk too
    return {name: value for name, value in {**here, **changes}.items() if value is not None}


def run_cells(nb, progress, timeout, env, root):
    """Run all cells of nb, in place; returns the kernel's own facts."""
    nb.cells.append(nbformat.v4.new_code_cell(FACTS))
    with tempfile.TemporaryDirectory(prefix="gpt2-") as folder:
        # this very Python, whatever is registered as "python3"; ipc keeps the traffic off the network
        own = KernelSpecManager(kernel_dirs=[])
        kernel = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=own, transport="ipc",
                                    ip=os.path.join(folder, "kernel"))
        client = NotebookClient(nb, km=kernel, timeout=timeout, record_timing=False, coalesce_streams=True,
                                on_cell_start=progress.enter)
        try:
            client.execute(env=env, cwd=str(root), cleanup_kc=True)
            return json.loads(nb.cells[-1].outputs[0].text)
        except CellExecutionError as error:
            raise NotebookError(f"{progress.where()}: {plain_error(error)}") from None
        except CellTimeoutError:
            raise NotebookError(f"{progress.where()}: it ran longer than {timeout} seconds") from None
        except DeadKernelError:
            what = "the kernel died, most often because memory ran out"
            raise NotebookError(f"{progress.where()}: {what}") from None
        finally:
            nb.cells.pop()
            for cell in nb.cells:
                if cell.cell_type == "code":
                    cell.outputs = [output for output in cell.outputs if not only_bars(output)]
            progress.close_section()


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


class Progress:
    """One line for each section as it ends, and the place where a run stopped."""

    def __init__(self, name, nb, stream):
        self.name, self.nb, self.stream, self.cells = name, nb, stream, len(nb.cells)
        self.section, self.cell = "", 0
        self.start = self.section_start = time.monotonic()

    def enter(self, cell, cell_index):
        """nbclient's hook on_cell_start: a cell begins; a heading closes the section before it."""
        self.cell = cell_index
        lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
        heading = next((line.lstrip("# ").strip() for line in lines if line.startswith(("# ", "## "))), "")
        if heading:
            self.close_section()
            self.section, self.section_start = heading, time.monotonic()

    def close_section(self):
        now = time.monotonic()
        if self.section:
            minutes, seconds = divmod(int(now - self.start), 60)
            took = f"({now - self.section_start:.0f} s)"
            say(f"  {minutes:3d}:{seconds:02d}  {self.section}  {took}", self.stream)
        self.section = ""

    def where(self):
        cell = f"cell {self.cell + 1} of {self.cells} ({self.nb.cells[self.cell].id}, in '{self.section}')"
        return f"{self.name} stopped in {cell}"
