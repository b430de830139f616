"""What a training run needs, before it starts: parameters, memory, arithmetic, how many sequences at once.

    python train_gpt2.py --preset gpt2-char --plan

Mostly a few lines of arithmetic on a GPTConfig; tests compare them with what torch really allocates.
"""

import os
import re
import shutil
import sys
from itertools import islice

import torch

from data.batches import eval_windows
from data.files import say
from gpt2.corpus import vocabulary_size
from gpt2.device import choose_precision, pick_device
from gpt2.errors import TrainError
from gpt2.sampling import evaluating
from model_gpt2 import GPTConfig

MB = 1e6
EVAL_BYTES = 2**28  # of logits at once in an evaluation


def model_config(config, vocab_size):
    """The GPTConfig of a run. A large vocabulary is padded to a multiple of 64, which matmuls like."""
    padded = -(-vocab_size // 64) * 64 if vocab_size > 1000 else vocab_size
    fields = ("block_size", "n_layer", "n_head", "n_embd", "dropout", "bias", "tie_weights")
    return GPTConfig(vocab_size=padded, n_tokens=vocab_size if padded > vocab_size else None,
                     **{name: getattr(config, name) for name in fields})


def count_params(g):
    """Parameters of a GPTConfig: (all of them, those in the matrices of the blocks)."""
    C, b = g.n_embd, int(g.bias)
    matrices = g.n_layer * 12 * C * C  # 3 + 1 for attention, 4 + 4 for the MLP
    vectors = g.n_layer * (2 + 11 * b) * C + (1 + b) * C
    tables = (g.vocab_size * (1 if g.tie_weights else 2) + g.block_size) * C
    return matrices + vectors + tables, matrices


def memory_plan(g, micro, dtype=torch.float32, optimizer="adamw"):
    """Bytes that training a GPTConfig needs, with `micro` sequences at once.

    Activations, a block and token, in numbers of C each: two fp32 copies of the residual stream, which
    the LayerNorms keep; in the type of the matmuls the LayerNorms' outputs (2), q, k, v (3),
    attention's output (1), the GELU's input and output (8). In half precision autocast also keeps a
    copy of each matrix. Dropout keeps a byte a number. Left out: in bf16 on a CPU attention is written
    out and keeps its pattern too, T x T numbers a head (results/cpu_kernels.json says why it is done
    there).
    """
    n, matrices = count_params(g)
    half = torch.empty((), dtype=dtype).element_size()
    tokens = micro * g.block_size
    masks = 3 * g.n_embd if g.dropout else 0
    block = (2 * 4 + 14 * half) * g.n_embd + masks + 4 * g.n_head  # the last: attention's log-sum-exp
    casts = half * (matrices + g.vocab_size * g.n_embd) if half < 4 else 0
    return {"weights": 4 * n, "gradients": 4 * n,
            "moments": 8 * n - (4 * matrices if optimizer == "muon" else 0),
            "activations": tokens * (g.n_layer * block + (4 + half) * g.n_embd) + casts,
            "logits": tokens * g.vocab_size * (8 + (half if half < 4 else 0))}


def eval_batch(g):
    """How many windows an evaluation scores at once: their logits, and a copy, stay within EVAL_BYTES."""
    tokens = min(16384, EVAL_BYTES // (8 * g.vocab_size))
    return max(1, tokens // g.block_size)


@torch.no_grad()
def over_windows(model, ids, measure, rank=0, world=1):
    """The sum of measure(x, y), x and y (B, T), over every target of ids (N,) once; in fp32, without dropout.

    Of several processes each takes the windows whose turn it is.
    """
    device, c = next(model.parameters()).device, model.config
    windows = eval_windows(ids, c.block_size, max(1, eval_batch(c) // world))
    with evaluating(model), torch.autocast(device.type, enabled=False):
        return sum(measure(x.to(device), y.to(device)) for x, y in islice(windows, rank, None, world))


def flops_per_token(g):
    """Forward and backward for one token: 6 a parameter that multiplies, and attention's own 12 L C T."""
    return 6 * (count_params(g)[1] + g.vocab_size * g.n_embd) + 12 * g.n_layer * g.n_embd * g.block_size


# ---- What the machine has


def free_memory(device):
    """Bytes that are free, or None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as f:
            return 1024 * int(re.search(r"MemAvailable:\s+(\d+)", f.read())[1])
    except (OSError, TypeError):
        return None


def peak_memory(device):
    """(bytes, what they are): the most in use so far; on a CPU with Python and torch."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device), "peak of the card"
    try:
        import resource
    except ImportError:  # Windows
        return None, "not known here"
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "peak of the whole process"


def free_disk(folder):
    """Bytes free where a folder lies, or None where the system does not tell."""
    while folder and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    try:
        return shutil.disk_usage(folder or ".").free
    except OSError:
        return None


# ---- How many sequences at once, and compiled or not


def pick_micro_batch(config, model, dtype, device, world=1):
    """How many sequences at once: the largest number that fits and divides a process's share of a step."""
    if config.sequences % world:
        raise TrainError(f"A step has {config.sequences} sequences, which {world} processes cannot share "
                         f"evenly: set --tokens-per-step to a multiple of {world * config.block_size}.")
    share = config.sequences // world
    divisors = [d for d in range(share, 0, -1) if share % d == 0]
    if config.batch_size != "auto":
        return next(d for d in divisors if d <= config.batch_size)
    free = free_memory(device)
    for micro in divisors:
        needed = sum(memory_plan(model.config, micro, dtype, config.optimizer).values())
        if free and needed > 0.9 * free and micro > 1:
            continue
        if fits(model, micro, dtype, device):
            return micro
    raise TrainError("Not even one sequence fits in memory: lower --block-size or the model's size, "
                     "or take a larger card (--plan shows what is needed).")


def fits(model, micro, dtype, device):
    """Whether so many sequences fit: tried out, and the trial kept out of what is measured later."""
    try:
        try_micro_batch(model, micro, model.config.block_size, dtype, device)
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)


def try_micro_batch(model, micro, T, dtype, device):
    """One forward and backward, which leave no trace; raises torch.OutOfMemoryError where they do not fit."""
    try:
        x = torch.zeros(micro, T, dtype=torch.long, device=device)
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            loss = model(x, x)[1]
        loss.backward()
    finally:
        model.zero_grad(set_to_none=True)


def try_compile(model, micro, T, dtype, device, say):
    """torch.compile(model), or the model itself with one line that says why not."""
    try:
        compiled = torch.compile(model)
        try_micro_batch(compiled, micro, T, dtype, device)
        return compiled
    except Exception as error:  # compilers, drivers and Python versions all fail in their own way
        say(f"note: torch.compile does not work here ({type(error).__name__}), going on without it.", True)
        model.zero_grad(set_to_none=True)
        return model


# ---- In words


def show_plan(config):
    """--plan: what the run would need, without running it."""
    device = pick_device(config.device)
    dtype, _, reason = choose_precision(config, device)
    g = model_config(config, vocabulary_size(config))
    share = config.sequences // int(os.environ.get("WORLD_SIZE", 1))
    micro = share if config.batch_size == "auto" else min(config.batch_size, share)
    say(f"{config.preset}: {reason}")
    say(plan_text(g, micro, dtype, config.optimizer, config.sequences, device))
    for line in disk_text(config, g):
        say(line)


def plan_text(g, micro, dtype, optimizer, sequences, device):
    """The plan as lines to print."""
    plan = memory_plan(g, micro, dtype, optimizer)
    total, free = sum(plan.values()), free_memory(device)
    of_free = f" of {free / MB:,.0f} MB free" if free else ""
    lines = [f"model: {g.n_layer} layers, {g.n_head} heads, {g.n_embd} wide, context {g.block_size}, "
             f"vocabulary {g.vocab_size}",
             f"parameters: {count_params(g)[0]:,}",
             f"a step: {sequences * g.block_size:,} tokens, {sequences} sequences, {micro} at once",
             f"arithmetic: {sequences * g.block_size * flops_per_token(g) / 1e12:.2f} TFLOP a step",
             f"memory with {micro} sequences at once, matmuls in {str(dtype).removeprefix('torch.')}:",
             *(f"  {part:<12} {size / MB:>10,.1f} MB" for part, size in plan.items()),
             f"  {'together':<12} {total / MB:>10,.1f} MB{of_free}"]
    if free and total > free:
        lines += ["this does not fit: --batch-size auto, or a lower one, makes the activations smaller"]
    return "\n".join(lines)


def disk_plan(g, optimizer, best_dtype="fp32"):
    """Bytes of (a checkpoint, best/). A run keeps two checkpoints and best/, and writes a third."""
    memory = memory_plan(g, 1, torch.float32, optimizer)
    return memory["weights"] + memory["moments"], count_params(g)[0] * (2 if best_dtype == "fp16" else 4)


def disk_text(config, g):
    """What a run will take on disk, and whether it is there."""
    checkpoint, best = disk_plan(g, config.optimizer, config.best_dtype)
    lines = []
    for folder, needs in ((config.out_dir, 3 * checkpoint + best), (config.copy_to, 2 * checkpoint + best)):
        if folder:
            free = free_disk(folder)
            short = " (NOT ENOUGH)" if free is not None and free < needs else ""
            there = f", {free / MB:,.0f} MB free{short}" if free is not None else ""
            lines.append(f"disk: {folder} takes up to {needs / MB:,.0f} MB{there}")
    return lines
