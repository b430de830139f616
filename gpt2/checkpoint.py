"""What a training run writes and reads back: checkpoints, the best model, the log.

    OUT_DIR/last.pt         all that is needed to go on, bit for bit; last.prev.pt is the one before
    OUT_DIR/best/           the model with the lowest validation loss: a GPT-2 folder, metrics.json, ngram5.npz
    OUT_DIR/history.jsonl   a line a step (step, loss, lr, norm, dt_ms, tok_s), a line an evaluation (step, val_loss)
    OUT_DIR/log-DATE.txt    what was said, with the time;  OUT_DIR/tb/  the same for TensorBoard

Every file is replaced in one step: a kill at any moment leaves the old one or the new one, never half of one.
"""

import contextlib
import json
import os
import pickle
import shutil
import zipfile

import torch
import torch.distributed as dist

from data.ngram import NGram
from gpt2.errors import TrainError


def disk_error(error, what, then=""):
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
    return TrainError(f"Could not write {what} ({why}): free some space or choose another --out-dir. {then}".strip())


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
    for name in ("last.pt", "last.prev.pt"):
        path = os.path.join(folder, name)
        if not os.path.exists(path):
            continue
        try:
            checkpoint = read_checkpoint(path)
        except (OSError, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile,
                pickle.UnpicklingError) as error:
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
    with zipfile.ZipFile(path) as z:  # torch.load does not look at the check sums
        if (bad := z.testzip()) is not None:
            raise ValueError(f"wrong check sum of {bad}")
    return torch.load(path, map_location="cpu", weights_only=True)


def has_run(folder):
    return any(os.path.exists(os.path.join(folder, name)) for name in ("last.pt", "last.prev.pt"))


def remove_run(folder):
    for name in ("last.pt", "last.prev.pt", "history.jsonl"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, name))
    for name in ("best", "best.old", "tb"):
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


def save_best(folder, model, corpus, metrics, dtype=torch.float32):
    """folder/best: the model, its tokenizer, what was measured, and for characters the 5-gram to compare it with."""
    best, new, counts = (os.path.join(folder, name) for name in ("best", "best.tmp", "ngram5.npz"))
    try:
        shutil.rmtree(new, ignore_errors=True)
        model.save_pretrained(new, dtype=dtype)
        corpus.tokenizer.save(new, block_size=model.config.block_size)
        if hasattr(corpus, "train_text") and corpus.tokenizer.vocab_size < 1000:
            if not os.path.exists(counts):  # fitted once a run
                NGram(5, corpus.tokenizer.vocab_size).fit(corpus.train.numpy()).save(counts)
            shutil.copyfile(counts, os.path.join(new, "ngram5.npz"))
            metrics = dict(metrics, ngram5_val_loss=ngram_loss(counts, corpus))
        with open(os.path.join(new, "metrics.json"), "w", encoding="utf-8") as f:
            json.dump(metrics, f, indent=2)
        swap_folder(new, best)
    except OSError as error:
        raise disk_error(error, f"the best model in {best}") from error


NGRAM_LOSS = {}  # corpus hash -> nats per character; two seconds each, and always the same


def ngram_loss(path, corpus):
    if corpus.sha256 not in NGRAM_LOSS:
        NGRAM_LOSS[corpus.sha256] = float(NGram.load(path).loss(corpus.val.numpy()))
    return NGRAM_LOSS[corpus.sha256]


def copy_run(source, target):
    """Copy checkpoints, best/ and history, each replaced whole: for a Drive that outlives the session, and back."""
    os.makedirs(target, exist_ok=True)
    for name in ("last.prev.pt", "last.pt", "history.jsonl"):
        if os.path.exists(os.path.join(source, name)):
            shutil.copyfile(os.path.join(source, name), os.path.join(target, name + ".tmp"))
            os.replace(os.path.join(target, name + ".tmp"), os.path.join(target, name))
    if os.path.isdir(os.path.join(source, "best")):
        new = os.path.join(target, "best.tmp")
        shutil.rmtree(new, ignore_errors=True)
        shutil.copytree(os.path.join(source, "best"), new)
        swap_folder(new, os.path.join(target, "best"))
