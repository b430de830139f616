"""The project as a folder: its notebooks, what it needs, where it was cloned from."""

import json
import re
import subprocess
from pathlib import Path

from data.files import ROOT, settings

MAIN = ("gpt_dev", "gpt2_training", "gpt2_gradio")


def requirements(extras=(), root=ROOT):
    """The ranges of pyproject.toml: the core's (torch first), then those of the named extras."""
    project = settings(root)
    return sum((project["optional-dependencies"][name] for name in extras), project["dependencies"])


def notebooks(root=ROOT):
    """Paths of the three main notebooks and the side roads, those that exist."""
    root = Path(root)
    main = [path for path in (root / f"{name}.ipynb" for name in MAIN) if path.exists()]
    return main + sorted(root.glob("notebooks/*.ipynb"))


def project_path(path):
    """The path of a file in the project, "notebooks/speed.ipynb"; its bare name when it lies elsewhere."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def read_json(path):
    """A JSON file as an object, or {} where there is none or it cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def remote(root=ROOT):
    """The web address of this clone's `origin`, without user or token; "" where it has none on the web."""
    command = ["git", "remote", "get-url", "origin"]
    try:
        url = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.fullmatch(r"(?:https://(?:[^/@]*@)?|(?:ssh://)?git@)"
                         r"([\w.-]+)[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?", url)
    return f"https://{found[1]}/{found[2]}" if found else ""
