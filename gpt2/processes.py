"""A run on several cards or machines, as one; signals that ask it to stop; and the end of the program."""

import contextlib
import os
import signal
import sys

import torch
import torch.distributed as dist

from gpt2.errors import TrainError


def join(device):
    """-> (rank, world). Under torchrun, join the group; alone, (0, 1)."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0, 1
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        try:
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except (RuntimeError, ValueError) as error:
            raise TrainError(f"Process {os.environ.get('RANK')} does not reach the others "
                             f"({str(error).splitlines()[0][:200]}): start all with torchrun, and on "
                             "each machine name the same reachable --rdzv_endpoint.") from error
    return dist.get_rank(), dist.get_world_size()


def leave():
    """The end of the command. A pipe that was closed meanwhile (`| head`) is no error of the run."""
    if dist.is_initialized():
        dist.destroy_process_group()
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains of it once more


def from_first(value, world):
    """The value that process 0 has, on all of them."""
    box = [value]
    if world > 1:
        dist.broadcast_object_list(box, 0)
    return box[0]


def first_does(work, rank, world):
    """Process 0 calls work(); all get what it returns. What it raises, the others raise as TrainError."""
    result = failed = None
    if rank == 0:
        try:
            result = work()
        except Exception as error:  # whatever it is: the others wait for an answer
            failed = error
    result, why = from_first((result, failed and (str(failed) or repr(failed))), world)
    if failed:
        raise failed
    if why:
        raise TrainError(why)
    return result


def agree(what, value, world):
    """Raise TrainError on every process where one of them has another value."""
    if world == 1:
        return
    values = [None] * world
    dist.all_gather_object(values, value)
    other = [rank for rank in range(world) if values[rank] != values[0]]
    if other:
        raise TrainError(f"Process {other[0]} was started with another {what} than process 0: "
                         "give every machine the same command and the same text.")


def mean_over(values, device, world):
    """Numbers of this process -> their means over all processes, the same everywhere."""
    if world == 1:
        return values
    t = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(t)
    return (t / world).tolist()


class StopSignals:
    """While this is open, Ctrl-C and SIGTERM only ask; a second Ctrl-C interrupts at once."""

    def __enter__(self):
        self.asked, self.at_once, self.before = False, False, {}
        for sig in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: leave signals alone
                self.before[sig] = signal.signal(sig, self._ask)
        return self

    def _ask(self, number, frame):
        if self.asked and number == signal.SIGINT:
            self.at_once = True
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, kind, error, trace):
        for sig, handler in self.before.items():
            signal.signal(sig, handler)
        if self.at_once and error:  # whatever was made of it on the way: torch's writer reports a full disk
            raise KeyboardInterrupt from None
