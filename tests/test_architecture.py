"""ARCHITECTURE.md against the tree: every name on it exists, every room is there, imports point one way."""

import ast
import re
import subprocess

import pytest
from conftest import ROOT

MAP = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
ROOMS = ("data", "model_gpt2", "gpt2", "train_gpt2", "lab", "space", "bench")


def allowed():
    """{room: rooms that it may import}, read from the table of the map."""
    found = {}
    for line in MAP.split("## The way")[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.match(r"`([\w./]+)`", cells[0])
        if name and len(cells) == 3:
            room = name[1].rstrip("/").removesuffix(".py")
            found[room] = set(ROOMS) if "all" in cells[2] else {r for r in re.findall(r"`(\w+)`", cells[2])}
    return found


ALLOWED = allowed()


def files(room):
    return [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").is_file() else sorted((ROOT / room).glob("*.py"))


def imports(tree):
    """(room, line, whether at the module's top) of every import of ours in a syntax tree."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
            [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            if (room := name.split(".")[0]) in ROOMS:
                yield room, node.lineno, node in tree.body


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    """Catches a room that reaches back: a circle, or an import placed late to hide one."""
    for path in files(room):
        for other, line, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
            assert other == room or other in ALLOWED[room], f"{path.relative_to(ROOT)}:{line} imports {other}"


def test_no_two_rooms_need_each_other():
    """Catches a circle of imports at the top of modules, where it breaks."""
    needs = {room: set() for room in ROOMS}
    for room in ROOMS:
        for tree in (ast.parse(path.read_text(encoding="utf-8")) for path in files(room)):
            needs[room] |= {other for other, _, top in imports(tree) if top} - {room}
    assert not needs["model_gpt2"] and not needs["data"]
    done = set()
    while rest := [room for room in ROOMS if room not in done]:
        free = [room for room in rest if needs[room] <= done]
        assert free, f"a circle among {rest}"
        done.update(free)


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
    table = MAP.split("## The way")[0]
    assert [room for room in sorted(rooms) if f"`{room}`" not in table] == []


def test_only_the_setup_cell_touches_the_path():
    """Catches `sys.path` games, and checks of the style that are switched off line by line."""
    for path in (path for room in ROOMS for path in files(room)):
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(ROOT).as_posix()
        if where not in ("lab/notebook.py", "space/app.py"):  # the set-up cell; a Space starts app.py alone
            assert "sys.path" not in text, where
        assert "noqa: E402" not in text, where
