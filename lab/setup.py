"""The second cell of every notebook: install what is missing, say how long it takes."""

import importlib
import importlib.metadata
import os
import subprocess
import sys

from IPython import get_ipython
from packaging.requirements import Requirement

from data.files import DataError
from data.tokenizer import TokenizerError
from gpt2.errors import TrainError
from gpt2.machine import machine, matmul_works, version_of
from lab.project import ROOT, read_json, requirements

EXTRAS = {"gpt2_training": ["train"], "gpt2_gradio": ["ship"], "bpe": ["train"]}  # beyond the core


def hello(notebook):
    """Install what `notebook` lacks (never torch) and print one line: this machine, and minutes to expect."""
    install_missing(EXTRAS.get(notebook, []))
    say_errors_in_a_sentence(DataError, TokenizerError, TrainError)
    here = machine()
    name = here["gpu"] or f"CPU, {here['cores']} core{'s' if here['cores'] != 1 else ''}"
    if here["device"] == "cuda" and not matmul_works("cuda"):
        name = f"{here['gpu']}, which this build of PyTorch cannot use (choose T4 x2 in the settings)"
    print(f"{name}: {minutes_sentence(notebook, here)}.")


def say_errors_in_a_sentence(*kinds):
    """In a notebook: what the reader can mend is said in the error's own sentence, without a traceback."""
    def in_a_sentence(shell, kind, error, trace, tb_offset=None):
        print(error, file=sys.stderr)

    if shell := get_ipython():
        shell.set_custom_exc(kinds, in_a_sentence)


def minutes_sentence(notebook, here, table=None):
    """Expected time in words, from measured runs: {notebook: {"CPU" or a card: {"seconds": s, ...}}}."""
    if os.environ.get("QUICK") == "1":
        return "QUICK=1, small budgets, about a minute"
    runs = (table if table is not None else read_json(ROOT / "results" / "minutes.json")).get(notebook, {})
    run = runs.get(here["gpu"] or "CPU")
    same_cpu = run and run.get("cores") == here["cores"] and run.get("machine", {}).get("cpu") == here["cpu"]
    if run and (here["gpu"] or same_cpu):
        return f"about {minutes(run)}"
    if "CPU" in runs:
        cpu = runs["CPU"]
        where = f"{cpu.get('cores')} cores of {cpu.get('machine', {}).get('cpu', 'another CPU')}"
        return f"not yet measured here (about {minutes(cpu)} on {where})"
    return "not yet measured"


def minutes(run):
    whole = max(1, round(run["seconds"] / 60))
    return f"{whole} minute{'s' if whole != 1 else ''}"


def is_met(need):
    """Whether a requirement such as "gradio>=6" is installed here."""
    need, have = Requirement(need), version_of(Requirement(need).name)
    return have is not None and need.specifier.contains(have, prereleases=True)


def install_missing(extras=()):
    """Install the packages of pyproject.toml that are missing or too old, and say which; never torch."""
    torch, *others = requirements(extras)
    if not is_met(torch):
        print(f"PyTorch here is {version_of('torch')}; the project is written for {torch}: it may not run.")
    wanted = [need for need in others if not is_met(need)]
    if not wanted:
        return
    if version_of("transformers"):  # a newer Hub client breaks an old one: pip must find a set that works
        wanted.append("transformers")
    print(f"Installing {', '.join(wanted)} ...", flush=True)
    before = installed()
    command = [sys.executable, "-m", "pip", "install", "--quiet", *wanted]
    if subprocess.run(command, capture_output=True).returncode:
        raise SystemExit(f"{', '.join(wanted)} could not be installed: "
                         "turn on Internet in the notebook's settings.")
    importlib.invalidate_caches()
    say_what_changed(before, installed())


def installed():
    """{name: version} of all packages here."""
    return {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}


def say_what_changed(before, now):
    """Nothing is replaced in silence; what was in use already needs a new kernel."""
    changed = {name: version for name, version in now.items() if before.get(name) != version}
    lines = [f"{name} {before[name]} -> {v}" if name in before else f"{name} {v}"
             for name, v in changed.items()]
    print("Installed:", ", ".join(sorted(lines, key=str.lower)) or "nothing")
    in_use = [name for name in changed if name in before and name.replace("-", "_") in sys.modules]
    if in_use:
        print(f"{', '.join(in_use)} was in use already: restart the kernel, then run this cell again.")
