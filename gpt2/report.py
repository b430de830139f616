"""What a run says of itself: first and last lines, a line a step, its metrics, and what went wrong, in words.

`run` is always train_gpt2.Run.
"""

import contextlib
import dataclasses
import os
from datetime import datetime, timedelta

import torch

from gpt2.checkpoint import disk_error, has_run
from gpt2.device import NAMES
from gpt2.errors import TrainError
from gpt2.machine import machine_facts
from gpt2.plan import disk_text, memory_plan, peak_memory
from gpt2.settings import as_command

A_FEW = 5  # steps that a pace is told by
TOO_MANY_SKIPS = 25  # a scaler that starts at 2**16 needs at most 16 halvings to come down to 1


def say_hello(run, reason):
    c, g, p, log = run.config, run.raw.config, run.progress, run.log
    each = f" on each of {run.world} processes" if run.world > 1 else ""
    log.say(f"text: {run.corpus.name}, {len(run.corpus.train):,} tokens to learn from")
    log.say(f"model: {g.n_layer} layers, {g.n_embd} wide, context {g.block_size}, "
            f"{run.raw.num_params():,} parameters")
    log.say(f"precision on {run.device}: {reason}")
    log.say(f"a step: {c.tokens_per_step:,} tokens in {c.sequences} sequences, {run.micro} at once{each}; "
            f"an epoch: {steps_per_epoch(run)} steps")
    for line in disk_text(c, g) if c.out_dir else ():
        log.say(line, screen=True if "NOT ENOUGH" in line else None)
    if 0 < p.step < c.max_steps:
        log.say(f"going on after step {p.step}{end_text(c)}")
    if c.minutes:
        end = datetime.now() + timedelta(seconds=60 * c.minutes - p.clock)
        log.say(f"the clock ends it after {c.minutes:g} minutes, at {end:%H:%M:%S} at the latest")


def end_text(config, step=0):
    if config.minutes:
        return f" ({config.minutes:g} minutes in all)"
    return f" of {config.max_steps}" if step <= config.max_steps else ""


def steps_per_epoch(run):
    return max(1, len(run.corpus.train) // run.config.tokens_per_step)


def record_step(run, loss, lr, norm, moved, seconds):
    """Count the step in progress, and say and keep its line, which is returned."""
    p, c = run.progress, run.config
    p.train_loss, p.seconds = loss, p.seconds + seconds
    p.skipped += not moved
    p.skips_in_a_row = 0 if moved else p.skips_in_a_row + 1
    tok_s = c.tokens_per_step / seconds
    record = {"step": p.step, "loss": loss, "lr": lr, "norm": norm, "dt_ms": 1000 * seconds, "tok_s": tok_s}
    if run.scaler.is_enabled():
        record["scale"] = run.scaler.get_scale()
    if not moved:
        record["skipped"] = p.skipped
    run.log.step(record, end_text(c), seconds_left(run))
    count_epoch(run, loss if moved else None)
    return record


def count_epoch(run, loss):
    p, n = run.progress, steps_per_epoch(run)
    if loss is not None:
        p.epoch_loss, p.epoch_steps = p.epoch_loss + loss, p.epoch_steps + 1
    if p.step % n == 0 and n > 1:
        epoch, mean = p.step // n, p.epoch_loss / max(1, p.epoch_steps)
        run.log.say(f"epoch {epoch} | mean train loss {mean:.4f}")
        run.log.keep({"step": p.step, "epoch": epoch, "epoch_loss": mean})
        p.epoch_loss, p.epoch_steps = 0.0, 0


def seconds_left(run):
    """At the pace of this session, or what the clock has left if that is less; None before a few steps.

    What comes before the first step (teachers who read the text, say) is not part of the pace.
    """
    p, c, (step, clock) = run.progress, run.config, run.ready_at
    if p.step - step < A_FEW:
        return None
    by_steps = (c.max_steps - p.step) * (p.clock - clock) / (p.step - step)
    return min(by_steps, 60 * c.minutes - p.clock) if c.minutes else by_steps


def sample(run):
    tokenizer = run.corpus.tokenizer
    start = torch.tensor([[tokenizer.start_id]], device=run.device)
    ids = run.raw.generate(start, run.config.sample_chars, seed=run.config.seed)
    return tokenizer.decode(ids[0, 1:].tolist())


def metrics(run):
    """What best/metrics.json says of the model: numbers, and where and how they came about."""
    p, c = run.progress, run.config
    used, what = peak_memory(run.device)
    return {"val_loss": p.val_loss, "val_loss_char": p.val_loss / run.corpus.chars_per_token,
            "train_loss": p.train_loss, "step": p.step, "tokens": p.step * c.tokens_per_step,
            "seconds": p.seconds, "skipped_steps": p.skipped, "parameters": run.raw.num_params(),
            "precision": NAMES[run.dtype], "processes": run.world, "corpus": run.corpus.facts(),
            "memory": {"predicted_bytes": planned(run), "measured_bytes": used, "measured_is": what},
            "config": dataclasses.asdict(c), "machine": machine_facts(run.device)}


def planned(run):
    return sum(memory_plan(run.raw.config, run.micro, run.dtype, run.config.optimizer).values())


def farewell(run, stopped):
    p, c = run.progress, run.config
    used, what = peak_memory(run.device)
    skipped = f", {p.skipped} steps skipped" if p.skipped else ""
    measured = f", {used / 1e6:,.0f} MB {what}" if used else ""
    lines = [f"stopped at step {p.step}{end_text(c, p.step)} ({stopped}) after {p.seconds:.1f} s in steps"
             f"{skipped}",
             f"memory: {planned(run) / 1e6:,.0f} MB planned{measured}"]
    if p.best_step:
        best = os.path.join(c.out_dir, "best")
        kept = (f", kept in {best}" if os.path.isdir(best) else
                f"; {best} is gone, the same command with --resume auto writes it anew")
        kept = kept if c.out_dir else ""
        lines.append(f"best validation {p.best_loss:.4f} nats a token at step {p.best_step}{kept}")
    if stopped == "signal" and c.out_dir:
        lines.append(f"saved; go on with: {as_command(c, resume='auto')}")
    return "\n".join(lines)


# ---- What goes wrong


def check_skips(run):
    """Raise TrainError when step after step is skipped."""
    p, folder = run.progress, run.config.out_dir
    if p.skips_in_a_row < TOO_MANY_SKIPS:
        return
    scale = f", gradient scale {run.scaler.get_scale():g}" if run.scaler.is_enabled() else ""
    where = f" The last good checkpoint is that of step {run.saved_step} in {folder}."
    raise TrainError(f"The gradient was not finite {TOO_MANY_SKIPS} times in a row (last loss "
                     f"{p.train_loss:.4g}{scale}): the run has diverged, "
                     "start it with a lower --lr or more --warmup-steps."
                     + (where if folder and has_run(folder) else ""))


@contextlib.contextmanager
def explain_errors(run):
    """What goes wrong in a run, as one sentence that says how to go on."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, f"the files of the run in {run.config.out_dir}") from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise TrainError(out_of_memory(run)) from error
        if run.world == 1:
            raise
        raise TrainError(f"Process {run.rank} lost the others after step {run.progress.step} "
                         f"({str(error).splitlines()[0][:200]}): start again with the same command and "
                         f"--resume auto to go on after step {run.saved_step}.") from error


def out_of_memory(run):
    sequences = f"{run.micro} sequences" if run.micro > 1 else "one sequence"
    mend = (f"--batch-size {run.micro // 2} does the same run in less memory" if run.micro > 1 else
            "lower --block-size or the model's size, or take a larger card (--plan shows what is needed)")
    return f"Out of memory after step {run.progress.step} with {sequences} at once: {mend}."
