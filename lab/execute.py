"""Run a notebook from start to end in a kernel of this very Python, with its progress on the screen."""

import asyncio
import json
import os
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.util import ensure_async

from lab.codehash import code_hash
from lab.machine import ROOT, commit, machine, today
from lab.notebook import NotebookError, read, write

CORPUS = """__import__("json").dumps({k: getattr(globals().get("corpus"), k, None) for k in ("name", "sha256")})"""
HEARTBEAT = 30  # seconds between signs of life in a long cell, where the screen is no terminal


def execute(path_in, path_out, quick=False, timeout=1800, stream=None, root=ROOT, env=None):
    """Run every cell of `path_in` in order and write the notebook with its outputs to `path_out` (it may be the same).

    The kernel is this interpreter, its folder `root`, its environment this one with `env` on top (None unsets a name).
    `quick` sets QUICK=1; `timeout` is seconds for one cell; progress goes to `stream` (standard output). Returns what
    is also put in the notebook's metadata as "walkthrough": machine, date, commit, seconds, peak_mb (of the kernel and
    what it started), corpus (from the notebook's variable of that name), code_hash, quick.

    Raises NotebookError with the cell and its error in plain words; the run up to there is written to `path_out`,
    unless that would replace `path_in`.
    """
    nb = read(path_in)
    clear(nb)
    progress = Progress(Path(path_in).name, nb, stream or sys.stdout)
    quick = quick or os.environ.get("QUICK") == "1"
    facts = {"machine": machine(), "date": today(), **commit(), "quick": quick, "code_hash": code_hash(nb, root)}
    settings = kernel_environment({"QUICK": "1" if quick else None, "PYTHONUNBUFFERED": "1", **(env or {})})
    try:
        facts.update(asyncio.run(run_cells(nb, progress, timeout, env=settings, cwd=str(root))))
    except NotebookError:
        if Path(path_in).resolve() != Path(path_out).resolve():
            write(nb, path_out)
        raise
    finally:
        progress.stop()
    nb.metadata["walkthrough"] = facts
    write(nb, path_out)
    return facts


def clear(nb):
    nb.metadata.pop("walkthrough", None)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def kernel_environment(changes):
    """This process's environment with `changes` made; a value of None takes the name out."""
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


async def run_cells(nb, progress, timeout, **start):
    """Run all cells; returns seconds, peak_mb and the corpus that the notebook's variable `corpus` names."""
    with tempfile.TemporaryDirectory(prefix="gpt2-") as folder:
        return await run_cells_in(folder, nb, progress, timeout, **start)


async def run_cells_in(folder, nb, progress, timeout, **start):
    client = NotebookClient(nb, km=own_kernel(folder), timeout=timeout, record_timing=False, coalesce_streams=True)
    async with client.async_setup_kernel(cleanup_kc=True, **start):
        progress.watch(client.km.provisioner.pid)
        for index, cell in enumerate(nb.cells):
            progress.enter(index)
            if cell.cell_type == "code":
                await run_cell(client, cell, index, progress)
        nb.metadata["language_info"] = {"name": "python"}
        corpus = json.loads(await ask(client, CORPUS))
    seconds = round(time.monotonic() - progress.start, 1)
    return {"seconds": seconds, "peak_mb": progress.peak_mb, "corpus": corpus if corpus["name"] else None}


async def run_cell(client, cell, index, progress):
    try:
        await client.async_execute_cell(cell, index)
        cell.outputs = [output for output in cell.outputs if not only_bars(output)]
    except CellExecutionError as error:
        raise NotebookError(f"{progress.where(index)}: {plain_error(cell, error)}") from None
    except CellTimeoutError:
        raise NotebookError(f"{progress.where(index)}: it ran longer than {client.timeout} seconds") from None
    except DeadKernelError:
        raise NotebookError(f"{progress.where(index)}: the kernel died, most often because memory ran out") from None


def only_bars(output):
    """Whether an output is nothing but progress bars, which are wiped when done and leave blanks behind."""
    return output.get("name") == "stderr" and not re.sub(r"[^\r\n]*\d+%\|[^\r\n]*", "", output.text).strip()


def plain_error(cell, error):
    """Name, message and line of the error that ended a cell."""
    output = next((o for o in cell.outputs if o.output_type == "error"), None)
    trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback)) if output else ""
    line = re.findall(r"^-+> *\d+ (.*)$", trace, re.MULTILINE)
    at = f"\n    in the line: {line[0].strip()}" if line else ""
    return f"{error.ename}: {error.evalue}{at}"


async def ask(client, expression):
    """Value of a string expression in the kernel, without a trace in the notebook."""
    message = client.kc.execute("", silent=True, store_history=False, user_expressions={"answer": expression})
    while True:
        reply = await ensure_async(client.kc.get_shell_msg(timeout=30))
        if reply["parent_header"].get("msg_id") == message:
            text = reply["content"]["user_expressions"]["answer"]["data"]["text/plain"]
            return text[1:-1]  # json holds no single quotes here, so repr only adds the outer pair


class OwnInterpreter(KernelSpecManager):
    """Knows one kernel: the Python that runs this. A kernel registered under the same name elsewhere does not count."""

    def get_kernel_spec(self, kernel_name):
        command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def own_kernel(folder):
    # ipc keeps the traffic off the network, and the kernel from warning about it; the sockets need a path of their own,
    # since a relative one would mean another place to a kernel that runs in another folder
    return AsyncKernelManager(kernel_name="python3", kernel_spec_manager=OwnInterpreter(), transport="ipc",
                              ip=str(Path(folder) / "kernel"))


class Progress:
    """One line for each section as it ends, a moving line for the cell that runs, and the kernel's peak memory."""

    def __init__(self, name, nb, stream):
        self.name, self.nb, self.stream = name, nb, stream
        self.start = time.monotonic()
        self.section, self.section_start, self.cell, self.cell_start = "", self.start, 0, self.start
        self.beat = self.start
        self.peak_mb, self.process = 0, None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.tick, daemon=True)

    def watch(self, pid):
        self.process = psutil.Process(pid)
        self.thread.start()

    def enter(self, index):
        """A cell begins; a heading closes the section before it."""
        heading = self.heading(index)
        now = time.monotonic()
        if heading:
            self.close_section(now)
            self.section, self.section_start = heading, now
        self.cell, self.cell_start, self.beat = index, now, now

    def heading(self, index):
        cell = self.nb.cells[index]
        lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
        return next((line.lstrip("# ").strip() for line in lines if line.startswith(("# ", "## "))), "")

    def close_section(self, now):
        if self.section:
            self.say(f"  {clock(now - self.start)}  {self.section}  ({now - self.section_start:.0f} s)\n")

    def where(self, index):
        cell = f"cell {index + 1} of {len(self.nb.cells)} ({self.nb.cells[index].id}, in '{self.section}')"
        return f"{self.name} stopped in {cell}"

    def tick(self):
        while not self.done.wait(0.5):
            self.measure()
            now = time.monotonic()
            place = f"cell {self.cell + 1} of {len(self.nb.cells)}, {self.section[:50]}"
            if self.stream.isatty():
                self.say(f"  {clock(now - self.start)}  {place}")
            elif now - self.beat > HEARTBEAT:
                self.beat = now
                self.say(f"  {clock(now - self.start)}  ... {place} ({now - self.cell_start:.0f} s so far)\n")

    def measure(self):
        """Keep the largest memory seen, in MB, of the kernel and everything that it started."""
        try:
            family = [self.process, *self.process.children(recursive=True)]
            memory = sum(process.memory_info().rss for process in family)
        except psutil.Error:
            return
        self.peak_mb = max(self.peak_mb, round(memory / 2**20))

    def say(self, text):
        clean = "\r\x1b[K" if self.stream.isatty() else ""
        self.stream.write(clean + text)
        self.stream.flush()

    def stop(self):
        self.done.set()
        if self.thread.is_alive():
            self.thread.join()
        self.close_section(time.monotonic())


def clock(seconds):
    return f"{int(seconds) // 60:3d}:{int(seconds) % 60:02d}"
