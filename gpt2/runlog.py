"""What a run says and keeps: the screen, a log file, history.jsonl, a bar, TensorBoard. None of it can end
the run."""

import contextlib
import datetime
import json
import math
import os
import time

from data.files import say, write_atomic

FIRST_WORD, EVERY = 10, 60  # seconds until a run says how long it will take; then, of silence on the screen


def log_line(r):
    """One step in the form: step 4946 | loss 0.4774 | lr 6.0e-05 | norm 2.39 | dt 2028.70 ms | tok/s 4038"""
    return (f"step {r['step']} | loss {r['loss']:.4f} | lr {r['lr']:.1e} | norm {r['norm']:.2f} | "
            f"dt {r['dt_ms']:.2f} ms | tok/s {r['tok_s']:.0f}")


def in_words(seconds):
    """90 -> "about 2 minutes", 9000 -> "about 2.5 hours"."""
    if seconds < 100:
        return f"about {max(1, round(seconds))} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 6000 else f"about {seconds / 3600:.1f} hours"


def read_history(folder, up_to=math.inf):
    """The records of history.jsonl up to a step; a last line that a kill cut off is left out."""
    records = []
    with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, "history.jsonl"),
                                                      encoding="utf-8") as f:
        for line in f:
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    return [r for r in records if r["step"] <= up_to]


class RunLog:
    """Says and writes what happens; silent on every process but the first. folder "": nothing is written."""

    def __init__(self, folder, step, config, speaks=True):
        self.speaks, self.log_every, self.records = speaks, config.log_every, []
        self.file = self.history = self.board = self.bar = None
        self.opened_at = self.shown_at = time.monotonic()
        self.told = False  # how long it will take
        if speaks and config.bar:
            self.bar = self._open_bar(step, config)
        if speaks and folder:
            self._open_files(folder, step)
            self.board = self._open_board(folder, step) if config.tensorboard else None

    def _open_files(self, folder, step):
        self.records = read_history(folder, step)  # what lies beyond the checkpoint will be done again
        path = os.path.join(folder, "history.jsonl")
        write_atomic(path, "".join(json.dumps(r) + "\n" for r in self.records))
        self.history = open(path, "a", encoding="utf-8", buffering=1)
        stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        path = os.path.join(folder, f"log-{stamp}.txt")
        self.file = open(path, "a", encoding="utf-8", errors="replace", buffering=1)

    def _open_bar(self, step, config):
        from tqdm import tqdm
        total = config.max_steps if not config.minutes else None
        # disable=None: only where the screen is a terminal
        return tqdm(total=total, initial=step, disable=None, unit="step", dynamic_ncols=True)

    def _open_board(self, folder, step):
        try:
            from torch.utils.tensorboard import SummaryWriter
            return SummaryWriter(os.path.join(folder, "tb"), purge_step=step + 1)
        except ImportError:
            self.say("note: no TensorBoard log, the package tensorboard is missing (pip install "
                     "tensorboard).", True)
            return None

    def say(self, text, screen=None):
        """Into the log file, and on the screen: always, never, or (None) unless the run is to be silent."""
        if not self.speaks:
            return
        self._write("file", f"{datetime.datetime.now():%H:%M:%S} {text}\n")
        if bool(self.log_every) if screen is None else screen:
            self._show(text)

    def _show(self, text):
        self.shown_at = time.monotonic()
        if self.bar is None or self.bar.disable:
            return say(text)
        with self._or_without("bar"):
            self.bar.clear()
            say(text)
            self.bar.refresh()

    def _write(self, name, line):
        """A line into the log file or the history, as long as the disk takes it."""
        with self._or_without(name):
            if getattr(self, name) is not None:
                getattr(self, name).write(line)

    @contextlib.contextmanager
    def _or_without(self, name):
        """What only reports must not end a run: where it fails, it is left out from there on."""
        try:
            yield
        except (OSError, ValueError, UnicodeError) as error:
            setattr(self, name, None)
            say(f"note: the run goes on without its {name} ({error}).")

    def keep(self, record):
        """Add a record to the history; JSON has no NaN, so what is not finite becomes null."""
        if not self.speaks:
            return
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self.records.append(record)
        self._write("history", json.dumps(record) + "\n")
        with self._or_without("board"):
            for name, value in record.items() if self.board else ():
                if name != "step" and isinstance(value, (int, float)):
                    self.board.add_scalar(name, value, record["step"])

    def step(self, record, end, seconds_left):
        """A step: its line, the bar, the history; once, and later on a silent screen, how long it will
        take still."""
        self.say(log_line(record), bool(self.log_every) and record["step"] % self.log_every == 0)
        with self._or_without("bar"):
            if self.bar is not None:
                self.bar.update()
        self.keep(record)
        now = time.monotonic()
        if not self.told and now - self.opened_at > FIRST_WORD or now - self.shown_at > EVERY:
            self.told = True
            until = datetime.datetime.now() + datetime.timedelta(seconds=seconds_left)
            self.say(f"step {record['step']:,}{end} | loss {record['loss']:.3f} | {in_words(seconds_left)} "
                     "left, "
                     f"until {until:%H:%M}", True)

    def sample(self, step, text):
        self.say(f"sample at step {step}:\n{text}")
        with self._or_without("board"):
            if self.board:
                self.board.add_text("sample", text.replace("\n", "  \n"), step)

    def close(self):
        for name in ("bar", "history", "file", "board"):
            with self._or_without(name):
                if getattr(self, name) is not None:
                    getattr(self, name).close()
