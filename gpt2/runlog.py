"""What a run says and keeps: screen, log file, history.jsonl, bar, TensorBoard. None can end the run."""

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
    """90 -> "about 90 seconds", 9000 -> "about 2.5 hours"."""
    if seconds < 100:
        return f"about {max(1, round(seconds))} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 6000 else f"about {seconds / 3600:.1f} hours"


def time_left(seconds):
    until = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
    return f"{in_words(seconds)} left, until {until:%H:%M}"


def read_history(folder, up_to=math.inf):
    """The records of history.jsonl up to a step; a line that a kill cut off, or no record, is left out."""
    records, path = [], os.path.join(folder, "history.jsonl")
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as f:
        for line in f:
            with contextlib.suppress(ValueError, RecursionError):
                records.append(json.loads(line))
    return [r for r in records if isinstance(r, dict) and type(r.get("step")) is int and r["step"] <= up_to]


class RunLog:
    """Says and writes what happens; silent on every process but the first. folder "": nothing is written."""

    def __init__(self, folder, step, config, speaks=True):
        self.speaks, self.log_every, self.records = speaks, config.log_every, []
        self.file = self.history = self.board = self.bar = None
        self.opened_at = self.shown_at = time.monotonic()
        self.said_how_long = False
        if speaks and config.bar:
            from tqdm import tqdm
            total = None if config.minutes else config.max_steps
            # disable=None: only where the screen is a terminal
            self.bar = tqdm(total=total, initial=step, disable=None, unit="step", dynamic_ncols=True)
        if speaks and folder:
            self._open_files(folder, step)
            self.board = self._open_board(folder, step) if config.tensorboard else None

    def _open_files(self, folder, step):
        self.records = read_history(folder, step)  # what lies beyond the checkpoint will be done again
        path = os.path.join(folder, "history.jsonl")
        write_atomic(path, "".join(json.dumps(r) + "\n" for r in self.records))
        self.history = open(path, "a", encoding="utf-8", buffering=1)
        path = os.path.join(folder, f"log-{datetime.datetime.now():%Y%m%d-%H%M%S}.txt")
        self.file = open(path, "a", encoding="utf-8", errors="replace", buffering=1)

    def _open_board(self, folder, step):
        try:
            from torch.utils.tensorboard import SummaryWriter
            return SummaryWriter(os.path.join(folder, "tb"), purge_step=step + 1)
        except ImportError:
            self.say("note: no TensorBoard log, the package tensorboard is missing "
                     "(pip install tensorboard).", True)
            return None

    @contextlib.contextmanager
    def _or_without(self, name):
        """Use one of the things that only report. Where it fails, the run goes on without it."""
        try:
            yield getattr(self, name)
        except (OSError, ValueError) as error:
            setattr(self, name, None)
            say(f"note: the run goes on without its {name} ({error}).")

    def say(self, text, screen=None):
        """Into the log file, and on the screen: always, never, or (None) unless the run is to be silent."""
        if not self.speaks:
            return
        with self._or_without("file") as file:
            if file:
                file.write(f"{datetime.datetime.now():%H:%M:%S} {text}\n")
        if bool(self.log_every) if screen is None else screen:
            self.shown_at = time.monotonic()
            with self._or_without("bar") as bar:
                if bar is not None:  # a bar without a total is false
                    bar.clear()
                say(text)
                if bar is not None:
                    bar.refresh()

    def keep(self, record):
        """Add a record to the history; JSON has no NaN, so what is not finite becomes null."""
        if not self.speaks:
            return
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
        self.records.append(record)
        with self._or_without("history") as history:
            if history:
                history.write(json.dumps(record) + "\n")
        with self._or_without("board") as board:
            for name, value in record.items() if board else ():
                if name != "step" and isinstance(value, (int, float)):
                    board.add_scalar(name, value, record["step"])

    def step(self, record, end, seconds_left):
        """A step: its line, the bar, the history; once, and on a silent screen again, the time left.

        seconds_left: None where that cannot be told yet.
        """
        self.say(log_line(record), bool(self.log_every) and record["step"] % self.log_every == 0)
        with self._or_without("bar") as bar:
            if bar is not None:
                bar.update()
        self.keep(record)
        now = time.monotonic()
        known = seconds_left is not None
        first = known and not self.said_how_long and now - self.opened_at > FIRST_WORD
        if first or now - self.shown_at > EVERY:
            self.said_how_long |= known
            left = f" | {time_left(seconds_left)}" if known else ""
            self.say(f"step {record['step']:,}{end} | loss {record['loss']:.3f}{left}", True)

    def sample(self, step, text):
        self.say(f"sample at step {step}:\n{text}")
        with self._or_without("board") as board:
            if board:
                board.add_text("sample", text.replace("\n", "  \n"), step)

    def close(self):
        for name in ("bar", "history", "file", "board"):
            with self._or_without(name) as thing:
                if thing is not None:
                    thing.close()
