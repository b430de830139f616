"""A folder has one writer: a file in it says who, and until when to believe it.

    FOLDER/owner.json   {"pid": 123, "host": "name", "started": ..., "since": "17:05", "beat": seconds
    since 1970}

An owner that died does not block. On the same machine the process is looked up; an owner on another
machine is believed
while its last sign of life is younger than PATIENCE.
"""

import contextlib
import datetime
import json
import os
import socket
import time

from data.files import write_atomic
from gpt2.errors import TrainError

NAME = "owner.json"
BEAT = 60  # seconds between signs of life
PATIENCE = 10 * BEAT  # an owner elsewhere that was silent for so long is dead


class Owner:
    """Holds folders for this process, from take() to release()."""

    def __init__(self):
        self.folders, self.beat_at = [], time.time()

    def take(self, folder):
        """Become the owner of an existing folder. Raises TrainError, with who holds it, if somebody does."""
        path = os.path.join(folder, NAME)
        for _ in range(3):
            if create(path):
                self.folders.append(folder)
                return
            held = read(path)
            if held is not None and is_alive(held):
                raise TrainError(f"{folder} is in use by a run on {held['host']} (process {held['pid']}, "
                                 f"since {held['since']}): wait for it, stop it, or choose another folder"
                                 f"{if_gone(held)}.")
            put_away(path, held)
        raise TrainError(f"{folder} is just being taken by another run: choose another folder.")

    def beat(self):
        """A sign of life, at most one a minute. A disk that refuses it is found out by what matters more."""
        if time.time() - self.beat_at < BEAT:
            return
        self.beat_at = time.time()
        for folder in self.folders:
            with contextlib.suppress(OSError):
                if is_mine(read(os.path.join(folder, NAME))):
                    write_atomic(os.path.join(folder, NAME), card())

    def release(self):
        for folder in self.folders:
            path = os.path.join(folder, NAME)
            with contextlib.suppress(OSError):
                if is_mine(read(path)):
                    os.remove(path)
        self.folders = []


def card():
    now = datetime.datetime.now()
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started(os.getpid()),
                       "since": f"{now:%H:%M}", "beat": time.time()})


def create(path):
    """Write the card, unless a file is there already: then False."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(card())
        return True
    except FileExistsError:
        return False


def read(path):
    """Whose card it is; None where there is none, or none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            held = json.load(file)
        return {"pid": int(held["pid"]), "host": str(held["host"]), "started": held["started"],
                "since": str(held["since"]), "beat": float(held["beat"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def if_gone(held):
    """What to do if the owner's machine was taken away, as Colab's are: a new one has another name."""
    if held["host"] == socket.gethostname():
        return ""
    free = datetime.datetime.now() + datetime.timedelta(seconds=PATIENCE + BEAT + held["beat"] - time.time())
    return f" or, if that machine is gone, go on after {free:%H:%M}"


def put_away(path, held):
    """Remove the card of a dead owner, held as it was read (None: it could not be)."""
    with contextlib.suppress(OSError):
        if held is None and time.time() - os.path.getmtime(path) < BEAT:
            time.sleep(0.3)  # it may be half written
            return
        away = f"{path}.{os.getpid()}"
        os.replace(path, away)
        if read(away) == held:
            os.remove(away)
        else:  # another run was faster: the card is its own
            os.replace(away, path)


def is_mine(held):
    return held is not None and (held["pid"], held["host"]) == (os.getpid(), socket.gethostname())


def is_alive(held):
    recent = abs(time.time() - held["beat"]) < PATIENCE
    if held["host"] != socket.gethostname() or os.name != "posix":
        return recent
    try:
        os.kill(held["pid"], 0)  # only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return held["started"] == started(held["pid"])  # or its number was given to another process since


def started(pid):
    """When a process began, in the kernel's own count since the machine did; None where the system does
    not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if fields[0] == "Z" else [boot, fields[19]]  # Z: it died, and nobody has asked for it
