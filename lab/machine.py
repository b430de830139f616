"""What this machine is, how long a notebook takes on it, and the one way to write a measured result."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def machine():
    """The machine as a dict of plain values: device, gpu, cpu, cores, ram_gb, python, torch, os."""
    gpu = gpu_facts()
    return {
        "device": gpu.pop("device"),
        **gpu,
        "cpu": cpu_name(),
        "cores": cores(),
        "ram_gb": ram_gb(),
        "python": platform.python_version(),
        "torch": version_of("torch"),
        "os": f"{platform.system()} {platform.machine()}",
    }


def gpu_facts():
    """The accelerator that torch sees: device "cuda", "mps" or "cpu", and a card's name, memory and capability."""
    if importlib.util.find_spec("torch") is None:
        return {"device": "cpu", "gpu": None}
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        facts = {"gpu": card.name, "gpus": torch.cuda.device_count(), "gpu_gb": round(card.total_memory / 2**30, 1)}
        return {"device": "cuda", **facts, "capability": f"{card.major}.{card.minor}"}
    if torch.backends.mps.is_available():
        return {"device": "mps", "gpu": "Apple GPU"}
    return {"device": "cpu", "gpu": None}


def gpu_works():
    """Whether a real matmul runs: a P100 reports itself as available although stock builds hold no kernels for it."""
    import torch

    try:
        square = torch.ones(8, 8, device="cuda")
        return bool((square @ square).sum().item() == 512)
    except RuntimeError:
        return False


def cores():
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name():
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def ram_gb():
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def version_of(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def report(corpus=None):
    """Print all that is known about the machine, the code and the text: the last, folded cell of each notebook."""
    facts = {**machine(), **commit(), "date": today()}
    if corpus is not None:
        facts["corpus"] = f"{corpus.name} {corpus.sha256}"
    for name, value in facts.items():
        print(f"{name:>11}  {value}")


def write_result(path, config, data=None, **measured):
    """Write one measured result as JSON, in one piece, and return it.

    `config` is a dict of what was asked, `data` the Corpus (or None), `measured` what came out, `seconds` among it.
    Machine, date, commit and command are added.
    """
    result = {
        "machine": machine(),
        "date": today(),
        **commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "config": config,
        "corpus": None if data is None else {"name": data.name, "sha256": data.sha256},
        **measured,
    }
    write_atomic(path, json.dumps(result, indent=1) + "\n")
    return result


def write_atomic(path, text):
    """Replace a text file in one step: a reader sees the old file or the new one, never a piece."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def commit():
    """{"commit": short hash or None, "dirty": whether tracked files differ from it}"""
    head = git("rev-parse", "--short=12", "HEAD")
    return {"commit": head or None, "dirty": bool(head and git("status", "--porcelain", "--untracked-files=no"))}


def git(*arguments):
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def today():
    return time.strftime("%Y-%m-%d", time.gmtime())
