"""GPT-2 in bf16 or int8 on a CPU, where torch's general ways are slow (results/generate.json)."""

import contextlib
import ctypes

import torch
import torch.nn.functional as F
from torch import nn

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


class FastLinear(nn.Module):
    """A Linear for sampling, its weights fixed.

    bf16: packed in the order in which oneDNN's kernel reads it, 1.6 times as fast as in rows.
    int8: row i of the weight is round(w / scale[i]), scale[i] = max|w| / 127, half the bytes again.
    """

    def __init__(self, linear, weights):
        super().__init__()
        weight = linear.weight.detach().float()  # (out, in)
        self.bias = None if linear.bias is None else linear.bias.detach().to(torch.bfloat16, copy=True)
        if weights == "bf16":
            self.weight, self.scale = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), 1), None
            return
        self.scale = (weight.abs().amax(dim=1).clamp(min=1e-8) / 127).bfloat16()  # (out,)
        self.weight = (weight / self.scale[:, None]).round_().clamp_(-127, 127).to(torch.int8)

    def forward(self, x):  # (..., in) bfloat16
        if self.scale is None:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        if x.numel() > 16 * x.size(-1):  # a prompt: bf16 is faster then, and holds 127 exactly
            y = F.linear(x, self.weight.bfloat16()) * self.scale
        else:
            y = torch._weight_int8pack_mm(x.flatten(0, -2), self.weight, self.scale)
            y = y.view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


def for_inference(model, weights="bf16"):
    """See GPT.for_inference. Filled part by part into an empty model: no copy in fp32 is ever made."""
    if weights not in ("bf16", "int8"):
        raise ValueError(f"weights must be 'bf16' or 'int8', not {weights!r}.")
    packed = weights == "int8" or can_pack(model.lm_head.weight.device)
    with torch.device("meta"):  # the same parts, without memory
        fast = type(model)(model.config).eval()
    for name, module in model.named_modules():
        if packed and isinstance(module, nn.Linear):
            fast.set_submodule(name, FastLinear(module, weights))
            continue
        for key, p in module.named_parameters(recurse=False):
            half = p.detach().to(torch.bfloat16, copy=True)
            setattr(fast.get_submodule(name), key, nn.Parameter(half, requires_grad=False))
    if model.config.tie_weights and not packed:
        fast.lm_head.weight = fast.transformer.wte.weight
    return fast


def can_pack(device):
    """Whether oneDNN multiplies bf16 here: a CPU with units for it, not a GPU, a Mac or an old CPU."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def keep_freed_memory():
    """Tell glibc to keep the memory of each step for the next one: about a tenth of a step.

    By default large blocks go back to the system when they are freed, and every page is fetched and
    cleared anew.
    """
    settings = ((M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 << 20))
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another libc, Windows, macOS
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for parameter, size in settings:
            mallopt(parameter, size)
