"""Train a GPT-2 on a CPU, one GPU or many: the same run, one command.

    python train_gpt2.py --preset cpu --out-dir out/cpu --resume auto
    torchrun --standalone --nproc_per_node=2 train_gpt2.py --preset gpt2-char --out-dir out/char --resume auto
    # several machines, the same line on each, HOST being one of them:
    torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST:29500 train_gpt2.py ...

From Python: train(TrainConfig.preset_of("cpu")). Begin with train() and loop(), below; each step is lr_at,
optimizer_step and now and then evaluate. In gpt2/: settings (what can be set), plan (what a run needs),
checkpoint (what it leaves), optim, device, processes, runlog.
"""

import contextlib
import dataclasses
import math
import os
import sys
import time
from dataclasses import dataclass, field
from itertools import islice

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from data.batches import eval_windows, get_batch, shuffled_batch
from data.corpus import corpus_from_text
from data.files import DataError, say
from data.shakespeare import load_corpus
from data.shards import open_shards
from data.standin import SYMBOLS
from data.text import load_text
from data.tokenizer import BPETokenizer, TokenizerError
from gpt2.accuracy import complete
from gpt2.best import write_best
from gpt2.checkpoint import (
    prepare_folders,
    rng_states,
    save_best,
    save_checkpoint,
    set_rng_state,
    why_not_copied,
)
from gpt2.device import DTYPES, NAMES, choose_precision, pick_device, pick_precision
from gpt2.errors import TrainError
from gpt2.fast_cpu import keep_freed_memory
from gpt2.grow import extend_positions, grow
from gpt2.optim import Muon, make_optimizers, orthogonalize
from gpt2.owner import Owner
from gpt2.plan import (
    disk_text,
    eval_batch,
    model_config,
    pick_micro_batch,
    plan_text,
    summary_text,
    try_compile,
)
from gpt2.processes import StopSignals, agree, first_does, from_first, mean_over, start_processes
from gpt2.report import (
    chars_per_token,
    check_skips,
    explain_errors,
    farewell,
    metrics,
    record_step,
    sample,
    say_hello,
)
from gpt2.runlog import RunLog
from gpt2.settings import LAW_FIELDS, PRESETS, SHAPE_FIELDS, TrainConfig, parse_command
from gpt2.teacher import soft_loss, soft_targets, teacher_table
from model_gpt2 import GPT

__all__ = ["PRESETS", "TrainConfig", "TrainError", "TrainResult", "Muon", "evaluate", "lr_at",
           "make_optimizers",
           "main", "micro_batches", "model_config", "optimizer_step", "orthogonalize", "pick_device",
           "pick_precision", "train"]

COPY_SECONDS = 20 * 60  # between copies to --copy-to


# ---- Schedule and step


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
    shares = {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "wsd": min(1.0, 5 * left)}
    share = shares[c.schedule]
    return c.min_lr + share * (c.lr - c.min_lr)


def set_lr(optimizers, config, lr):
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * (config.muon_lr / config.lr if isinstance(optimizer, Muon) else 1.0)


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
        last = i == len(micro_batches) - 1
        waits = isinstance(model, DistributedDataParallel) and not last
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


@torch.no_grad()
def evaluate(model, ids, rank=0, world=1):
    """Exact loss in nats a token: every target of ids (N,) once, in windows of block_size, in fp32.

    Of several processes each takes the windows whose turn it is: the sum of what they return is the loss.
    """
    device, T = next(model.parameters()).device, model.config.block_size
    was_training = model.training
    model.eval()
    total = 0.0
    with torch.autocast(device.type, enabled=False):
        for x, y in islice(eval_windows(ids, T, max(1, eval_batch(model.config) // world)), rank, None, world):
            total += model(x.to(device), y.to(device))[1].double().item() * y.numel()
    model.train(was_training)
    return total / (len(ids) - 1)


# ---- Data


def load_data(config, quiet=False):
    """The corpus of a run: token shards, the reader's own text, or Tiny Shakespeare."""
    if config.data:
        corpus = open_shards(config.data)
        if corpus.tokenizer_kind != config.tokenizer:
            kind = corpus.tokenizer_kind
            raise TrainError(f"The shards in {config.data} were made with the {kind} tokenizer: "
                             f"add --tokenizer {kind}.")
        return corpus
    # before the text: offline, this is what fails
    bpe = BPETokenizer() if config.tokenizer == "bpe" else None
    if config.text:
        return load_text(config.text, quiet=quiet, tokenizer=bpe)
    corpus = load_corpus(quiet=quiet)
    return corpus_from_text(corpus.text, corpus.name, bpe) if bpe else corpus


def check_data(config, corpus):
    for name in ("train", "val"):
        n, need = len(getattr(corpus, name)), config.block_size + 1 if name == "train" else 2
        if n < need:
            raise TrainError(f"The {name} split has {n} tokens, not {need}: "
                             "lower --block-size or bring more text.")


def micro_batches(corpus, config, step, micro, device, rank=0, world=1, T=None, expected=None):
    """This process's share of the step's batch in pieces: [(x, y), ...], each (micro, T).

    expected: (N, V), what teachers expect at each place of the training text; y is (micro, T, V) then.
    """
    T = T or config.block_size
    micro = micro * config.block_size // T  # as many tokens at once
    draw = shuffled_batch if config.order == "shuffled" else get_batch
    x, y = draw(corpus.train, T, config.tokens_per_step // T, config.seed, step)  # (sequences, T) each
    mine = slice(rank * len(x) // world, (rank + 1) * len(x) // world)  # of the whole global batch
    x, y = x[mine], y[mine]
    if expected is not None:
        probs = draw(expected, T, config.tokens_per_step // T, config.seed, step)[1][mine]  # (sequences, T, V)
        y = soft_targets(probs, y, config.teacher_weight)
    return [(a.to(device), b.to(device)) for a, b in zip(x.split(micro), y.split(micro), strict=True)]


# ---- The run


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


@dataclass
class Run:
    """What a run holds while it goes. What it needs to go on later is in `progress` and in checkpoint()."""

    config: TrainConfig
    corpus: object
    device: torch.device
    rank: int = 0
    world: int = 1
    progress: Progress = field(default_factory=Progress)
    owner: Owner = field(default_factory=Owner)
    log: RunLog = None
    raw: GPT = None  # never wrapped: this one is saved
    model: torch.nn.Module = None  # the same weights, compiled or shared between processes
    expected: torch.Tensor = None  # (N, V): what the teachers expect at each place of the training text
    optimizers: list = field(default_factory=list)
    scaler: torch.amp.GradScaler = None
    dtype: torch.dtype = torch.float32
    micro: int = 1  # sequences at once
    saved_step: int = 0
    saved_at: float = 0.0
    copied_at: float = 0.0
    began: float = 0.0  # when the clock stood at 0

    @property
    def steps_per_epoch(self):
        return max(1, len(self.corpus.train) // self.config.tokens_per_step)


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
    rank, world = start_processes(device)
    corpus = corpus or load_data(config, quiet=rank > 0)
    check_data(config, corpus)
    run = Run(config, corpus, device, rank, world, began=began)
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
    identity = identity_of(run)
    agree("set of settings", identity, world)
    warn = say if run.rank == 0 else (lambda text: None)
    saved = None
    if c.out_dir:  # process 0 reads for all, so that all stand at the same step
        saved = first_does(lambda: prepare_folders(c, identity, run.owner, warn), run.rank, world)
    run.log = RunLog(c.out_dir, saved["step"] if saved else 0, c, speaks=run.rank == 0)
    before = saved["config"]["dtype"] if saved else None
    run.dtype, scale, reason = from_first(choose_precision(c, run.device, before), world)
    run.scaler = torch.amp.GradScaler(run.device.type, enabled=scale)
    build(run, grow_it=not saved)
    torch.manual_seed(c.seed + 1_000_003 * run.rank)  # each process drops out its own activations
    if saved:
        restore(run, saved)
    if c.minutes and not run.progress.eval_seconds:
        time_validation(run)
    run.saved_step, run.saved_at, run.copied_at = run.progress.step, time.monotonic(), time.monotonic()
    say_hello(run, reason)


def build(run, grow_it):
    """The model, its optimizers, and how many sequences it takes at once."""
    c, device, dtype, world = run.config, run.device, run.dtype, run.world
    if device.type == "cpu":
        keep_freed_memory()
    torch.manual_seed(c.seed)
    run.raw = GPT(model_config(c, run.corpus.tokenizer.vocab_size)).to(device)
    if c.grow_from and grow_it:
        run.raw = grown(c, run.raw.config, run.corpus).to(device)
    if c.freeze_matrices:
        freeze_matrices(run.raw, c)
    teachers = [model.to(device) for model in load_models(c.teacher, "--teacher")]
    if teachers:
        run.log.say(f"the teachers read the text once ({len(run.corpus.train):,} tokens)", True)
        run.expected = teacher_table(teachers, run.corpus.train, device)
    run.micro = from_first(pick_micro_batch(c, run.raw, dtype, device, world), world)
    run.model = run.raw
    if c.compile:
        T = c.window_at(0)  # compiling happens at the first call of a shape: that of the first steps
        run.model = try_compile(run.raw, run.micro * c.block_size // T, T, dtype, device, run.log.say)
    if world > 1:
        run.model = DistributedDataParallel(run.model, device_ids=[device] if device.type == "cuda" else None)
    run.optimizers = make_optimizers(run.raw, c, dtype)


def load_models(folders, flag):
    """The models of several folders, commas between them."""
    try:
        return [GPT.from_pretrained(folder) for folder in folders.split(",") if folder]
    except ValueError as error:
        raise TrainError(f"{flag}: {error}") from error


def grown(config, shape, corpus):
    """The model that the folders of --grow-from make together."""
    models = load_models(config.grow_from, "--grow-from")
    T = models[0].config.block_size
    try:
        return grow(models, shape, corpus.train[: 16 * T].view(16, T)).train()
    except ValueError as error:
        raise TrainError(f"--grow-from: {error}") from error


def freeze_matrices(model, config):
    if not config.grow_from:
        raise TrainError("--freeze-matrices (part of gpt2-char) trains on what --grow-from puts together: name its "
                         "folders, or train all with --no-freeze-matrices.")
    for p in model.parameters():
        p.requires_grad_(p.dim() < 2)


def identity_of(run):
    """What decides the numbers of a run; a checkpoint of another one is refused."""
    c, corpus = run.config, run.corpus
    text = getattr(corpus, "identity", None) or {"corpus_sha256": corpus.sha256, "split": len(corpus.train)}
    horizon = f"{c.minutes:g} minutes" if c.minutes else c.horizon
    return {**{name: getattr(c, name) for name in SHAPE_FIELDS + LAW_FIELDS}, **text, "horizon": horizon}


def restore(run, saved):
    run.raw.load_state_dict(saved["model"])
    for optimizer, state in zip(run.optimizers, saved["optimizer"], strict=True):
        optimizer.load_state_dict(state)
    if run.scaler.is_enabled() and saved["scaler"]:
        run.scaler.load_state_dict(saved["scaler"])
    if run.rank < len(saved["rng"]):
        set_rng_state(saved["rng"][run.rank], run.device)
    run.progress = Progress(**saved["progress"])
    run.began -= run.progress.clock


def checkpoint(run):
    p, c = run.progress, run.config
    return {"model": run.raw.state_dict(), "optimizer": [o.state_dict() for o in run.optimizers],
            "scaler": run.scaler.state_dict(), "rng": rng_states(run.device, run.world), "step": p.step,
            "best": {"val_loss": p.best_loss, "step": p.best_step}, "progress": dataclasses.asdict(p),
            "config": {**dataclasses.asdict(c), **identity_of(run), "dtype": NAMES[run.dtype]}}


def loop(run, signals, callback=None):
    """Step, say, validate, save, until there is a reason to stop; returns the reason."""
    config, p = run.config, run.progress
    stopped = why_stop(run, False)
    if stopped:
        run.log.say(f"nothing to do: the run in {config.out_dir} stands at step {p.step} ({stopped}); "
                    f"it is kept, and another --{stopped.replace('_', '-')} goes on with it.", True)
    while not stopped:
        keep_moment(run)
        start = time.perf_counter()
        lr = lr_at(config, p.step, horizon(run))
        set_lr(run.optimizers, config, lr)
        batches = next_batches(run)
        loss, norm, moved = optimizer_step(run.model, run.optimizers, run.scaler, batches, run.dtype,
                                           config.grad_clip)
        p.step += 1
        mine = [loss.item(), time.monotonic() - run.began, float(signals.asked), float(save_due(run))]
        loss, p.clock, asked, due = mean_over(mine, run.device, run.world)
        records = [record_step(run, loss, lr, norm.item(), moved, time.perf_counter() - start)]
        check_skips(run)
        if p.step % config.eval_every == 0 or is_done(run):
            records.append(validate(run))
        wishes = [bool(callback(record, run.raw)) for record in records] if callback else []
        wish = mean_over([float(any(wishes))], run.device, run.world)[0]  # of any process
        stopped = "callback" if wish else why_stop(run, asked)
        if stopped or (due and moved):  # never right after a step that was skipped
            save(run)
        run.owner.beat()
    keep_moment(run)
    run.log.say(farewell(run, stopped))
    return stopped


def keep_moment(run):
    """The weights as they are now, if --keep-steps names this step: the page plays them, noise to verse."""
    c, step = run.config, run.progress.step
    if run.rank == 0 and c.out_dir and step in c.moments:
        run.raw.save_pretrained(os.path.join(c.out_dir, "moments", str(step)), dtype=torch.float16)


# ---- How far


def time_validation(run):
    """What the last validation will take, from a part of one: the clock keeps it back from the start."""
    ids = run.corpus.val
    part, began = ids[: max(2, len(ids) // 16)], time.monotonic()
    evaluate(run.raw, part)
    seconds = (time.monotonic() - began) * len(ids) / len(part)
    run.progress.eval_seconds = mean_over([seconds], run.device, run.world)[0]


def clock_share(run):
    """How much of --minutes is over; time is kept back for the last step and the last validation."""
    p, c = run.progress, run.config
    one_step = p.seconds / max(1, p.step)
    return p.clock / max(1e-9, 60 * c.minutes - p.eval_seconds - 2 * one_step)


def horizon(run):
    """Over how many steps the rate falls: those of the config, or what the clock allows at this pace."""
    p, c = run.progress, run.config
    if not c.minutes or not p.step:
        return c.horizon
    return min(c.horizon, p.step / clock_share(run))


def is_done(run):
    return run.progress.step >= run.config.max_steps or bool(run.config.minutes) and clock_share(run) >= 1


def why_stop(run, asked):
    p, c = run.progress, run.config
    if asked:
        return "signal"
    if c.target_loss and p.train_loss <= c.target_loss:
        return "target_loss"
    if c.patience and p.stale >= c.patience:
        return "patience"
    if is_done(run):
        return "max_steps" if p.step >= c.max_steps else "minutes"
    return None


def next_batches(run):
    """The batches of the step, in windows of the length whose turn it is, with the teachers' targets."""
    p, c = run.progress, run.config
    window = c.window_at(p.step / max(1, horizon(run)))
    if 0 < p.window < window:  # positions that no window held before get their start
        extend_positions(run.raw, p.window, window)
        run.log.say(f"step {p.step} | windows of {window} from here")
    p.window = window
    return micro_batches(run.corpus, c, p.step, run.micro, run.device, run.rank, run.world, window, run.expected)


# ---- Validation and checkpoints


def validate(run):
    """The exact loss, the same on all processes; the best model kept; a sample."""
    p, c, began = run.progress, run.config, time.monotonic()
    part = evaluate(run.raw, run.corpus.val, run.rank, run.world)
    p.val_loss = run.world * mean_over([part], run.device, run.world)[0]
    better, per_char = p.val_loss < p.best_loss, p.val_loss / chars_per_token(run.corpus)
    if better:
        p.best_loss, p.best_step, p.stale = p.val_loss, p.step, 0
    else:
        p.stale += 1
    unit = "" if per_char == p.val_loss else f" nats/token, {per_char:.4f} nats/char"
    run.log.say(f"step {p.step} | validation {p.val_loss:.4f}{unit}" + (" | best so far" if better else ""))
    record = {"step": p.step, "val_loss": p.val_loss, "val_loss_char": per_char}
    run.log.keep(record)
    if run.rank == 0 and better and c.out_dir:
        dtype = DTYPES[c.best_dtype]
        save_best(c.out_dir, lambda folder: write_best(folder, run.raw, run.corpus, metrics(run), dtype))
    if run.rank == 0 and c.sample_chars:
        run.log.sample(p.step, sample(run))
    p.eval_seconds, p.clock = mean_over([time.monotonic() - began, time.monotonic() - run.began],
                                        run.device, run.world)
    return record


def save_due(run):
    c, minutes = run.config, (time.monotonic() - run.saved_at) / 60
    return bool(c.save_every and run.progress.step % c.save_every == 0) or minutes >= c.save_minutes


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
        if why := why_not_copied(c, run.saved_step, identity_of(run)):
            run.log.say(f"warning: no copy in {c.copy_to}{why}", True)


# ---- The command


def show_plan(config, vocab_size, summary=False):
    """--plan and --summary: what the run would need, without running it."""
    device = pick_device(config.device)
    dtype, _, reason = choose_precision(config, device)
    g = model_config(config, vocab_size)
    if summary:
        say(summary_text(GPT(g)))
    world = int(os.environ.get("WORLD_SIZE", 1))
    micro = config.batch_size if config.batch_size != "auto" else config.sequences
    say(f"{config.preset}: {reason}")
    say(plan_text(g, min(micro, config.sequences // world), dtype, config.optimizer, config.sequences,
                  device))
    for line in disk_text(config, g):
        say(line)


def vocabulary_size(config):
    """Of the run's text, without reading more of it than is needed."""
    if config.tokenizer == "bpe":
        return 50257
    if config.data:
        return open_shards(config.data).tokenizer.vocab_size
    return load_text(config.text, quiet=True).tokenizer.vocab_size if config.text else len(SYMBOLS)


def main(argv=None):
    try:
        config, plan, summary = parse_command(argv)
        if plan or summary:
            show_plan(config, vocabulary_size(config), summary)
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
        if dist.is_initialized():
            dist.destroy_process_group()


def leave(code):
    """End the program. A pipe that was closed meanwhile (`| head`) is no error of the run."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains of it once more
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
