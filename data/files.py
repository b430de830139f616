"""What everything leans on: atomic writes, printing that can never end a run, the project's own settings."""

import contextlib
import os
import re
import sys
import tomllib
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class DataError(ValueError):
    """A text that cannot be used; the message names the file and what to do."""


def write_atomic(path: str | os.PathLike, content: str | bytes) -> None:
    """Write `content` (text as UTF-8) to `path` whole or not at all; OSError if the disk refuses.

    A temporary file beside it, fsync, rename: whoever reads `path` sees the old file or the new one.
    """
    path = Path(path)
    part = path.with_name(f"{path.name[:200]}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:  # not tempfile: its mode 0600 would shut a web server out
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def safe_name(name: str) -> str:
    """A file's name without what a shell, a card, a file system or a console could stumble over."""
    return re.sub(r"[^\w.() -]+", "", unicodedata.normalize("NFC", name)).strip(" .-")[:60] or "text"


def say(line: object, file=None) -> None:
    """Print `line`, whatever the console can show: "?" for letters that it lacks, nothing if it is gone."""
    file = sys.stdout if file is None else file
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed pipe or stream, none at all
        try:
            file.write(f"{line}\n")
        except UnicodeEncodeError:
            encoding = getattr(file, "encoding", None) or "ascii"
            file.write(f"{line}\n".encode(encoding, "replace").decode(encoding))
        file.flush()


def settings(root=ROOT) -> dict:
    """The table [project] of pyproject.toml."""
    return tomllib.loads((Path(root) / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def address(what="repository", root=ROOT) -> str:
    """Where the project, or its page ("space"), lies on the web; "" until its owner has written it there."""
    return settings(root).get("urls", {}).get(what, "").rstrip("/")
