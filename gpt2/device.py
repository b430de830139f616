"""Where a run computes, in which precision, and the state of its random generators."""

import functools
import os
import time

import torch
import torch.distributed as dist

from data.files import say
from gpt2.errors import TrainError
from gpt2.machine import matmul_works

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def pick_device(name="auto"):
    """The device to train on; under torchrun each process takes the card of its LOCAL_RANK."""
    local = int(os.environ.get("LOCAL_RANK", 0))
    if name == "auto":
        name = best_device(local)
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise TrainError("--device cuda asks for a GPU and torch sees none: choose --device cpu, or "
                             "switch one on.")
        index = int(name[5:]) if ":" in name else local
        if index >= torch.cuda.device_count():
            raise TrainError(f"Card {index} is asked for and this machine has {torch.cuda.device_count()}: "
                             "lower --nproc_per_node, or use --device cpu.")
        return torch.device("cuda", index)
    if name == "mps" and not torch.backends.mps.is_available():
        raise TrainError("--device mps asks for an Apple GPU and torch sees none: choose --device cpu.")
    return torch.device(name)


@functools.cache  # so that the line is said once
def best_device(local):
    """The name of the fastest device that works; a card without kernels in this torch is passed over."""
    if not torch.cuda.is_available():
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if local >= torch.cuda.device_count() or matmul_works(torch.device("cuda", local)):
        return "cuda"  # one card too few: pick_device says so
    say(f"This torch has no kernels for the card ({torch.cuda.get_device_name(local)}): going on by CPU. "
        "For a GPU, choose T4 x2 on Kaggle, elsewhere another card.")
    return "cpu"


def choose_precision(config, device, before=None):
    """The precision of a run: the one asked for, or that of the run which goes on, or the device's own."""
    if config.precision != "auto":
        return DTYPES[config.precision], config.precision == "fp16", f"{config.precision}: asked for"
    if before and device.type == "cpu":  # a timed choice could fall the other way, for another run
        return DTYPES[before], before == "fp16", f"{before}: as the run began"
    return pick_precision(device)


def pick_precision(device):
    """-> (dtype of the matmuls, whether gradients need a scaler, the reason).

    TrainError for a card without kernels. Decided by compute capability: torch.cuda.is_bf16_supported() says
    True on a T4, which only emulates bf16.
    """
    device = torch.device(device)
    if device.type == "mps":
        return torch.float32, False, "fp32: on Apple GPUs half precision is not checked here"
    return precision_of_card(device) if device.type == "cuda" else precision_of_cpu()


def precision_of_card(device):
    major, minor = torch.cuda.get_device_capability(device)
    card = f"compute capability {major}.{minor}"
    if not matmul_works(device):
        name = torch.cuda.get_device_name(device)
        raise TrainError(f"This torch has no kernels for the card ({name}, {card}): "
                         "on Kaggle choose T4 x2, elsewhere another card or --device cpu.")
    if major >= 8:
        return torch.bfloat16, False, f"bf16: {card} has bf16 units, and bf16 has the range of fp32"
    if major == 7:
        return torch.float16, True, f"fp16 with a gradient scaler: {card} has fp16 units and no bf16 units"
    return torch.float32, False, f"fp32: {card} has no fast half precision"


def precision_of_cpu():
    if not cpu_has_bf16():
        return torch.float32, False, "fp32: this CPU has no bf16 units"
    rounds = [(matmul_seconds(torch.float32), matmul_seconds(torch.bfloat16)) for _ in range(8)]
    fp32, bf16 = (min(seconds) for seconds in zip(*rounds, strict=True))  # in turns: disturbed alike
    reason = f"this CPU has bf16 units, and a matmul runs {fp32 / bf16:.1f} x as fast with them as in fp32"
    if fp32 / bf16 > 1.2:
        return torch.bfloat16, False, f"bf16: {reason}"
    return torch.float32, False, f"fp32: {reason}"


def cpu_has_bf16():
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in names)


def matmul_seconds(dtype, n=512):
    a, start = torch.ones(n, n, dtype=dtype), time.perf_counter()
    a @ a
    return time.perf_counter() - start


# ---- Random generators


def get_rng(device, world=1):
    """The state of torch's generators, one dict a process."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    states = [{"cpu": torch.get_rng_state(), "cuda": cuda}]
    if world > 1:
        mine, states = states[0], [None] * world
        dist.all_gather_object(states, mine)
    return states


def set_rng(state, device):
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
