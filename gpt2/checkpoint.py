"""The files of a run: checkpoints and the best model.

    OUT_DIR/last.pt         all that is needed to go on, bit for bit; last.prev.pt is the one before
    OUT_DIR/best/           the model with the lowest validation loss: a GPT-2 folder, its measurements
    OUT_DIR/history.jsonl   a line a step: step, loss, lr, norm, dt_ms, tok_s; an evaluation: step, val_loss
    OUT_DIR/log-DATE.txt    what was said, with the time;  OUT_DIR/tb/  the same for TensorBoard
    OUT_DIR/owner.json      who writes here: see owner.py

Every file is replaced in one step: a kill at any moment leaves the old one or the new one, never half of one.
"""

import contextlib
import errno
import math
import os
import shutil
import zipfile
from dataclasses import dataclass

import torch

from gpt2.errors import TrainError
from gpt2.settings import SHAPE_FIELDS
from model_gpt2 import GPT, GPTConfig

PARTS = {"model", "optimizer", "scaler", "rng", "step", "best", "progress", "config"}
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


@dataclass
class Progress:
    """Where a run stands; kept in its checkpoint."""

    step: int = 0  # optimizer steps done
    best_loss: float = math.inf  # lowest exact validation loss, nats a token
    best_step: int = 0
    stale: int = 0  # validations since the best one
    val_loss: float = math.nan  # the last one
    train_loss: float = math.nan  # of the last step
    skipped: int = 0  # steps whose gradient was not finite
    skips_in_a_row: int = 0
    seconds: float = 0.0  # spent in steps, over all sessions
    clock: float = 0.0  # spent in all, over all sessions
    eval_seconds: float = 0.0  # what the last validation took
    window: int = 0  # length of the last training windows
    epoch_loss: float = 0.0  # sum over epoch_steps, since the epoch began
    epoch_steps: int = 0


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
            check_parts(checkpoint)
        except Exception as error:  # what is damaged fails in a dozen ways
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            warn(f"warning: {path} is damaged ({why}), it is not used.")
            damaged.append(path)
            continue
        for path in damaged:  # out of the way, or the next save would keep it as "the one before"
            remove(path + ".damaged")
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


def check_parts(saved):
    """Raise ValueError where what was loaded is no checkpoint of a run, or lacks something."""
    try:
        Progress(**saved["progress"])
        c = saved["config"]
        shape = {name: c[name] for name in SHAPE_FIELDS}
        with torch.device("meta"):  # names and shapes, no memory
            model = GPT(GPTConfig(vocab_size=len(saved["model"]["transformer.wte.weight"]), **shape))
        wanted, found = model.state_dict(), saved["model"]
        complete = {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}
        complete &= saved.keys() >= PARTS and c.keys() >= {"horizon", "dtype"}
        parts = [(saved["optimizer"], {"state", "param_groups"}), (saved["rng"], {"cpu"})]
        complete &= all(bool(held) and all(one.keys() >= names for one in held) for held, names in parts)
    except Exception:  # anything can be anything
        complete = False
    if not complete:
        raise ValueError("it is no checkpoint of this trainer, or lacks a part")


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
                 "ngram5.npz", "best", "best.old", "best.tmp", "moments", "tb"):
        remove(os.path.join(folder, name))


def remove(path):
    """Delete a file, a link or a folder, if there is one."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


# ---- Folders that are replaced whole


def replace_folder(folder, write):
    """Make a folder anew by write(path), which fills an empty one. A kill in between may leave folder.old."""
    new, old = folder + ".tmp", folder + ".old"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    write(new)
    shutil.rmtree(old, ignore_errors=True)
    if os.path.exists(folder):
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def mend_folder(folder):
    """Bring folder.old back where a kill left no folder."""
    if not os.path.exists(folder) and os.path.exists(folder + ".old"):
        os.replace(folder + ".old", folder)


def save_best(folder, write):
    """folder/best, made anew by write(path), which fills an empty folder."""
    best = os.path.join(folder, "best")
    try:
        replace_folder(best, write)
    except OSError as error:
        raise disk_error(error, f"the best model in {best}") from error
