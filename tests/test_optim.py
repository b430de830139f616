"""Muon beside torch.optim.Muon, which is the oracle."""

import torch

from train_gpt2 import Muon


def oracle_step(grads, lr):
    """What torch's own Muon makes of these gradients, each a matrix of its own, from zero."""
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    muon = torch.optim.Muon(params, lr=lr, weight_decay=0.0, adjust_lr_fn="original")
    for p, g in zip(params, grads, strict=True):
        p.grad = g.clone()
    muon.step()
    return [p.detach() for p in params]


def our_step(grad, lr):
    p = torch.nn.Parameter(torch.zeros_like(grad))
    p.grad = grad.clone()
    Muon([p], lr=lr).step()
    return p.detach()


def close(ours, theirs):
    """torch iterates in bfloat16, ours in fp32 here: the same to a few per cent of the step's length."""
    return (ours - theirs).norm() < 0.05 * theirs.norm()


def test_a_step_is_that_of_torch():
    """Another scale for tall or wide matrices, another momentum, another iteration."""
    torch.manual_seed(0)
    for shape in ((32, 32), (128, 32), (32, 128)):
        grad = torch.randn(shape)
        assert close(our_step(grad, 0.1), oracle_step([grad], 0.1)[0]), shape


def test_query_key_and_value_step_like_three_square_matrices():
    """c_attn (3C, C) taken for one tall matrix: its step was sqrt(3) times too long."""
    torch.manual_seed(0)
    grad = torch.randn(96, 32)
    assert close(our_step(grad, 0.1), torch.cat(oracle_step(grad.chunk(3), 0.1)))
