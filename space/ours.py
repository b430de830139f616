"""What an earlier build of ours left in a folder, and nothing else, may go.

Every folder that is built ends with a mark in its README: the list of files that this project wrote. By it a
repo, or a folder on this machine, is known as ours.
"""

import json
import os
import re
from pathlib import Path

from space.folder import FolderError

MARK = "<!-- made with gpt2-from-scratch: {} -->\n"


def files_in(folder: Path) -> list[str]:
    """Every file under a folder, as plain relative names; links to folders are not followed."""
    found = [Path(place, name).relative_to(folder) for place, _, names in os.walk(folder) for name in names]
    return sorted(path.as_posix() for path in found)


def made_files(readme: str) -> list[str] | None:
    """The files that a README's mark lists, or None if it has no mark of ours."""
    found = re.search(re.escape(MARK.strip()).replace(r"\{\}", r"(\[.*?\])"), readme)
    try:
        return [name for name in json.loads(found[1]) if isinstance(name, str)] if found else None
    except ValueError:
        return None


def prepare(out: Path, model: Path | None = None) -> Path:
    """Make the folder, or empty it of an earlier build, and return it; FolderError if it holds more."""
    if model is not None and out.resolve() in (model.resolve(), *model.resolve().parents):
        raise FolderError(f"{out} cannot be built in, the model itself lies there: name an empty or new "
                           "folder.")
    if out.exists() and not out.is_dir():
        raise FolderError(f"{out} is a file: name a folder that is empty or new.")
    out.mkdir(parents=True, exist_ok=True)
    readme, found = out / "README.md", files_in(out)
    ours = made_files(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else None
    if foreign := [name for name in found if name not in (ours or [])]:
        raise FolderError(f"{out} holds {foreign[0]}, which no earlier build put there: name an empty or "
                           "new folder.")
    for name in found:
        (out / name).unlink()
    return out


def mark(out: Path) -> Path:
    """Write the list of files under the README; returns the folder, which is then complete."""
    with open(out / "README.md", "a", encoding="utf-8") as readme:
        readme.write("\n" + MARK.format(json.dumps(files_in(out))))
    return out
