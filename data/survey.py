"""A careful walk through a reader's folder: what is text, what is passed over, what is there twice."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from data.corpus import split
from data.decode import decode
from data.files import DataError

LONG_LINE = 40  # characters; a longer line that comes in train and in validation is no chance
MUCH_TEXT = 50_000_000  # bytes; of more, some lines will do


def find_texts(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """(text files in order, [(what was passed over, why)]): as a careful person would walk."""
    paths, skipped = [], []
    for place, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(place) / name for name in (*folders, *sorted(names))):
            if why := _passed_over(path):
                skipped.append((path, why))
            elif path.is_file():
                paths.append(path)
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
    return paths, skipped


def _passed_over(path: Path) -> str:
    if path.name.startswith(".") or (path.is_dir() and path.name.startswith("__")):
        return "hidden"
    if path.is_dir():
        return "a link to a folder" if path.is_symlink() else ""
    if path.suffix.lower() != ".txt":
        return "not .txt"
    return "" if path.is_file() else "no ordinary file"


class Survey:
    """A first look at all files: which hold text, its symbols, and the long lines of validation."""

    def __init__(self, folder: Path):
        found, self.skipped = find_texts(folder)
        self.paths, self.symbols = [], set()
        self.lines: dict[int, bool] = {}  # long lines of validation, and whether they are in train too
        self.every = 1 + sum(path.stat().st_size for path in found) // MUCH_TEXT
        first_with = {}  # {hash of a text: its file}
        for path in found:
            try:
                text, _ = read(path)
            except DataError as error:
                self.skipped.append((path, str(error)))
                continue
            twin = first_with.setdefault(hashlib.sha256(text.strip().encode("utf-8")).digest(), path)
            if not text.strip():
                self.skipped.append((path, "empty"))
            elif twin != path:
                self.skipped.append((path, f"the same text as {twin}"))
            else:
                self.paths.append(path)
                self.symbols |= set(text)
                self.lines |= dict.fromkeys(self._long_lines(split(text)[1]), False)

    def _long_lines(self, text: str) -> Iterator[int]:
        for line in map(str.strip, text.split("\n")):
            key = zlib.crc32(line.encode("utf-8"))
            if len(line) > LONG_LINE and key % self.every == 0:
                yield key

    def mark_seen(self, train: str) -> None:
        """Note which of validation's long lines come in `train`."""
        self.lines |= {key: True for key in self._long_lines(train) if key in self.lines}

    def report(self) -> list[str]:
        """What was passed over and why, a line for each reason."""
        reasons: dict[str, list[str]] = {}
        for path, why in self.skipped:
            reasons.setdefault(why, []).append(str(path))
        lines = []
        for why, paths in reasons.items():
            more = f" and {len(paths) - 3} more" if paths[3:] else ""
            lines.append(f"skipped ({why}): {', '.join(paths[:3])}{more}")
        return lines

    def warning(self) -> str:
        """A sentence where validation's long lines were seen in train, else ""."""
        if not any(self.lines.values()):
            return ""
        share = sum(self.lines.values()) / len(self.lines)
        return (
            f"{share:.1%} of validation's long lines come in train too, so its loss will be too good: "
            "take out what is there twice"
        )


def read(path: Path) -> tuple[str, str]:
    """(text, how it was read); DataError if it is none."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
