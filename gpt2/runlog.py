"""What a run says and keeps: the screen, a log file, history.jsonl, a bar, TensorBoard."""

import contextlib
import datetime
import json
import math
import os


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
