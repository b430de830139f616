"""Train a GPT-2 on a CPU, one GPU or many: the same run, one command.

    python train_gpt2.py --preset cpu --out-dir out/cpu --resume auto
    torchrun --standalone --nproc_per_node=2 train_gpt2.py --preset gpt2-char --out-dir out/char --resume auto
    # several machines, the same line on each, HOST being one of them:
    torchrun --nnodes=2 --nproc_per_node=8 --rdzv_backend=c10d --rdzv_endpoint=HOST:29500 train_gpt2.py ...

From Python: train(TrainConfig.preset_of("cpu")). The heart is short: lr_at, optimizer_step, evaluate and loop.
What can be set is in gpt2/settings.py, what a run needs in gpt2/plan.py, what it leaves in gpt2/checkpoint.py.
"""

import contextlib
import dataclasses
import math
import os
import signal
import sys
import time
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from data.shakespeare import DataError, corpus_from_text, eval_windows, get_batch, load_corpus, shuffled_batch
from data.shards import open_shards
from data.tokenizer import BPETokenizer, TokenizerError
from gpt2.checkpoint import (
    copy_run,
    disk_error,
    has_run,
    load_checkpoint,
    mend_folder,
    remove_run,
    rng_states,
    save_best,
    save_checkpoint,
    set_rng_state,
)
from gpt2.device import DTYPES, NAMES, choose_precision, pick_device, pick_precision
from gpt2.errors import TrainError
from gpt2.fast_cpu import keep_freed_memory
from gpt2.grow import extend_positions, grow
from gpt2.machine import machine_facts
from gpt2.optim import Muon, make_optimizers, orthogonalize
from gpt2.plan import (
    card_peak,
    flops_per_token,
    memory_plan,
    model_config,
    peak_memory,
    pick_micro_batch,
    plan_text,
    summary_text,
    try_compile,
)
from gpt2.runlog import RunLog
from gpt2.settings import LAW_FIELDS, PRESETS, SHAPE_FIELDS, TrainConfig, as_command, parse_command
from model_gpt2 import GPT

__all__ = ["PRESETS", "TrainConfig", "TrainError", "TrainResult", "Muon", "evaluate", "lr_at", "make_optimizers",
           "main", "micro_batches", "optimizer_step", "orthogonalize", "pick_device", "pick_precision", "train"]

TOO_MANY_SKIPS = 25  # a scaler that starts at 2**16 needs at most 16 halvings to come down to 1
COPY_SECONDS = 20 * 60  # between copies to --copy-to
# ---- Schedule, optimizers, the step


def lr_at(config, step):
    """AdamW's learning rate at a step (0 is the first): up over warmup_steps, then down to min_lr at the horizon."""
    c = config
    if step < c.warmup:
        return c.lr * (step + 1) / c.warmup
    if c.schedule == "constant":
        return c.lr
    if step >= c.horizon:
        return c.min_lr
    left = (c.horizon - step) / (c.horizon - c.warmup)  # 1 after the warm-up, 0 at the end
    share = {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "wsd": min(1.0, 5 * left)}[c.schedule]
    return c.min_lr + share * (c.lr - c.min_lr)


def set_lr(optimizers, config, step):
    lr = lr_at(config, step)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr * (config.muon_lr / config.lr if isinstance(optimizer, Muon) else 1.0)
    return lr


def optimizer_step(model, optimizers, scaler, micro_batches, dtype=torch.float32, grad_clip=1.0):
    """One whole step: the gradients of all micro-batches, then scale, unscale, clip, step, update, in this order.

    micro_batches: list of (x, y), each (B, T), on the model's device. Returns (mean loss, gradient norm before
    clipping, whether the weights moved). A norm that is not finite moves nothing. We decide that ourselves: the scaler
    keeps found_inf for each optimizer apart, so one could step without the other.
    """
    loss_sum = 0.0
    for i, (x, y) in enumerate(micro_batches):
        last = i == len(micro_batches) - 1  # processes exchange gradients once a step, with the last micro-batch
        hold = contextlib.nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync()
        with hold:
            with torch.autocast(x.device.type, dtype=dtype, enabled=dtype != torch.float32):
                loss = (soft_loss(model, x, *y) if isinstance(y, tuple) else model(x, y)[1]) / len(micro_batches)
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


def soft_loss(model, x, y, targets):
    """Cross-entropy against whole distributions (B, T, V): what the text has and what the teachers think."""
    return torch.nn.functional.cross_entropy(model(x)[0].flatten(0, 1).float(), targets.flatten(0, 1))


@torch.no_grad()
def soft_targets(teachers, x, y, weight):
    """weight * the teachers' mean probabilities + (1 - weight) * the letter that comes: (B, T, V)."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        probs = sum(teacher(x)[0].float().softmax(dim=-1) for teacher in teachers) / len(teachers)
    return (weight * probs).scatter_add_(-1, y[..., None], torch.full_like(y[..., None], 1 - weight, dtype=probs.dtype))


def grown(config, shape, corpus):
    """The model that the folders of --grow-from make together."""
    try:
        models = [GPT.from_pretrained(folder) for folder in config.grow_from.split(",")]
        T = models[0].config.block_size
        return grow(models, shape, corpus.train[: 16 * T].view(16, T)).train()
    except ValueError as error:
        raise TrainError(f"--grow-from: {error}") from error


def share_of(ids, T, rank, world):
    """This process's part of the text, cut where windows of T begin: together the windows are those of the whole."""
    first, last = (T * (r * ((len(ids) - 1) // T) // world) for r in (rank, rank + 1))
    return ids[first : last + 1] if rank < world - 1 else ids[first:]


@torch.no_grad()
def evaluate(model, ids):
    """Exact loss in nats per token: every target of ids (N,) scored once, in windows of block_size, in fp32."""
    device, T = next(model.parameters()).device, model.config.block_size
    was_training = model.training
    model.eval()
    total = 0.0
    with torch.autocast(device.type, enabled=False):
        for x, y in eval_windows(ids, T, batch_size=max(1, 16384 // T)):
            total += model(x.to(device), y.to(device))[1].double().item() * y.numel()
    model.train(was_training)
    return total / (len(ids) - 1)


# ---- Data


def load_data(config, quiet=False):
    """The corpus of a run: token shards from --data, or Tiny Shakespeare in the tokenizer asked for."""
    if config.data:
        corpus = open_shards(config.data)
        if corpus.tokenizer_kind != config.tokenizer:
            raise TrainError(f"The shards in {config.data} were made with the {corpus.tokenizer_kind} tokenizer: "
                             f"add --tokenizer {corpus.tokenizer_kind}.")
        return corpus
    bpe = BPETokenizer() if config.tokenizer == "bpe" else None  # before the text: offline, this is what fails
    corpus = load_corpus(quiet=quiet)
    return corpus_from_text(corpus.text, corpus.name, bpe) if bpe else corpus


def check_data(config, corpus):
    for name in ("train", "val"):
        n, need = len(getattr(corpus, name)), config.block_size + 1 if name == "train" else 2
        if n < need:
            raise TrainError(f"The {name} split has {n} tokens, not {need}: lower --block-size or bring more text.")


def chars_per_token(corpus):
    """Characters of the validation text for each token that is scored; 1 for a character-level model."""
    scored = len(corpus.val) - 1  # the first token has no context
    if hasattr(corpus, "val_chars"):
        return corpus.val_chars / scored
    return (len(corpus.val_text) - len(corpus.tokenizer.decode([int(corpus.val[0])]))) / scored


def micro_batches(corpus, config, step, micro, device, rank=0, world=1, T=None):
    """This process's share of the step's batch in pieces of `micro` sequences: [(x, y), ...], each (micro, T)."""
    T = T or config.block_size
    draw = T, config.tokens_per_step // T, config.seed, step
    micro = micro * config.block_size // T  # as many tokens at once
    x, y = (shuffled_batch if config.order == "shuffled" else get_batch)(corpus.train, *draw)
    mine = slice(rank * len(x) // world, (rank + 1) * len(x) // world)  # of the whole global batch
    return [(a.to(device), b.to(device)) for a, b in zip(x[mine].split(micro), y[mine].split(micro), strict=True)]


# ---- Processes and signals


def start_processes(device):
    """-> (rank, world). Under torchrun, join the group; alone, (0, 1)."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0, 1
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def from_first(value, world):
    """The value that process 0 has, on all of them."""
    box = [value]
    if world > 1:
        dist.broadcast_object_list(box, 0)
    return box[0]


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
        self.asked, self.before = False, {}
        for sig in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not the main thread: leave signals alone
                self.before[sig] = signal.signal(sig, self._ask)
        return self

    def _ask(self, number, frame):
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_):
        for sig, handler in self.before.items():
            signal.signal(sig, handler)


# ---- The run


def refuse_another_run(saved, now, folder, warn=print):
    """A checkpoint continues only its own run: compare what decides the numbers, name what differs."""
    differ = [f"{name} {saved.get(name)!r} there, {now[name]!r} here" for name in now
              if name != "horizon" and saved.get(name, now[name]) != now[name]]  # older checkpoints lack newer settings
    if differ:
        raise TrainError(f"{folder} holds a run with other settings ({'; '.join(differ)}): use them again, "
                         "choose another --out-dir, or start over with --resume overwrite.")
    if saved["horizon"] != now["horizon"]:
        warn(f"note: the learning rate now falls over {now['horizon']} steps, it was {saved['horizon']}.")


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
    clock: float = 0.0  # spent in steps and validations
    window: int = 0  # length of the last training windows
    epoch_loss: float = 0.0  # sum over epoch_steps, since the epoch began
    epoch_steps: int = 0


@dataclass
class TrainResult:
    """What train() returns."""

    model: GPT  # as it is after the last step; the best one is in out_dir/best
    progress: Progress
    stopped: str  # max_steps, patience, target_loss, signal or callback
    history: list = field(default_factory=list)  # the records of history.jsonl
    out_dir: str = ""

    @property
    def train_losses(self):
        return [r["loss"] for r in self.history if "loss" in r]

    @property
    def val_losses(self):
        return [(r["step"], r["val_loss"]) for r in self.history if "val_loss" in r]


class Run:
    """Everything that a run holds: the model, its optimizers and scaler, the log, the progress."""

    def __init__(self, config, corpus, device, rank, world, callback=None):
        self.config, self.corpus, self.device, self.rank, self.world = config, corpus, device, rank, world
        self.callback, self.progress = callback, Progress()
        folder = config.out_dir
        saved = self._find_checkpoint()
        self.log = RunLog(folder, saved["step"] if saved else 0, config.log_every, config.bar,
                          config.tensorboard, config.max_steps, speaks=rank == 0)
        self.dtype, scale, reason = from_first(
            choose_precision(config, device, saved["config"]["dtype"] if saved else None), world)
        if device.type == "cpu":
            keep_freed_memory()
        self.scaler = torch.amp.GradScaler(device.type, enabled=scale)
        torch.manual_seed(config.seed)
        self.raw = GPT(model_config(config, corpus.tokenizer.vocab_size)).to(device)  # never wrapped: this one is saved
        if config.grow_from and not saved:
            self.raw = grown(config, self.raw.config, corpus).to(device)
        self.teachers = [GPT.from_pretrained(f).to(device) for f in config.teacher.split(",") if f]
        self.micro = from_first(pick_micro_batch(config, self.raw, self.dtype, device, world), world)
        self.model = try_compile(self.raw, self.dtype, device, self.log.say) if config.compile else self.raw
        if world > 1:
            self.model = DistributedDataParallel(self.model, device_ids=[device] if device.type == "cuda" else None)
        self.optimizers = make_optimizers(self.raw, config, self.dtype)
        torch.manual_seed(config.seed + 1_000_003 * rank)  # each process drops out its own activations
        if saved:
            self._restore(saved)
        self.chars_per_token = chars_per_token(corpus)
        self.steps_per_epoch = max(1, len(corpus.train) // config.tokens_per_step)
        self.peak = card_peak(device, self.dtype)
        self.saved_step, self.saved_at, self.copied_at = self.progress.step, time.monotonic(), time.monotonic()
        self._say_hello(reason)

    def _say_hello(self, reason):
        c, g = self.config, self.raw.config
        each = f" on each of {self.world} processes" if self.world > 1 else ""
        self.log.say(f"text: {self.corpus.name}, {len(self.corpus.train):,} tokens to learn from")
        self.log.say(f"model: {g.n_layer} layers, {g.n_embd} wide, context {g.block_size}, "
                     f"{self.raw.num_params():,} parameters")
        self.log.say(f"precision on {self.device}: {reason}")
        self.log.say(f"a step: {c.tokens_per_step:,} tokens in {c.sequences} sequences, {self.micro} at once{each}; "
                     f"an epoch: {self.steps_per_epoch} steps")
        if self.progress.step:
            self.log.say(f"going on after step {self.progress.step} of {c.max_steps}")

    # -- going on

    def identity(self):
        """What decides the numbers of a run; a checkpoint of another one is refused."""
        names = SHAPE_FIELDS + LAW_FIELDS
        return {**{name: getattr(self.config, name) for name in names}, "corpus": self.corpus.name,
                "corpus_sha256": self.corpus.sha256, "horizon": self.config.horizon}

    def _find_checkpoint(self):
        c, warn = self.config, print if self.rank == 0 else (lambda text: None)
        if not c.out_dir:
            return None
        if self.rank == 0:
            self._prepare_folder()
        from_first(None, self.world)  # the others wait until the folder is ready
        saved = load_checkpoint(c.out_dir, warn)
        if saved:
            refuse_another_run(saved["config"], self.identity(), c.out_dir, warn)
        return saved

    def _prepare_folder(self):
        c = self.config
        try:
            os.makedirs(c.out_dir, exist_ok=True)
            if c.resume == "overwrite":
                remove_run(c.out_dir)
            elif c.resume == "auto" and c.copy_to and not has_run(c.out_dir) and has_run(c.copy_to):
                copy_run(c.copy_to, c.out_dir)
            mend_folder(os.path.join(c.out_dir, "best"))
        except OSError as error:
            raise disk_error(error, c.out_dir) from error
        if c.resume == "no" and has_run(c.out_dir):
            raise TrainError(f"{c.out_dir} already holds a run: --resume auto goes on with it, "
                             "--resume overwrite throws it away.")

    def _restore(self, saved):
        self.raw.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizer"], strict=True):
            optimizer.load_state_dict(state)
        if self.scaler.is_enabled() and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        if self.rank < len(saved["rng"]):
            set_rng_state(saved["rng"][self.rank], self.device)
        self.progress = Progress(**saved["progress"])

    def checkpoint(self):
        p = self.progress
        return {"model": self.raw.state_dict(), "optimizer": [o.state_dict() for o in self.optimizers],
                "scaler": self.scaler.state_dict(), "rng": rng_states(self.device, self.world), "step": p.step,
                "best": {"val_loss": p.best_loss, "step": p.best_step}, "progress": dataclasses.asdict(p),
                "config": {**dataclasses.asdict(self.config), **self.identity(), "dtype": NAMES[self.dtype]}}

    def save(self, last=False):
        """last.pt now (all processes must call it: each hands in its random state), and the copy when it is due."""
        if not self.config.out_dir:
            return
        if self.saved_step != self.progress.step:
            checkpoint = self.checkpoint()
            if self.rank == 0:
                save_checkpoint(self.config.out_dir, checkpoint)
            self.saved_step, self.saved_at = self.progress.step, time.monotonic()
        if self.rank == 0 and self.config.copy_to and (last or time.monotonic() - self.copied_at > COPY_SECONDS):
            self.copied_at = time.monotonic()
            try:
                copy_run(self.config.out_dir, self.config.copy_to)
            except OSError as error:
                where = self.config.copy_to
                self.log.say(f"warning: no copy in {where} ({error.strerror}); the run itself is safe.", True)

    def save_due(self):
        c, minutes = self.config, (time.monotonic() - self.saved_at) / 60
        return bool(c.save_every and self.progress.step % c.save_every == 0) or minutes >= c.save_minutes

    # -- what is said

    def record_step(self, loss, lr, norm, moved, seconds):
        p, tok_s = self.progress, self.config.tokens_per_step / seconds
        p.train_loss, p.seconds, p.clock = loss, p.seconds + seconds, p.clock + seconds
        p.skips_in_a_row, p.skipped = (0, p.skipped) if moved else (p.skips_in_a_row + 1, p.skipped + 1)
        record = {"step": p.step, "loss": loss, "lr": lr, "norm": norm, "dt_ms": 1000 * seconds, "tok_s": tok_s}
        if self.peak:
            record["mfu"] = tok_s * flops_per_token(self.raw.config) / (self.peak * self.world)
        if self.scaler.is_enabled():
            record["scale"] = self.scaler.get_scale()
        if not moved:
            record["skipped"] = p.skipped
        self.log.step(record)
        self._count_epoch(loss if moved else None, record.get("mfu"))
        return record

    def _count_epoch(self, loss, mfu):
        p = self.progress
        if loss is not None:
            p.epoch_loss, p.epoch_steps = p.epoch_loss + loss, p.epoch_steps + 1
        if p.step % self.steps_per_epoch == 0 and self.steps_per_epoch > 1:
            epoch, mean = p.step // self.steps_per_epoch, p.epoch_loss / max(1, p.epoch_steps)
            self.log.say(f"epoch {epoch} | mean train loss {mean:.4f}" + (f" | mfu {mfu:.1%}" if mfu else ""))
            self.log.keep({"step": p.step, "epoch": epoch, "epoch_loss": mean})
            p.epoch_loss, p.epoch_steps = 0.0, 0

    def validate(self):
        """The exact loss (on every process: none waits, all agree), the best model kept, a sample."""
        p, began = self.progress, time.perf_counter()
        ids = share_of(self.corpus.val, self.raw.config.block_size, self.rank, self.world)
        loss = evaluate(self.raw, ids) * (len(ids) - 1)
        p.val_loss = mean_over([loss], self.device, self.world)[0] * self.world / (len(self.corpus.val) - 1)
        p.clock += time.perf_counter() - began
        better, per_char = p.val_loss < p.best_loss, p.val_loss / self.chars_per_token
        if better:
            p.best_loss, p.best_step, p.stale = p.val_loss, p.step, 0
        else:
            p.stale += 1
        unit = "" if self.chars_per_token == 1 else f" nats/token, {per_char:.4f} nats/char"
        self.log.say(f"step {p.step} | validation {p.val_loss:.4f}{unit}" + (" | best so far" if better else ""))
        record = {"step": p.step, "val_loss": p.val_loss, "val_loss_char": per_char}
        self.log.keep(record)
        if self.rank == 0 and better and self.config.out_dir:
            save_best(self.config.out_dir, self.raw, self.corpus, self.metrics(), DTYPES[self.config.best_dtype])
        if self.rank == 0 and self.config.sample_chars:
            self.log.sample(p.step, self.sample())
        return record

    def sample(self):
        start = torch.tensor([self.corpus.tokenizer.encode("\n")[:1] or [0]], device=self.device)
        ids = self.raw.generate(start, self.config.sample_chars, seed=self.config.seed)
        return self.corpus.tokenizer.decode(ids[0, 1:].tolist())

    def metrics(self):
        """What best/metrics.json says of the model: numbers, and where and how they came about."""
        p, c = self.progress, self.config
        used, what = peak_memory(self.device)
        planned = sum(memory_plan(self.raw.config, self.micro, self.dtype, c.optimizer).values())
        return {"val_loss": p.val_loss, "val_loss_char": p.val_loss / self.chars_per_token, "train_loss": p.train_loss,
                "step": p.step, "tokens": p.step * c.tokens_per_step, "seconds": p.seconds, "skipped_steps": p.skipped,
                "parameters": self.raw.num_params(), "precision": NAMES[self.dtype], "processes": self.world,
                "corpus": {"name": self.corpus.name, "sha256": self.corpus.sha256, "floor": self.corpus.floor},
                "memory": {"predicted_bytes": planned, "measured_bytes": used, "measured_is": what},
                "config": dataclasses.asdict(c), "machine": machine_facts(self.device)}

    def check_skips(self):
        """Raise TrainError when step after step is skipped."""
        p = self.progress
        if p.skips_in_a_row < TOO_MANY_SKIPS:
            return
        folder = self.config.out_dir
        where = f" The last good checkpoint is that of step {self.saved_step} in {folder}."
        scale = f", gradient scale {self.scaler.get_scale():g}" if self.scaler.is_enabled() else ""
        raise TrainError(f"The gradient was not finite {TOO_MANY_SKIPS} times in a row (last loss {p.train_loss:.4g}"
                         f"{scale}): the run has diverged, start it with a lower --lr or more --warmup-steps."
                         + (where if folder and has_run(folder) else ""))

    def why_stop(self, asked):
        p, c = self.progress, self.config
        if asked:
            return "signal"
        if c.target_loss and p.train_loss <= c.target_loss:
            return "target_loss"
        if c.patience and p.stale >= c.patience:
            return "patience"
        done = self.share() >= 1 if c.minutes else p.step >= c.max_steps
        return "max_steps" if done else None

    def share(self):
        """How much of the run is done, by the clock or by steps."""
        p, c = self.progress, self.config
        return p.clock / (60 * c.minutes) if c.minutes else p.step / c.max_steps

    def next_window(self, share):
        """The length of the next windows; positions that no window held before get their start."""
        p, window = self.progress, self.config.window_at(share)
        if 0 < p.window < window:
            extend_positions(self.raw, p.window, window)
            self.log.say(f"step {p.step} | windows of {window} from here")
        p.window = window
        return window


def train(config, corpus=None, callback=None):
    """Train as config says, from the start or from out_dir's checkpoint. Returns a TrainResult.

    corpus: as data.shakespeare.load_corpus gives it; None loads what the config names.
    callback(record, model): called after each step and each validation with the line of history; True stops the run.
    Sets torch's global seed. Raises TrainError or DataError, in one sentence, for what the user can mend.
    """
    config.check()
    device = pick_device(config.device)
    rank, world = start_processes(device)
    corpus = corpus or load_data(config, quiet=rank > 0)
    check_data(config, corpus)
    run = Run(config, corpus, device, rank, world, callback)
    try:
        with StopSignals() as signals, explain_errors(run):
            stopped = loop(run, signals)
            run.save(last=True)
    finally:
        run.log.close()
    return TrainResult(run.raw, run.progress, stopped, run.log.records, config.out_dir)


def loop(run, signals):
    """Step, say, validate, save, until there is a reason to stop; returns the reason."""
    config, p = run.config, run.progress
    stopped = run.why_stop(False)
    if stopped:
        run.log.say(f"nothing to do: the run in {config.out_dir} stands at step {p.step} ({stopped}).")
    while not stopped:
        start = time.perf_counter()
        share = run.share()
        lr = set_lr(run.optimizers, config, share * config.horizon if config.minutes else p.step)
        window = run.next_window(share)
        batches = micro_batches(run.corpus, config, p.step, run.micro, run.device, run.rank, run.world, window)
        if run.teachers:
            batches = [(x, (y, soft_targets(run.teachers, x, y, config.teacher_weight))) for x, y in batches]
        loss, norm, moved = optimizer_step(run.model, run.optimizers, run.scaler, batches, run.dtype, config.grad_clip)
        p.step += 1
        loss, asked, due = mean_over([loss.item(), float(signals.asked), float(run.save_due())], run.device, run.world)
        records = [run.record_step(loss, lr, norm.item(), moved, time.perf_counter() - start)]
        run.check_skips()
        if p.step % config.eval_every == 0 or run.why_stop(False) == "max_steps":
            records.append(run.validate())
        wishes = [bool(run.callback(record, run.raw)) for record in records] if run.callback else []
        stopped = "callback" if any(wishes) else run.why_stop(asked)
        if stopped or (due and moved):  # never right after a step that was skipped
            run.save()
    run.log.say(farewell(run, stopped))
    return stopped


@contextlib.contextmanager
def explain_errors(run):
    """What goes wrong in the middle of a run, as one sentence that says how to go on."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainError(f"Out of memory after step {run.progress.step} with {run.micro} sequences at once: "
                         f"--batch-size {max(1, run.micro // 2)} does the same run in less memory.") from error
    except OSError as error:
        raise disk_error(error, f"the files of the run in {run.config.out_dir}") from error
    except RuntimeError as error:
        if run.world == 1:
            raise
        raise TrainError(f"Process {run.rank} lost the others after step {run.progress.step} "
                         f"({str(error).splitlines()[0][:200]}): start again with the same command and --resume auto "
                         f"to go on after step {run.saved_step}.") from error


def farewell(run, stopped):
    p, c = run.progress, run.config
    used, what = peak_memory(run.device)
    planned = sum(memory_plan(run.raw.config, run.micro, run.dtype, c.optimizer).values())
    skipped = f", {p.skipped} steps skipped" if p.skipped else ""
    lines = [f"stopped at step {p.step} of {c.max_steps} ({stopped}) after {p.seconds:.1f} s in steps{skipped}",
             f"memory: {planned / 1e6:,.0f} MB planned" + (f", {used / 1e6:,.0f} MB {what}" if used else "")]
    if p.best_step:
        lines.append(f"best validation {p.best_loss:.4f} nats a token at step {p.best_step}"
                     + (f", kept in {os.path.join(c.out_dir, 'best')}" if c.out_dir else ""))
    if stopped == "signal" and c.out_dir:
        lines.append(f"saved; go on with: {as_command(c, resume='auto')}")
    return "\n".join(lines)


# ---- The command


def show_plan(config, vocab_size, summary=False):
    """--plan and --summary: what the run would need, without running it."""
    device = pick_device(config.device)
    dtype, _, reason = choose_precision(config, device)
    g = model_config(config, vocab_size)
    if summary:
        print(summary_text(GPT(g)))
    world = int(os.environ.get("WORLD_SIZE", 1))
    micro = config.batch_size if config.batch_size != "auto" else config.sequences
    print(f"{config.preset}: {reason}")
    print(plan_text(g, min(micro, config.sequences // world), dtype, config.optimizer, config.sequences, device))


def main(argv=None):
    try:
        config, plan, summary = parse_command(argv)
        if plan or summary:
            vocab = open_shards(config.data).tokenizer.vocab_size if config.data else 65
            show_plan(config, 50257 if config.tokenizer == "bpe" else vocab, summary)
        else:
            train(config)
        return 0
    except (TrainError, DataError, TokenizerError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped at once; the last checkpoint, if there is one, is whole.", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
