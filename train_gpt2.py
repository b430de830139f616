"""Train a GPT-2 on a CPU, one GPU or many: the same run, one command.

    python train_gpt2.py --preset cpu --out-dir out/cpu --resume auto
    torchrun --standalone --nproc_per_node=2 train_gpt2.py --preset gpt2-char --out-dir out/char --resume auto
    # several machines, the same line on each, HOST being one of them:
    torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST:29500 train_gpt2.py ...

From Python: train(TrainConfig.preset_of("cpu")). Read it downwards: train, start, loop; then the
schedule, one step, the exact loss, what is saved. In gpt2/, a file each: settings (what can be set),
plan (what a run needs), checkpoint (what it leaves), report (what it says), corpus, optim, device,
processes, grow, teacher.
"""

import contextlib
import dataclasses
import math
import os
import sys
import time
from dataclasses import dataclass, field

import torch
from torch.nn.parallel import DistributedDataParallel

from data.batches import get_batch, shuffled_batch
from data.files import DataError, say
from data.tokenizer import TokenizerError
from gpt2.best import complete, fetch_best, is_whole, write_best
from gpt2.checkpoint import Progress, save_best, save_checkpoint
from gpt2.corpus import check_data, load_data
from gpt2.device import DTYPES, NAMES, choose_precision, get_rng, pick_device, pick_precision, set_rng
from gpt2.errors import TrainError
from gpt2.fast_cpu import keep_freed_memory
from gpt2.folders import make_copy, prepare_folders
from gpt2.grow import extend_positions, freeze_matrices, grown, load_models
from gpt2.optim import Muon, make_optimizers, orthogonalize
from gpt2.owner import Owner
from gpt2.plan import model_config, over_windows, pick_micro_batch, show_plan, try_compile
from gpt2.processes import StopSignals, agree, first_does, from_first, join, leave, mean_over
from gpt2.report import check_skips, explain_errors, farewell, metrics, record_step, sample, say_hello
from gpt2.runlog import RunLog
from gpt2.settings import LAW_FIELDS, PRESETS, SHAPE_FIELDS, TrainConfig, parse_command
from gpt2.teacher import soft_loss, soft_targets, teacher_table
from model_gpt2 import GPT

__all__ = ["Muon", "PRESETS", "TrainConfig", "TrainError", "TrainResult", "evaluate", "lr_at", "main",
           "make_optimizers", "micro_batches", "model_config", "optimizer_step", "orthogonalize",
           "pick_device", "pick_precision", "train"]

COPY_SECONDS = 20 * 60  # between copies to --copy-to


@dataclass
class TrainResult:
    """What train() returns."""

    model: GPT  # as it is after the last step; the best one is in out_dir/best
    progress: Progress
    stopped: str  # max_steps, minutes, patience, target_loss, signal or callback
    history: list = field(default_factory=list)  # the records of history.jsonl
    out_dir: str = ""

    @property
    def train_losses(self):
        return [r["loss"] for r in self.history if "loss" in r]

    @property
    def val_losses(self):
        return [(r["step"], r["val_loss"]) for r in self.history if "val_loss" in r]

    @property
    def samples(self):
        """{validation loss: what the model wrote then}"""
        return {r["val_loss"]: r["sample"] for r in self.history if "sample" in r}


@dataclass
class Run:
    """What a run holds while it goes. What it needs to go on later is in `progress` and in checkpoint()."""

    config: TrainConfig
    corpus: object
    device: torch.device
    rank: int  # of this process
    world: int  # number of processes
    began: float  # when the clock stood at 0
    progress: Progress = field(default_factory=Progress)
    owner: Owner = field(default_factory=Owner)
    log: RunLog = None
    raw: GPT = None  # never wrapped: this one is saved
    model: torch.nn.Module = None  # the same weights, compiled or shared between processes
    expected: torch.Tensor = None  # (N, V): what teachers expect at each place of the training text
    optimizers: list = field(default_factory=list)
    scaler: torch.amp.GradScaler = None
    dtype: torch.dtype = torch.float32
    micro: int = 1  # sequences at once
    ready_at: tuple = (0, 0.0)  # the step and the clock where this session's steps begin
    saved_step: int = 0
    saved_at: float = 0.0
    copied_at: float = 0.0


def train(config, corpus=None, callback=None):
    """Train as config says, from the start or from out_dir's checkpoint. Returns a TrainResult.

    corpus: as data.text.load_text gives it; None loads what the config names.
    callback(record, model): called after each step and each validation with its line of history; True
    stops the run.
    Sets torch's global seed. Raises TrainError or DataError, in one sentence, for what the user can mend.
    """
    began = time.monotonic()
    config.check()
    device = pick_device(config.device)
    rank, world = join(device)
    corpus = corpus or load_data(config, quiet=rank > 0)
    check_data(config, corpus)
    run = Run(config, corpus, device, rank, world, began)
    try:
        with StopSignals() as signals, explain_errors(run):
            start(run)
            stopped = loop(run, signals, callback)
            if rank == 0 and config.out_dir and stopped != "signal":
                complete(os.path.join(config.out_dir, "best"), corpus, device)
            save(run, last=True)
    finally:
        if run.log:
            run.log.close()
        run.owner.release()
    return TrainResult(run.raw, run.progress, stopped, run.log.records, config.out_dir)


def start(run):
    """Everything up to the first step: the folders, the model, and what a checkpoint brings back."""
    c, world = run.config, run.world
    agree("set of settings", identity_of(run), world)
    warn = say if run.rank == 0 else (lambda text: None)
    saved = None
    if c.out_dir:  # process 0 reads for all, so that all stand at the same step
        saved = first_does(lambda: prepare_folders(c, identity_of(run), run.owner, warn), run.rank, world)
    run.log = RunLog(c.out_dir, saved["step"] if saved else 0, c, speaks=run.rank == 0)
    before = saved["config"]["dtype"] if saved else None
    run.dtype, scale, reason = from_first(choose_precision(c, run.device, before), world)
    run.scaler = torch.amp.GradScaler(run.device.type, enabled=scale)
    build_model(run, grow_it=not saved)
    run.optimizers = make_optimizers(run.raw, c, run.dtype)
    torch.manual_seed(c.seed + 1_000_003 * run.rank)  # each process drops out its own activations
    if saved:
        restore(run, saved)
    if c.minutes and not run.progress.eval_seconds:
        time_validation(run)
    run.saved_step, run.saved_at, run.copied_at = run.progress.step, time.monotonic(), time.monotonic()
    say_hello(run, reason)
    if run.progress.best_step and c.out_dir:
        mend_best(run)


def build_model(run, grow_it):
    """The model, its teachers, and how many sequences it takes at once."""
    c, device, dtype, world = run.config, run.device, run.dtype, run.world
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(c.seed)
    run.raw = GPT(model_config(c, run.corpus.tokenizer.vocab_size)).to(device)
    if c.grow_from and grow_it:
        run.raw = grown(c.grow_from, run.raw.config, run.corpus.train).to(device)
    if c.freeze_matrices:
        freeze_matrices(run.raw, c.grow_from)
    if c.teacher:
        run.log.say(f"the teachers read the text once ({len(run.corpus.train):,} tokens)", True)
        teachers = [model.to(device) for model in load_models(c.teacher, "--teacher")]
        run.expected = teacher_table(teachers, run.corpus.train, device)
    run.micro = from_first(pick_micro_batch(c, run.raw, dtype, device, world), world)
    run.model = run.raw
    if c.compile:
        T = c.window_at(0)  # compiling happens at the first call of a shape: that of the first steps
        run.model = try_compile(run.raw, run.micro * c.block_size // T, T, dtype, device, run.log.say)
    if world > 1:
        cards = [device] if device.type == "cuda" else None
        run.model = DistributedDataParallel(run.model, device_ids=cards)


def loop(run, signals, callback=None):
    """Step, say, validate, save, until there is a reason to stop; returns the reason."""
    c, p = run.config, run.progress
    run.ready_at = p.step, time.monotonic() - run.began
    stopped = why_stop(run)
    if stopped:
        run.log.say(f"nothing to do: the run in {c.out_dir} stands at step {p.step} ({stopped}); "
                    f"it is kept, and another --{stopped.replace('_', '-')} goes on with it.", True)
    while not stopped:
        keep_moment(run)
        start = time.perf_counter()
        lr = lr_at(c, p.step, horizon(run))
        set_lr(run.optimizers, c, lr)
        batches = next_batches(run)
        loss, norm, moved = optimizer_step(run.model, run.optimizers, run.scaler, batches, run.dtype,
                                           c.grad_clip)
        p.step += 1
        mine = [loss.item(), time.monotonic() - run.began, float(signals.asked), float(save_due(run))]
        loss, p.clock, asked, due = mean_over(mine, run.device, run.world)
        records = [record_step(run, loss, lr, norm.item(), moved, time.perf_counter() - start)]
        check_skips(run)
        if p.step % c.eval_every == 0 or why_stop(run):
            records.append(validate(run))
        wishes = [bool(callback(record, run.raw)) for record in records] if callback else []
        wish = mean_over([float(any(wishes))], run.device, run.world)[0]  # of any process
        stopped = "signal" if asked else "callback" if wish else why_stop(run)
        if stopped == "callback" and len(records) == 1:
            validate(run)
        if stopped or (due and moved):  # never right after a step that was skipped
            save(run)
        run.owner.beat()
    keep_moment(run)
    run.log.say(farewell(run, stopped))
    return stopped


# ---- One step


def lr_at(config, step, horizon=None):
    """AdamW's learning rate at a step (0 is the first): up over warmup_steps, then down to min_lr.

    horizon: how many steps the fall takes; by default those that the config says. A clock gives its own.
    """
    c, horizon = config, horizon or config.horizon
    warmup = min(c.warmup_steps, horizon // 2)
    if step < warmup:
        return c.lr * (step + 1) / warmup
    if c.schedule == "constant":
        return c.lr
    if step >= horizon:
        return c.min_lr
    left = (horizon - step) / (horizon - warmup)  # 1 after the warm-up, 0 at the end
    share = left if c.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
    return c.min_lr + share * (c.lr - c.min_lr)


def set_lr(optimizers, config, lr):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * (config.muon_lr / config.lr if isinstance(optimizer, Muon) else 1.0)


def next_batches(run):
    """The batches of the step, in windows of the length whose turn it is."""
    c, p = run.config, run.progress
    window = c.window_at(p.step / max(1, horizon(run)))
    if 0 < p.window < window:  # positions that no window held before get their start
        extend_positions(run.raw, p.window, window)
        run.log.say(f"step {p.step} | windows of {window} from here")
    p.window = window
    return micro_batches(run.corpus, c, p.step, run.micro, run.device, run.rank, run.world, window,
                         run.expected)


def micro_batches(corpus, config, step, micro, device, rank=0, world=1, T=None, expected=None):
    """This process's share of the step's batch in pieces: [(x, y), ...], each (micro, T).

    expected: (N, V), what teachers expect at each place of the training text; y is (micro, T, V) then.
    """
    T = T or config.block_size
    micro = micro * config.block_size // T  # as many tokens at once
    draw = shuffled_batch if config.order == "shuffled" else get_batch
    how = T, config.tokens_per_step // T, config.seed, step
    x, y = draw(corpus.train, *how)  # (sequences, T) each
    mine = slice(rank * len(x) // world, (rank + 1) * len(x) // world)  # of the whole global batch
    x, y = x[mine], y[mine]
    if expected is not None:
        y = soft_targets(draw(expected, *how)[1][mine], y, config.teacher_weight)  # (sequences, T, V)
    return [(a.to(device), b.to(device)) for a, b in zip(x.split(micro), y.split(micro), strict=True)]


def optimizer_step(model, optimizers, scaler, micro_batches, dtype=torch.float32, grad_clip=1.0):
    """One whole step: the gradients of all micro-batches, then scale, unscale, clip, step, update.

    micro_batches: list of (x, y) on the model's device; x (B, T), y (B, T), or (B, T, V) from teachers.
    Returns (mean loss, gradient norm before clipping, whether the weights moved). A norm that is not finite
    moves nothing. We decide that ourselves: the scaler keeps found_inf for each optimizer apart, so one
    could step without the other.
    """
    loss_sum = 0.0
    for i, (x, y) in enumerate(micro_batches):
        # processes exchange gradients once a step, with the last micro-batch
        waits = isinstance(model, DistributedDataParallel) and i < len(micro_batches) - 1
        with model.no_sync() if waits else contextlib.nullcontext():
            with torch.autocast(x.device.type, dtype=dtype, enabled=dtype != torch.float32):
                loss = model(x, y)[1] if y.dim() == 2 else soft_loss(model, x, y)
                loss = loss / len(micro_batches)
            scaler.scale(loss).backward()
        loss_sum += loss.detach()
    for optimizer in optimizers:
        scaler.unscale_(optimizer)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip or math.inf)
    moved = bool(torch.isfinite(norm))
    for optimizer in optimizers:
        if moved:
            scaler.step(optimizer)
    scaler.update()
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    return loss_sum, norm, moved


# ---- How far: by steps, or by the clock


def why_stop(run):
    """The reason to stop after this step, or None."""
    c, p = run.config, run.progress
    if c.target_loss and p.train_loss <= c.target_loss:
        return "target_loss"
    if c.patience and p.stale >= c.patience:
        return "patience"
    if is_done(run):
        return "max_steps" if p.step >= c.max_steps else "minutes"
    return None


def is_done(run):
    c = run.config
    return run.progress.step >= c.max_steps or bool(c.minutes) and clock_share(run) >= 1


def horizon(run):
    """Over how many steps the rate falls: those of the config, or what the clock allows at this pace."""
    c, p = run.config, run.progress
    if not c.minutes or not p.step:
        return c.horizon
    return min(c.horizon, p.step / clock_share(run))


def clock_share(run):
    """How much of --minutes is over; time is kept back for the last step and the last validation."""
    c, p = run.config, run.progress
    one_step = p.seconds / max(1, p.step)
    return p.clock / max(1e-9, 60 * c.minutes - p.eval_seconds - 2 * one_step)


def time_validation(run):
    """What the last validation will take, from a part of one: the clock keeps it back from the start."""
    ids = run.corpus.val
    part, began = ids[: max(2, len(ids) // 16)], time.monotonic()
    evaluate(run.raw, part)
    seconds = (time.monotonic() - began) * len(ids) / len(part)
    run.progress.eval_seconds = mean_over([seconds], run.device, run.world)[0]


# ---- The exact loss


def evaluate(model, ids, rank=0, world=1):
    """Exact loss in nats a token: every target of ids (N,) once, in windows of block_size, in fp32.

    Of several processes each takes the windows whose turn it is: the sum of what they return is the loss.
    """
    def summed(x, y):
        return model(x, y)[1].double().item() * y.numel()

    return over_windows(model, ids, summed, rank, world) / (len(ids) - 1)


def validate(run):
    """The exact loss, the same on all processes; the best model kept; a sample."""
    c, p, began = run.config, run.progress, time.monotonic()
    part = evaluate(run.raw, run.corpus.val, run.rank, run.world)
    p.val_loss = run.world * mean_over([part], run.device, run.world)[0]
    better, per_char = p.val_loss < p.best_loss, p.val_loss / run.corpus.chars_per_token
    if better:
        p.best_loss, p.best_step, p.stale = p.val_loss, p.step, 0
    else:
        p.stale += 1
    unit = "" if per_char == p.val_loss else f" nats/token, {per_char:.4f} nats/char"
    run.log.say(f"step {p.step} | validation {p.val_loss:.4f}{unit}" + (" | best so far" if better else ""))
    record = {"step": p.step, "val_loss": p.val_loss, "val_loss_char": per_char}
    if run.rank == 0 and c.sample_chars:
        record["sample"] = sample(run)
        run.log.sample(p.step, record["sample"])
    run.log.keep(record)
    if run.rank == 0 and better and c.out_dir:
        dtype = DTYPES[c.best_dtype]
        save_best(c.out_dir, lambda folder: write_best(folder, run.raw, run.corpus, metrics(run), dtype))
    now = time.monotonic()
    p.eval_seconds, p.clock = mean_over([now - began, now - run.began], run.device, run.world)
    return record


def mend_best(run):
    """Where best/ is gone or damaged: the copy's, or the model as it stands, measured anew."""
    c, p, best = run.config, run.progress, os.path.join(run.config.out_dir, "best")
    if from_first(run.rank > 0 or is_whole(best), run.world):
        return
    gone = f"warning: {best} is gone or damaged: "
    fetched = run.rank == 0 and c.copy_to and fetch_best(os.path.join(c.copy_to, "best"), best, p.best_step)
    if from_first(fetched, run.world):
        return run.log.say(f"{gone}that of {c.copy_to} takes its place.", True)
    lost = "" if p.best_step == p.step else f"; the best one, of step {p.best_step}, is lost"
    run.log.say(f"{gone}it is written anew from the model of step {p.step} in last.pt{lost}.", True)
    p.best_loss, p.best_step, p.stale = math.inf, 0, 0
    validate(run)
    run.saved_step = 0
    save(run)


# ---- What is saved, and comes back


def save(run, last=False):
    """last.pt now (all processes call it: each hands in its random state), and the copy when it is due."""
    c, p = run.config, run.progress
    if not c.out_dir:
        return
    if run.saved_step != p.step:
        state = checkpoint(run)
        if run.rank == 0:
            save_checkpoint(c.out_dir, state)
        run.saved_step, run.saved_at = p.step, time.monotonic()
    if run.rank == 0 and c.copy_to and (last or time.monotonic() - run.copied_at > COPY_SECONDS):
        run.copied_at = time.monotonic()
        if why := make_copy(c, run.saved_step, identity_of(run)):
            run.log.say(f"warning: no copy in {c.copy_to}{why}", True)


def save_due(run):
    c, minutes = run.config, (time.monotonic() - run.saved_at) / 60
    return bool(c.save_every and run.progress.step % c.save_every == 0) or minutes >= c.save_minutes


def keep_moment(run):
    """The weights as they are now, if --keep-steps names this step: the page plays them, noise to verse."""
    c, step = run.config, run.progress.step
    if run.rank == 0 and c.out_dir and step in c.moments:
        run.raw.save_pretrained(os.path.join(c.out_dir, "moments", str(step)), dtype=torch.float16)


def checkpoint(run):
    p = run.progress
    return {"model": run.raw.state_dict(), "optimizer": [o.state_dict() for o in run.optimizers],
            "scaler": run.scaler.state_dict(), "rng": get_rng(run.device, run.world), "step": p.step,
            "best": {"val_loss": p.best_loss, "step": p.best_step}, "progress": dataclasses.asdict(p),
            "config": {**dataclasses.asdict(run.config), **identity_of(run), "dtype": NAMES[run.dtype]}}


def restore(run, saved):
    run.raw.load_state_dict(saved["model"])
    for optimizer, state in zip(run.optimizers, saved["optimizer"], strict=True):
        optimizer.load_state_dict(state)
    if run.scaler.is_enabled() and saved["scaler"]:
        run.scaler.load_state_dict(saved["scaler"])
    if run.rank < len(saved["rng"]):
        set_rng(saved["rng"][run.rank], run.device)
    run.progress = Progress(**saved["progress"])
    run.began -= run.progress.clock


def identity_of(run):
    """What decides the numbers of a run; a checkpoint of another one is refused."""
    c = run.config
    horizon = f"{c.minutes:g} minutes" if c.minutes else c.horizon
    settings = {name: getattr(c, name) for name in SHAPE_FIELDS + LAW_FIELDS}
    return {**settings, **run.corpus.identity, "horizon": horizon}


# ---- The command


def main(argv=None):
    try:
        config, only_plan = parse_command(argv)
        if only_plan:
            show_plan(config)
        else:
            train(config)
        return 0
    except (TrainError, DataError, TokenizerError) as error:
        if os.environ.get("RANK", "0") == "0" or str(error).startswith("Process"):  # once is enough
            say(error, sys.stderr)
        return 2
    except KeyboardInterrupt:
        say("Stopped at once; the last checkpoint, if there is one, is whole.", sys.stderr)
        return 130
    finally:
        leave()


if __name__ == "__main__":
    sys.exit(main())
