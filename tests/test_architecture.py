"""ARCHITECTURE.md against the tree: every name on it exists, every room is there, imports point one way."""

import ast
import json
import re
import subprocess
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT

from lab.project import notebooks

MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
TABLE = MAP.split("## The way")[0]
ROOMS = ("data", "model_gpt2", "gpt2", "train_gpt2", "lab", "space", "bench")


def allowed():
    """{room: rooms that it may import}, read from the table of the map."""
    found = {}
    for name, may in re.findall(r"^\| `([\w./]+)` \|.*\| (.*) \|$", TABLE, re.MULTILINE):
        rooms = ROOMS if "all" in may else re.findall(r"`(\w+)`", may)
        found[name.rstrip("/").removesuffix(".py")] = set(rooms)
    return found


ALLOWED = allowed()
FILES = [path for room in ROOMS for path in [*ROOT.glob(f"{room}.py"), *sorted(ROOT.glob(f"{room}/*.py"))]]


def imports(nodes):
    """The modules of ours that some syntax nodes import, as "lab.plots"."""
    for node in nodes:
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else []:
            names.append(f"{names[0]}.{alias.name}" if names else alias.name)  # from lab import plots
        for name in names:
            if name.split(".")[0] in ROOMS and (ROOT / f"{name.replace('.', '/')}.py").is_file():
                yield name


def module(path):
    return path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")


def test_imports_point_one_way():
    """Catches a room that reaches back, an import placed late to hide it, a circle among modules."""
    top = {}
    for path in FILES:
        tree, room = ast.parse(path.read_text(encoding="utf-8")), module(path).split(".")[0]
        for name in imports(ast.walk(tree)):
            assert name.split(".")[0] in {room} | ALLOWED[room], f"{path.relative_to(ROOT)} imports {name}"
        top[module(path)] = set(imports(tree.body))
    assert not top["model_gpt2"] and len(top) > 50
    TopologicalSorter(top).prepare()  # CycleError names the circle


def test_every_name_on_the_map_exists():
    """Catches a map of a house that has been rebuilt."""
    for name in set(re.findall(r"`([\w./*]+(?:/|\.(?:py|md|ipynb|json)))`", MAP)) - {"NAME.ipynb", "best/"}:
        assert list(ROOT.glob(name.rstrip("/"))), name
    for name, target in re.findall(r"`([A-Z]{4,})` in `([\w/]+\.py)`", MAP):
        assert re.search(rf"^{name}\b", (ROOT / target).read_text(encoding="utf-8"), re.MULTILINE), name


def test_every_room_is_on_the_map():
    """Catches a new folder or a top-level module that nobody has drawn."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("needs the project as a git clone")
    tracked = done.stdout.splitlines()
    rooms = {name.split("/")[0] + "/" for name in tracked if "/" in name and not name.startswith(".")}
    rooms |= {name for name in tracked if "/" not in name and name.endswith((".py", ".ipynb"))}
    assert [room for room in sorted(rooms) if f"`{room}`" not in TABLE] == []


def test_only_the_setup_cell_touches_the_path():
    """Catches `sys.path` games, and checks of the style that are switched off line by line."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if module(path) not in ("lab.notebook", "space.app"):  # the set-up cell; a Space starts app.py alone
            assert "sys.path" not in text, path
        assert "noqa" not in text, path
    cells = [cell for path in notebooks() for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]
    touching = {cell["id"] for cell in cells if cell["cell_type"] == "code"
                and "sys.path" in re.sub('""".*?"""', "", "".join(cell["source"]), flags=re.DOTALL)}
    assert touching == {"setup", "publish-hub"}, "the map names the cells that touch sys.path"
