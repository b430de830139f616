"""gpt2/optim.py: Muon beside torch.optim.Muon, which is the oracle; and what each optimizer takes."""

import pytest
import torch

from model_gpt2 import GPT, GPTConfig
from train_gpt2 import Muon, TrainConfig, make_optimizers, orthogonalize


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(32, 32), (64, 16), (16, 64)])
@pytest.mark.parametrize("size", [1e-8, 1e6])
def test_orthogonalize(dtype, shape, size):
    """Newton-Schulz that overflows in a T4's fp16, transposes its result, or leaves directions unequal."""
    g = size * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, s, v = torch.linalg.svd(g, full_matrices=False)
    got = orthogonalize(g, dtype)
    assert got.dtype == g.dtype and got.shape == g.shape
    along = torch.diagonal(u.mT @ got @ v.mT)  # how far it goes along each of g's own directions
    big = s > 0.05 * s[0]  # the iteration needs more steps for directions that are nearly empty
    assert (along[big] > 0.5).all() and (along[big] < 1.4).all()


def test_muon_takes_the_blocks_matrices_only():
    """Muon on the embedding table (it ruins it), or a parameter that no optimizer or two of them hold."""
    model = GPT(GPTConfig(16, 11, 2, 2, 16))
    muon, adamw = make_optimizers(model, TrainConfig(), torch.float32)
    names = {p: n for n, p in model.named_parameters()}
    held = [[names[p] for group in o.param_groups for p in group["params"]] for o in (muon, adamw)]
    assert sorted(held[0] + held[1]) == sorted(names.values())
    assert all(".h." in n and n.endswith("weight") and "ln_" not in n for n in held[0]) and len(held[0]) == 8
    decayed = {names[p] for g in adamw.param_groups for p in g["params"] if g["weight_decay"]}
    assert decayed == {"transformer.wte.weight", "transformer.wpe.weight"}


def torchs(p):
    return torch.optim.Muon([p], lr=0.1, weight_decay=0.0, adjust_lr_fn="original")


def ours(p):
    return Muon([p], lr=0.1)


def steps(make, grads):
    """What an optimizer makes of these gradients, one after the other, from zero."""
    p = torch.nn.Parameter(torch.zeros_like(grads[0]))
    muon = make(p)
    for grad in grads:
        p.grad = grad.clone()
        muon.step()
    return p.detach()


def close(a, b):
    """torch iterates in bfloat16, ours in fp32 here: the same to a few per cent of the step's length."""
    return (a - b).norm() < 0.05 * b.norm()


@pytest.mark.parametrize("shape", [(32, 32), (128, 32), (32, 128)])
def test_steps_are_those_of_torch(shape):
    """Another scale for tall or wide matrices, another iteration, a momentum that is made anew each time."""
    torch.manual_seed(0)
    grads = [torch.randn(shape) for _ in range(3)]
    assert close(steps(ours, grads), steps(torchs, grads))


def test_query_key_and_value_step_like_three_square_matrices():
    """c_attn (3C, C) taken for one tall matrix: its step is sqrt(3) too long, a loud query drowns a key."""
    torch.manual_seed(0)
    parts = [torch.randn(32, 32) * size for size in (1.0, 1e-2, 1e-4)]
    assert close(steps(ours, [torch.cat(parts)]), torch.cat([steps(torchs, [part]) for part in parts]))


def test_matrices_of_one_shape_step_each_for_itself():
    """Stacked for speed: an update that goes to the wrong layer, or decay that is added instead of taken."""
    torch.manual_seed(0)
    grads = [torch.randn(32, 32) for _ in range(3)]
    params = [torch.nn.Parameter(torch.eye(32)) for _ in grads]
    for p, grad in zip(params, grads, strict=True):
        p.grad = grad.clone()
    Muon(params, lr=0.1, weight_decay=0.5).step()
    for p, grad in zip(params, grads, strict=True):
        assert close(p.detach() - 0.95 * torch.eye(32), steps(ours, [grad]))
