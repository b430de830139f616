"""Whose folder is it, and where does a run go on? And the copy in a second folder, there and back."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from data.files import write_atomic
from gpt2.checkpoint import (
    check_sums,
    checkpoints,
    disk_error,
    has_run,
    load_checkpoint,
    look_into,
    mend_folder,
    remove_run,
    replace_folder,
    unreadable,
)
from gpt2.errors import TrainError

DRIVE = "/content/drive"  # where Colab mounts Google Drive


def prepare_folders(config, identity, owner, warn=print):
    """Take out_dir and copy_to, and leave the run to go on with in out_dir. Returns its checkpoint, or None.

    Raises TrainError for a folder that cannot be used: another run's, another process's, no Drive.
    """
    c = config
    for folder in filter(None, (c.out_dir, c.copy_to)):
        take_folder(folder, owner)
        mend_folder(os.path.join(folder, "best"))
    copy = look_into(c.copy_to) if c.copy_to else None
    if copy:
        refuse_another_run(copy["config"], identity, c.copy_to, "--copy-to")
    if c.resume == "overwrite":
        remove_run(c.out_dir)
    elif c.resume == "no":
        refuse_a_run(c.out_dir, "--out-dir")
        refuse_a_run(c.copy_to, "--copy-to")
    elif c.copy_to and has_run(c.copy_to):
        fetch_copy(c, identity, warn)
    saved = load_checkpoint(c.out_dir, warn)
    if saved:
        refuse_another_run(saved["config"], identity, c.out_dir, "--out-dir", warn)
    return saved


def fetch_copy(config, identity, warn):
    """Bring back the copy, if it stands at a later step of this run than out_dir."""
    c = config
    here, copy = look_into(c.out_dir, whole=True), look_into(c.copy_to, whole=True)
    if copy is None and not has_run(c.out_dir):
        raise unreadable(c.copy_to)
    if copy and (here is None or here["step"] < copy["step"] and not differences(here["config"], identity)):
        warn(f"going on from the copy in {c.copy_to}, which stands at step {copy['step']}")
        copy_run(c.copy_to, c.out_dir)


def take_folder(folder, owner):
    on_drive = os.path.abspath(folder).startswith(DRIVE + os.sep)
    if on_drive and not os.path.ismount(DRIVE):  # the folder would be made up, and lost in silence
        raise TrainError(f"{folder} lies on Google Drive, which is not mounted: run `from "
                         f"google.colab import drive; drive.mount('{DRIVE}')` first, or name another folder.")
    try:
        os.makedirs(folder, exist_ok=True)
        owner.take(folder)
    except OSError as error:
        raise disk_error(error, f"into {folder}") from error


def refuse_a_run(folder, flag):
    if folder and has_run(folder):
        raise TrainError(f"{folder} ({flag}) already holds a run: --resume auto goes on with it, "
                         "--resume overwrite throws it away.")


def differences(saved, now):
    """What decides the numbers and is not the same; a setting that an older checkpoint lacks is no matter."""
    return [f"{name} {saved[name]!r} there, {now[name]!r} here" for name in now
            if name != "horizon" and name in saved and saved[name] != now[name]]


def refuse_another_run(saved, now, folder, flag="--out-dir", warn=lambda text: None):
    """A checkpoint continues only its own run: compare what decides the numbers, name what differs."""
    if differ := differences(saved, now):
        over = ", or start over with --resume overwrite" if flag == "--out-dir" else ""
        if saved.get("corpus_sha256") != now.get("corpus_sha256"):
            raise TrainError(f"{folder} holds a run that learned another text, or this one before it was "
                             f"changed: choose another {flag}{over}.")
        raise TrainError(f"{folder} holds a run with other settings ({'; '.join(differ)}): use them again, "
                         f"choose another {flag}{over}.")
    before, after = (f"{h} steps" if isinstance(h, int) else h for h in (saved["horizon"], now["horizon"]))
    if before != after:
        warn(f"note: the learning rate now falls over {after}, it was {before}.")


# ---- The copy


def copy_run(source, target):
    """Copy checkpoint, history and best/, each replaced whole: to a Drive that outlives us, and back.

    Raises OSError where it cannot, or where the source has no whole checkpoint; the target keeps its
    own then.
    """
    os.makedirs(target, exist_ok=True)
    last, history = os.path.join(target, "last.pt"), os.path.join(source, "history.jsonl")
    copy_whole(checkpoints(source), last + ".tmp")
    if os.path.exists(history):  # before last.pt: what is beyond a checkpoint is dropped, a gap would stay
        write_atomic(os.path.join(target, "history.jsonl"), Path(history).read_bytes())
    os.replace(last + ".tmp", last)
    best = os.path.join(source, "best")
    if os.path.isdir(best):
        target = os.path.join(target, "best")
        replace_folder(target, lambda new: shutil.copytree(best, new, dirs_exist_ok=True))


def copy_whole(paths, new):
    """Copy the first of the checkpoints whose copy is whole: neither damaged nor cut off on the way."""
    for path in paths:
        shutil.copyfile(path, new)
        with contextlib.suppress(Exception):
            return check_sums(new)
    with contextlib.suppress(OSError):
        os.remove(new)
    raise OSError(errno.EIO, "no checkpoint to copy is whole")


def make_copy(config, step, identity):
    """Copy the run of out_dir, which stands at `step`, into copy_to; "" or why it was not done.

    Never over another run, nor an earlier step over a later one that is whole.
    """
    source, target = config.out_dir, config.copy_to
    there = look_into(target)
    if there and differences(there["config"], identity):
        return ", which now holds another run."
    if there and there["step"] > step:
        there = look_into(target, whole=True)
    if there and there["step"] > step and config.resume != "overwrite":
        return f", which holds a later step ({there['step']})."
    try:
        copy_run(source, target)
    except OSError as error:
        return f" ({error.strerror or error}); the run itself is safe."
    return ""
