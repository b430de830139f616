"""A careful walk through a reader's folder: what is text, what is passed over, what is there twice."""

import hashlib
import os
import zlib
from pathlib import Path

from data.corpus import split
from data.decode import decode
from data.files import DataError

LONG_LINE = 40  # characters; a longer line that comes in train and in validation is no chance
MUCH_TEXT = 50_000_000  # bytes; of more, some lines will do


def walk(folder: Path):
    """Yield (path, "" or why it is passed over) for all below `folder`, as a careful person would."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(place, name) for name in (*folders, *sorted(names))):
            yield path, _passed_over(path)
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]


def _passed_over(path):
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
        self.paths, self.symbols = [], set()
        self.skipped: dict[str, list] = {}  # {why: paths}
        self.lines: dict[int, bool] = {}  # long lines of validation, and whether they are in train too
        self._first_with = {}  # {hash of a text: its file}
        found = [(path, why) for path, why in walk(folder) if why or path.is_file()]
        self._every = 1 + sum(path.stat().st_size for path, why in found if not why) // MUCH_TEXT
        for path, why in found:
            if why := why or self._take(path):
                self.skipped.setdefault(why, []).append(str(path))

    def _take(self, path):
        """"" for a file that is taken, else why not."""
        try:
            text, _ = read(path)
        except DataError as error:
            return str(error)
        words = text.strip()
        if not words:
            return "empty"
        twin = self._first_with.setdefault(hashlib.sha256(words.encode("utf-8")).digest(), path)
        if twin != path:
            return f"the same text as {twin}"
        self.paths.append(path)
        self.symbols |= set(text)
        self.lines |= dict.fromkeys(self._long_lines(split(text)[1]), False)
        return ""

    def _long_lines(self, text):
        for line in map(str.strip, text.split("\n")):
            key = zlib.crc32(line.encode("utf-8"))
            if len(line) > LONG_LINE and key % self._every == 0:
                yield key

    def mark_seen(self, train: str) -> None:
        """Note which of validation's long lines come in `train`."""
        self.lines |= {key: True for key in self._long_lines(train) if key in self.lines}

    def report(self) -> list[str]:
        """What was passed over and why, a line for each reason."""
        lines = []
        for why, paths in self.skipped.items():
            more = f" and {len(paths) - 3} more" if paths[3:] else ""
            lines.append(f"skipped ({why}): {', '.join(paths[:3])}{more}")
        return lines

    def warning(self) -> str:
        """A sentence where validation's long lines were seen in train, else ""."""
        if not any(self.lines.values()):
            return ""
        share = sum(self.lines.values()) / len(self.lines)
        return (f"{share:.1%} of validation's long lines come in train too, so its loss will be too good: "
                "take out what is there twice")


def read(path: Path) -> tuple[str, str]:
    """(text, how it was read); DataError if it is none."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
