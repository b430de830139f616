"""What this machine is: facts for every number, and whether its card works. Torch is imported late."""

import contextlib
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import re
import subprocess
from pathlib import Path

from data.files import ROOT


def machine():
    """The machine as a dict of plain values: device, gpu, cpu, cores, ram_gb, python, torch, os."""
    gpu = gpu_facts()
    return {"device": gpu.pop("device"), **gpu, "cpu": cpu_name(), "cores": cores(), "ram_gb": ram_gb(),
            "python": platform.python_version(), "torch": version_of("torch"),
            "os": f"{platform.system()} {platform.machine()}"}


def machine_facts(device):
    """Where a number of a run was measured, for best/metrics.json."""
    import torch

    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"device": card or device.type, "cpu": cpu_name(), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__, "system": platform.system(),
            "commit": commit()["commit"], "date": now}


def gpu_facts():
    """What torch sees: device "cuda", "mps" or "cpu", and a card's name, memory and capability."""
    if importlib.util.find_spec("torch") is None:
        return {"device": "cpu", "gpu": None}
    import torch

    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        facts = {"gpu": card.name, "gpus": torch.cuda.device_count(),
                 "gpu_gb": round(card.total_memory / 2**30, 1)}
        return {"device": "cuda", **facts, "capability": f"{card.major}.{card.minor}"}
    if torch.backends.mps.is_available():
        return {"device": "mps", "gpu": "Apple GPU"}
    return {"device": "cpu", "gpu": None}


def matmul_works(device):
    """A card may be there and the first operation die: Kaggle's P100 has no kernels in the stock image."""
    import torch

    try:
        square = torch.ones(8, 8, device=device)
        return (square @ square).sum().item() == 512.0
    except RuntimeError:
        return False


def cores():
    """CPU cores that this process may really use: a container's share, not its host's count."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    return count


def cpu_name():
    info = Path("/proc/cpuinfo")
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*:\s*(.+)", info.read_text()):
            return found[1].strip()
    return platform.processor() or platform.machine()


def ram_gb():
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)


def version_of(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit():
    """{"commit": short hash, None outside a checkout, "dirty": whether tracked files differ from it}"""
    head = git("rev-parse", "--short=12", "HEAD")
    changed = head and git("status", "--porcelain", "--untracked-files=no")
    return {"commit": head or None, "dirty": bool(changed)}


def git(*arguments):
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
