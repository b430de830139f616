"""What a training run writes and reads back: checkpoints, the best model, the log.

    OUT_DIR/last.pt         all that is needed to go on, bit for bit; last.prev.pt is the one before
    OUT_DIR/best/           the model with the lowest validation loss: a GPT-2 folder, metrics.json, ngram5.npz
    OUT_DIR/history.jsonl   a line a step (step, loss, lr, norm, dt_ms, tok_s), a line an evaluation (step, val_loss)
    OUT_DIR/log-DATE.txt    what was said, with the time;  OUT_DIR/tb/  the same for TensorBoard

Every file is replaced in one step: a kill at any moment leaves the old one or the new one, never half of one.
"""

import contextlib
import datetime
import json
import math
import os
import pickle
import platform
import shutil
import subprocess
import zipfile

import torch
import torch.distributed as dist

from data.ngram import NGram


class TrainError(ValueError):
    """Something the user can mend; its text is one sentence for the user."""


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


# ---- The log


def log_line(r):
    """One step in the form: step 4946 | loss 0.4774 | lr 6.0e-05 | norm 2.39 | dt 2028.70 ms | tok/s 4038"""
    return (f"step {r['step']} | loss {r['loss']:.4f} | lr {r['lr']:.1e} | norm {r['norm']:.2f} | "
            f"dt {r['dt_ms']:.2f} ms | tok/s {r['tok_s']:.0f}")


def read_history(folder, up_to=math.inf):
    """The records of history.jsonl up to a step; a last line that a kill cut off is left out."""
    records = []
    with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, "history.jsonl"), encoding="utf-8") as f:
        for line in f:
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    return [r for r in records if r["step"] <= up_to]


class RunLog:
    """Says and writes what happens; silent on every process but the first. folder None: nothing is written."""

    def __init__(self, folder, step, log_every=1, bar=True, tensorboard=False, max_steps=0, speaks=True):
        self.speaks, self.log_every, self.records = speaks, log_every, []
        self.file = self.history = self.board = None
        self.bar = self._open_bar(step, max_steps) if speaks and bar else None
        if speaks and folder:
            self._open_files(folder, step)
            self.board = self._open_board(folder, step) if tensorboard else None

    def _open_files(self, folder, step):
        self.records = read_history(folder, step)  # what lies beyond the checkpoint will be done again
        path = os.path.join(folder, "history.jsonl")
        with open(path + ".tmp", "w", encoding="utf-8") as f:
            f.writelines(json.dumps(r) + "\n" for r in self.records)
        os.replace(path + ".tmp", path)
        self.history = open(path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        self.file = open(os.path.join(folder, f"log-{stamp}.txt"), "a", encoding="utf-8", buffering=1)  # noqa: SIM115

    def _open_bar(self, step, max_steps):
        from tqdm import tqdm
        # disable=None: only where the screen is a terminal
        return tqdm(total=max_steps, initial=step, disable=None, unit="step", dynamic_ncols=True)

    def _open_board(self, folder, step):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.say("note: no TensorBoard log, the package tensorboard is missing (pip install tensorboard).", True)
            return None
        return SummaryWriter(os.path.join(folder, "tb"), purge_step=step + 1)

    def say(self, text, screen=None):
        """Into the log file, and on the screen: always, never, or (None) unless the run is to be silent."""
        if not self.speaks:
            return
        screen = bool(self.log_every) if screen is None else screen
        if self.file:
            self.file.write(f"{datetime.datetime.now():%H:%M:%S} {text}\n")
        if screen and self.bar is not None and not self.bar.disable:
            self.bar.write(text)
        elif screen:
            print(text, flush=True)

    def keep(self, record):
        """Add a record to the history; JSON has no NaN, so what is not finite becomes null."""
        if not self.speaks:
            return
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self.records.append(record)
        if self.history:
            self.history.write(json.dumps(record) + "\n")
        if self.board:
            for name, value in record.items():
                if name != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, record["step"])

    def step(self, record):
        self.say(log_line(record), bool(self.log_every) and record["step"] % self.log_every == 0)
        if self.bar is not None:
            self.bar.update()
        self.keep(record)

    def sample(self, step, text):
        self.say(f"sample at step {step}:\n{text}")
        if self.board:
            self.board.add_text("sample", text.replace("\n", "  \n"), step)

    def close(self):
        for thing in (self.bar, self.history, self.file, self.board):
            if thing is not None:
                thing.close()


def machine_facts(device):
    """Where a number was measured."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"device": card or device.type, "cpu": cpu_name(), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__, "system": platform.system(),
            "commit": commit(), "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def cpu_name():
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as f:
        return next((line.split(":")[1].strip() for line in f if line.startswith("model name")), "unknown")
    return platform.processor() or platform.machine()


def commit():
    """The commit of the code that runs, or None outside a checkout."""
    try:
        here = os.path.dirname(os.path.abspath(__file__))
        return subprocess.run(["git", "-C", here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True,
                              timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
