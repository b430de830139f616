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
import pickle
import shutil
import zipfile

import torch
import torch.distributed as dist

from gpt2.errors import TrainError

UNREADABLE = (OSError, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile,
              pickle.UnpicklingError)
DRIVE = "/content/drive"  # where Colab mounts Google Drive
ADVICE = {errno.ENOSPC: "free some space or choose another --out-dir",
          errno.EDQUOT: "free some space or choose another --out-dir",
          errno.EACCES: "it may not be written to, choose another --out-dir",
          errno.EPERM: "it may not be written to, choose another --out-dir",
          errno.EROFS: "that disk is read-only, choose another --out-dir"}


def disk_error(error, what, then=""):
    """An OSError, named for what it is, as the one sentence for the user."""
    # torch's writer hides it in a RuntimeError
    code = error.errno if isinstance(error, OSError) else errno.ENOSPC
    why = getattr(error, "strerror", None) or str(error).splitlines()[0]
    advice = ADVICE.get(code, "choose another --out-dir or look after the disk")
    return TrainError(f"Could not write {what} ({why}): {advice}. {then}".strip())


# ---- Checkpoints


def save_checkpoint(folder, checkpoint):
    """Write folder/last.pt; a whole one is there at every moment, and the one before stays as last.prev.pt.

    Raises TrainError when the disk refuses; the old checkpoint is untouched then.
    """
    last, previous = (os.path.join(folder, name) for name in ("last.pt", "last.prev.pt"))
    new = last + ".tmp"
    try:
        with open(new, "wb") as f:
            torch.save(checkpoint, f)
            f.flush()
            os.fsync(f.fileno())
        if os.path.exists(last):
            keep_previous(last, previous)
        os.replace(new, last)
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        with contextlib.suppress(OSError):
            os.remove(new)
        raise disk_error(error, f"the checkpoint of step {checkpoint['step']} in {folder}",
                         "The last one is still good." if os.path.exists(last) else "") from error


def keep_previous(last, previous):
    with contextlib.suppress(FileNotFoundError):
        os.remove(previous + ".tmp")
    try:
        os.link(last, previous + ".tmp")  # a second name for the same file, so that last.pt never goes away
        os.replace(previous + ".tmp", previous)
    except OSError:  # a file system without hard links
        os.replace(last, previous)


def load_checkpoint(folder, warn=print):
    """The newest whole checkpoint of a folder, on the CPU; None if there is none. Warns of a damaged one.

    Raises TrainError if there are checkpoints and none can be read.
    """
    damaged = []
    for path in checkpoints(folder):
        try:
            checkpoint = read_checkpoint(path)
        except UNREADABLE as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            warn(f"warning: {path} is damaged ({why}), it is not used.")
            damaged.append(path)
            continue
        for path in damaged:  # out of the way, or the next save would keep it as "the one before"
            os.replace(path, path + ".damaged")
        return checkpoint
    if damaged:
        raise TrainError(f"No checkpoint in {folder} can be read: --resume overwrite starts again.")
    return None


def read_checkpoint(path):
    check_sums(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def check_sums(path):
    with zipfile.ZipFile(path) as z:  # torch.load does not look at them
        if (bad := z.testzip()) is not None:
            raise ValueError(f"wrong check sum of {bad}")


def look_into(folder, whole=False):
    """{"step", "config"} of a folder's newest checkpoint (whole: that is not damaged), or None.

    Its tensors stay on the disk.
    """
    for path in checkpoints(folder):
        with contextlib.suppress(*UNREADABLE):
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
    for folder in (c.out_dir, c.copy_to):
        if folder:
            take_folder(folder, owner)
    copy = look_into(c.copy_to) if c.copy_to else None
    if copy:
        refuse_another_run(copy["config"], identity, c.copy_to, "--copy-to")
    if c.resume == "overwrite":
        remove_run(c.out_dir)
    if c.resume == "no":
        refuse_a_run(c.out_dir, has_run(c.out_dir), "--out-dir")
        refuse_a_run(c.copy_to, copy, "--copy-to")
    if c.resume == "auto" and copy:
        here, copy = look_into(c.out_dir, whole=True), look_into(c.copy_to, whole=True)
        if copy and (here is None or here["step"] < copy["step"] and same_run(here["config"], identity)):
            warn(f"going on from the copy in {c.copy_to}, which stands at step {copy['step']}")
            copy_run(c.copy_to, c.out_dir)
    mend_folder(os.path.join(c.out_dir, "best"))
    saved = load_checkpoint(c.out_dir, warn)
    if saved:
        refuse_another_run(saved["config"], identity, c.out_dir, "--out-dir", warn)
    return saved


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


def refuse_a_run(folder, there, flag):
    if there:
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


def copy_run(source, target):
    """Copy checkpoint, best/ and history, each replaced whole: to a Drive that outlives us, and back."""
    os.makedirs(target, exist_ok=True)
    for name in ("history.jsonl", "last.pt"):
        path = os.path.join(source, name)
        path = path if os.path.exists(path) or name != "last.pt" else os.path.join(source, "last.prev.pt")
        if os.path.exists(path):
            shutil.copyfile(path, os.path.join(target, name + ".tmp"))
            os.replace(os.path.join(target, name + ".tmp"), os.path.join(target, name))
    if os.path.isdir(os.path.join(source, "best")):
        new = os.path.join(target, "best.tmp")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(os.path.join(source, "best"), new)
        swap_folder(new, os.path.join(target, "best"))
