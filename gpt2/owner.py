"""A folder has one writer. owner.json in it says who, and is locked as long as that process lives.

    FOLDER/owner.json   {"pid": 123, "host": "name", "since": "17:05", "beat": seconds since 1970}

The lock ends with the process, however it dies, and holds on one machine. An owner on another machine is
believed while its last sign of life is younger than PATIENCE.
"""

import contextlib
import datetime
import json
import os
import socket
import time

from gpt2.errors import TrainError

try:
    import fcntl
except ImportError:  # Windows: every owner is judged by its signs of life
    fcntl = None

NAME = "owner.json"
BEAT = 60  # seconds between signs of life
PATIENCE = 10 * BEAT  # an owner elsewhere that was silent for so long is dead


class Owner:
    """Holds folders for this process, from take() to release()."""

    def __init__(self):
        self.files, self.beat_at = {}, time.time()

    def take(self, folder):
        """Become the owner of an existing folder. Raises TrainError, with who holds it, if somebody does."""
        path = os.path.join(folder, NAME)
        file = open(path, "a+", encoding="utf-8")
        locked, held = lock(file), read(path)
        if locked and not is_at(path, file):  # its owner has just gone, and taken it along
            file.close()
            return self.take(folder)
        alive = held and abs(time.time() - held["beat"]) < PATIENCE
        elsewhere = held and held["host"] != socket.gethostname()
        if locked is False or alive and (elsewhere or locked is None):
            file.close()
            raise TrainError(in_use(folder, held, elsewhere))
        write(file)
        self.files[path] = file

    def beat(self):
        """A sign of life, at most one a minute. A disk that refuses it is found out by what matters more."""
        if time.time() - self.beat_at < BEAT:
            return
        self.beat_at = time.time()
        for path, file in self.files.items():
            with contextlib.suppress(OSError):
                if is_mine(path):
                    write(file)

    def release(self):
        for path, file in self.files.items():
            with contextlib.suppress(OSError):
                if is_mine(path):
                    file.truncate(0)  # where an open file cannot be removed, an empty card holds nothing
                    os.remove(path)
            file.close()
        self.files = {}


def lock(file):
    """True, False if another process of this machine has it, None where the system cannot lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except (OSError, AttributeError):
        return None


def is_at(path, file):
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except OSError:
        return False


def card():
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(),
                       "since": f"{datetime.datetime.now():%H:%M}", "beat": time.time()})


def write(file):
    """In place: a new file would not be the locked one."""
    file.truncate(0)
    file.write(card())
    file.flush()


def read(path):
    """Whose card it is; None where there is none, or none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            held = json.load(file)
        return {"pid": int(held["pid"]), "host": str(held["host"]), "since": str(held["since"]),
                "beat": float(held["beat"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_mine(path):
    held = read(path)
    return held and (held["pid"], held["host"]) == (os.getpid(), socket.gethostname())


def in_use(folder, held, elsewhere):
    if not held:
        return f"{folder} is just being taken by another run: choose another folder."
    gone = ""
    if elsewhere:  # Colab takes machines away, and a new one has another name
        free = datetime.datetime.fromtimestamp(held["beat"] + PATIENCE + BEAT)
        gone = f" or, if that machine is gone, go on after {free:%H:%M}"
    return (f"{folder} is in use by a run on {held['host']} (process {held['pid']}, since {held['since']}): "
            f"wait for it, stop it, or choose another folder{gone}.")
