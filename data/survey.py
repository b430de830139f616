"""A careful walk through a reader's folder: what is text, what is passed over, what is there twice."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

from data.decode import decode
from data.files import DataError

LONG_LINE = 40  # characters; a longer line that comes in train and in validation is no chance


def find_texts(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """(text files in order, [(what was passed over, why)]): as a careful person would walk."""
    paths, skipped = [], []
    for place, folders, names in os.walk(folder):
        for name in sorted(folders):
            if name.startswith((".", "__")):
                skipped.append((Path(place) / name, "hidden"))
            elif (Path(place) / name).is_symlink():
                skipped.append((Path(place) / name, "a link to a folder"))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for path in (Path(place) / name for name in sorted(names)):
            if path.name.startswith("."):
                skipped.append((path, "hidden"))
            elif path.suffix.lower() != ".txt":
                skipped.append((path, "not .txt"))
            elif not path.is_file():
                skipped.append((path, "no ordinary file"))
            else:
                paths.append(path)
    return paths, skipped


class Survey:
    """A first look at all files: which hold text, its symbols, and what validation must not share
    with train.
    """

    def __init__(self, paths, skipped, val_share):
        self.paths, self.skipped, self.symbols, self.lines = [], list(skipped), set(), {}
        # of much text, some lines will do
        self.every = 1 + sum(path.stat().st_size for path in paths) // 50_000_000
        known = {}
        for path in paths:
            try:
                text, _ = read(path)
            except DataError as error:
                self.skipped.append((path, str(error)))
                continue
            twin = known.setdefault(hashlib.sha256(text.strip().encode("utf-8")).digest(), path)
            if not text.strip():
                self.skipped.append((path, "empty"))
            elif twin != path:
                self.skipped.append((path, f"the same text as {twin}"))
            else:
                self.paths.append(path)
                self.symbols |= set(text)
                self.lines.update(dict.fromkeys(self._long_lines(cut(text, val_share)[1]), False))

    def _long_lines(self, text):
        keys = (
            zlib.crc32(line.encode("utf-8"))
            for line in map(str.strip, text.split("\n"))
            if len(line) > LONG_LINE
        )
        return (key for key in keys if key % self.every == 0)

    def seen_again(self, train: str) -> int:
        """How many of validation's long lines come in `train` and in no train text before it."""
        again = {key for key in self._long_lines(train) if self.lines.get(key) is False}
        self.lines.update(dict.fromkeys(again, True))
        return len(again)

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

    def warning(self, seen: int) -> str:
        return (
            f"{seen / len(self.lines):.1%} of validation's long lines come in train too, so its loss will be "
            "too good: take out what is there twice"
        )


def read(path: Path) -> tuple[str, str]:
    """(text, how it was read); DataError if it is none."""
    try:
        return decode(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None


def cut(text: str, val_share: float) -> tuple[str, str]:
    at = int((1 - val_share) * len(text))
    return text[:at], text[at:]
