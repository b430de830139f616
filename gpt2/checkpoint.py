"""The files of a run: checkpoints, the best model, the copy in a second folder.

    OUT_DIR/last.pt         all that is needed to go on, bit for bit; last.prev.pt is the one before
    OUT_DIR/best/           the model with the lowest validation loss: a GPT-2 folder, its measurements
    OUT_DIR/history.jsonl   a line a step: step, loss, lr, norm, dt_ms, tok_s; an evaluation: step, val_loss
    OUT_DIR/log-DATE.txt    what was said, with the time;  OUT_DIR/tb/  the same for TensorBoard
    OUT_DIR/owner.json      who writes here: see owner.py

Every file is replaced in one step: a kill at any moment leaves the old one or the new one, never half of one.
"""

import contextlib
import errno
import os
import shutil
import zipfile
from pathlib import Path

import torch
import torch.distributed as dist

from data.files import write_atomic
from gpt2.errors import TrainError

DRIVE = "/content/drive"  # where Colab mounts Google Drive
FULL = "free some space or choose another --out-dir"
CLOSED = "it may not be written to, choose another --out-dir"
ADVICE = {errno.ENOSPC: FULL, errno.EDQUOT: FULL, errno.EACCES: CLOSED, errno.EPERM: CLOSED,
          errno.EROFS: "that disk is read-only, choose another --out-dir"}


def disk_error(error, what, then=""):
    """An OSError, named for what it is, as the one sentence for the user."""
    # torch's writer turns a full disk into a RuntimeError
    code = error.errno if isinstance(error, OSError) else errno.ENOSPC
    why = getattr(error, "strerror", None) or str(error).splitlines()[0]
    advice = ADVICE.get(code, "choose another --out-dir or look after the disk")
    return TrainError(f"Could not write {what} ({why}): {advice}. {then}".strip())


# ---- Checkpoints


def save_checkpoint(folder, checkpoint):
    """Write folder/last.pt, the one before stays as last.prev.pt: one of them is whole at every moment.

    Raises TrainError when the disk refuses; the old checkpoints are untouched then.
    """
    last, previous = (os.path.join(folder, name) for name in ("last.pt", "last.prev.pt"))
    new = last + ".tmp"
    try:
        with open(new, "wb") as f:
            torch.save(checkpoint, f)
            f.flush()
            os.fsync(f.fileno())
        if os.path.exists(last):
            os.replace(last, previous)
        os.replace(new, last)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            os.remove(new)
        raise disk_error(error, f"the checkpoint of step {checkpoint['step']} in {folder}",
                         "The last one is still good." if has_run(folder) else "") from error


def load_checkpoint(folder, warn=print):
    """The newest whole checkpoint of a folder, on the CPU; None if there is none. Warns of a damaged one.

    Raises TrainError if there are checkpoints and none can be read.
    """
    damaged = []
    for path in checkpoints(folder):
        try:
            check_sums(path)
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # what is damaged fails in a dozen ways
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            warn(f"warning: {path} is damaged ({why}), it is not used.")
            damaged.append(path)
            continue
        for path in damaged:  # out of the way, or the next save would keep it as "the one before"
            os.replace(path, path + ".damaged")
        return checkpoint
    if damaged:
        raise unreadable(folder)
    return None


def unreadable(folder):
    return TrainError(f"No checkpoint in {folder} can be read: --resume overwrite starts again.")


def check_sums(path):
    with zipfile.ZipFile(path) as z:  # torch.load does not look at them
        if (bad := z.testzip()) is not None:
            raise ValueError(f"wrong check sum of {bad}")


def look_into(folder, whole=False):
    """{"step", "config"} of a folder's newest checkpoint (whole: that is not damaged), or None.

    Its tensors stay on the disk.
    """
    for path in checkpoints(folder):
        with contextlib.suppress(Exception):
            if whole:
                check_sums(path)
            saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            return {"step": saved["step"], "config": saved["config"]}
    return None


def checkpoints(folder):
    paths = [os.path.join(folder, name) for name in ("last.pt", "last.prev.pt")]
    return [path for path in paths if os.path.exists(path)]


def has_run(folder):
    return bool(checkpoints(folder))


def remove_run(folder):
    """Delete what a run left, and nothing else."""
    for name in ("last.pt", "last.prev.pt", "last.pt.damaged", "last.prev.pt.damaged", "history.jsonl",
                 "ngram5.npz"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, name))
    for name in ("best", "best.old", "best.tmp", "moments", "tb"):
        shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def rng_states(device, world=1):
    """The state of torch's generators, one dict a process."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    states = [{"cpu": torch.get_rng_state(), "cuda": cuda}]
    if world > 1:
        mine, states = states[0], [None] * world
        dist.all_gather_object(states, mine)
    return states


def set_rng_state(state, device):
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


# ---- Before a run: whose folder is it, and where does it go on?


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
    if copy and (here is None or here["step"] < copy["step"] and same_run(here["config"], identity)):
        warn(f"going on from the copy in {c.copy_to}, which stands at step {copy['step']}")
        copy_run(c.copy_to, c.out_dir)


def take_folder(folder, owner):
    if not_mounted(folder):
        raise TrainError(f"{folder} lies on Google Drive, which is not mounted: run `from "
                         f"google.colab import drive; drive.mount('{DRIVE}')` first, or name another folder.")
    try:
        os.makedirs(folder, exist_ok=True)
        owner.take(folder)
    except OSError as error:
        raise disk_error(error, f"into {folder}") from error


def not_mounted(folder):
    """Whether a folder is meant to be on Colab's Drive while none is there: it would be lost in silence."""
    inside = os.path.abspath(folder).startswith(DRIVE + os.sep)
    return inside and not os.path.ismount(DRIVE)


def refuse_a_run(folder, flag):
    if folder and has_run(folder):
        raise TrainError(f"{folder} ({flag}) already holds a run: --resume auto goes on with it, "
                         "--resume overwrite throws it away.")


def differences(saved, now):
    """What decides the numbers and is not the same; a setting that an older checkpoint lacks is no matter."""
    return [f"{name} {saved[name]!r} there, {now[name]!r} here" for name in now
            if name != "horizon" and name in saved and saved[name] != now[name]]


def same_run(saved, now):
    return not differences(saved, now)


def refuse_another_run(saved, now, folder, flag="--out-dir", warn=lambda text: None):
    """A checkpoint continues only its own run: compare what decides the numbers, name what differs."""
    if differ := differences(saved, now):
        over = ", or start over with --resume overwrite" if flag == "--out-dir" else ""
        raise TrainError(f"{folder} holds a run with other settings ({'; '.join(differ)}): use them again, "
                         f"choose another {flag}{over}.")
    before, after = (f"{h} steps" if isinstance(h, int) else h for h in (saved["horizon"], now["horizon"]))
    if before != after:
        warn(f"note: the learning rate now falls over {after}, it was {before}.")


# ---- Folders that are replaced whole


def swap_folder(new, folder):
    """Put a finished folder in the place of another. A kill in between leaves folder.old: see mend_folder."""
    old = folder + ".old"
    shutil.rmtree(old, ignore_errors=True)
    if os.path.exists(folder):
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def mend_folder(folder):
    if not os.path.exists(folder) and os.path.exists(folder + ".old"):
        os.replace(folder + ".old", folder)


def save_best(folder, write):
    """folder/best, made anew by write(path), which fills an empty folder."""
    best, new = os.path.join(folder, "best"), os.path.join(folder, "best.tmp")
    try:
        shutil.rmtree(new, ignore_errors=True)
        os.makedirs(new)
        write(new)
        swap_folder(new, best)
    except OSError as error:
        raise disk_error(error, f"the best model in {best}") from error


# ---- The copy


def copy_run(source, target):
    """Copy checkpoint, history and best/, each replaced whole: to a Drive that outlives us, and back.

    Raises OSError where it cannot, or where the source has no whole checkpoint; the target keeps its own then.
    """
    os.makedirs(target, exist_ok=True)
    last, history = os.path.join(target, "last.pt"), os.path.join(source, "history.jsonl")
    copy_whole(checkpoints(source), last + ".tmp")
    if os.path.exists(history):  # before last.pt: lines beyond a checkpoint are dropped, missing ones are lost
        write_atomic(os.path.join(target, "history.jsonl"), Path(history).read_bytes())
    os.replace(last + ".tmp", last)
    if os.path.isdir(os.path.join(source, "best")):
        new = os.path.join(target, "best.tmp")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(os.path.join(source, "best"), new)
        swap_folder(new, os.path.join(target, "best"))


def copy_whole(paths, new):
    """Copy the first of the checkpoints whose copy is whole: neither damaged nor cut off on the way."""
    for path in paths:
        shutil.copyfile(path, new)
        with contextlib.suppress(Exception):
            return check_sums(new)
    with contextlib.suppress(OSError):
        os.remove(new)
    raise OSError(errno.EIO, "no checkpoint to copy is whole")


def why_not_copied(config, step, identity):
    """Copy the run of out_dir, which stands at `step`, into copy_to; "" or why it was not done.

    Never over another run, nor an earlier step over a later one that is whole.
    """
    source, target = config.out_dir, config.copy_to
    there = look_into(target)
    if there and not same_run(there["config"], identity):
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
