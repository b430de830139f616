"""Checks of the exercises of gpt_dev.ipynb: each compares the reader's function with another way."""

import math

import torch
import torch.nn.functional as F

from lab.checks import exercise, expect, expect_each
from model_gpt2 import GPT, CausalSelfAttention, GPTConfig


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@exercise(0)
def check_0(never_seen):
    cases = [("abc", "ab", ["c"]), ("abc", "cab", []), ("$&3Xa", "aa3", ["$", "&", "X"])]
    expect_each("symbols of the alphabet that the text lacks", lambda *given: sorted(never_seen(*given)),
                "alphabet text", cases)


@exercise(1)
def check_1(surprise_add_k):
    cases = ((9, 10, 0, 65, 0.10536), (0, 10, 1, 65, 4.31749), (3, 7, 0.5, 4, 0.94446))
    expect_each("surprise in nats", surprise_add_k, "count total k V", cases, 1e-4)


@exercise(2)
def check_2(predict_first_loss):
    for scale in (0.0, 1.0, 10.0):
        logits = scale * noise(20_000, 65, seed=1)
        wanted = F.cross_entropy(logits, torch.arange(20_000) % 65).item()
        expect("mean loss of random logits", {"scale": scale}, float(predict_first_loss(scale)), wanted,
               0.05 + 0.05 * wanted)


@exercise(3)
def check_3(self_and_two_before):
    cases = [(T, torch.tensor([[t - 2 <= s <= t for s in range(T)] for t in range(T)])) for T in (1, 2, 5)]
    expect_each("mask, True where a position may look", self_and_two_before, "T", cases)


@exercise(4)
def check_4(one_head, variance):
    x, w = noise(2, 5, 8), noise(3, 8, 4, seed=1)
    q, k, v = (x @ m for m in w)
    wanted = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    expect("output of one head", "x (2, 5, 8) and three matrices (8, 4)", one_head(x, *w), wanted, 1e-4)
    expect_each("variance of q . k", variance, "hs", [(4, 4.0), (64, 64.0)], 1e-6)


class _Toy(torch.nn.Module):
    """A model that sees a bag of letters, or their order, or the last letter only."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.table = kind, torch.nn.Embedding.from_pretrained(noise(65, 65))

    def forward(self, idx, targets=None):
        x = self.table(idx)
        if self.kind == "order":
            x = x * torch.arange(1, idx.size(1) + 1)[:, None]
        past = x[..., :1].cumsum(1) if self.kind == "nearly" else 0  # order enters through a single number
        bag = x.cumsum(1) if self.kind != "last" else x
        return bag + (0.1 * past.cumsum(1) if self.kind == "nearly" else 0), None


@exercise(5)
def check_5(is_order_blind):
    idx = torch.randint(0, 65, (4, 12), generator=torch.Generator().manual_seed(0))
    for kind, wanted in (("bag", True), ("last", True), ("order", False), ("nearly", False)):
        expect("is it blind to the order of the past?", f"a model that uses: {kind}",
               bool(is_order_blind(_Toy(kind), idx)), wanted)


@exercise(6)
def check_6(leaks):
    ones = torch.ones(5, 5, dtype=torch.bool)
    single = ones.tril()
    single[1, 4] = True
    masks = (("tril()", ones.tril(), False), ("tril(1)", ones.tril(1), True), ("all True", ones, True),
             ("tril(-1)", ones.tril(-1), False), ("tril(), and True at (1, 4)", single, True))
    for name, mask, wanted in masks:
        expect("does some row see a later letter?", f"mask (5, 5): {name}", bool(leaks(mask)), wanted)


@exercise(7)
def check_7(heads_without_a_loop):
    q, k, v = noise(3, 2, 5, 8)
    for nh in (1, 2, 4):
        hs = 8 // nh
        heads = zip(*(y.split(hs, dim=-1) for y in (q, k, v)), strict=True)
        parts = [F.scaled_dot_product_attention(*head, is_causal=True) for head in heads]
        expect("all heads at once", f"q, k, v (2, 5, 8), nh {nh}", heads_without_a_loop(q, k, v, nh),
               torch.cat(parts, dim=-1), 1e-5)


def broken_models(seed=0):
    """Three models, each with one of the faults "scale", "leak", "init", and a sound one: {name: GPT}."""
    models = {}
    for name, fault in (("A", "leak"), ("B", "init"), ("C", "scale"), ("sound", None)):
        torch.manual_seed(seed)
        model = GPT(GPTConfig(16, 65, 4, 4, 64))
        for block in model.transformer.h:
            torch.nn.init.normal_(block.attn.c_attn.weight, std=0.2)  # sharp enough for a pattern to show
            if fault == "init":
                for proj in (block.attn.c_proj, block.mlp.c_proj):
                    torch.nn.init.normal_(proj.weight, std=1 / math.sqrt(8))
            elif fault:
                block.attn.__class__ = {"leak": _Leaks, "scale": _ScaledByWidth}[fault]
        models[name] = model.eval()
    return models


@torch.no_grad()
def stream_sizes(model, idx):
    """Standard deviation of the residual stream of a GPT: after the embeddings, then after each block."""
    x = model.transformer.wte(idx) + model.transformer.wpe.weight[:idx.size(1)]
    sizes = [x.std().item()]
    for block in model.transformer.h:
        x = block(x)
        sizes.append(x.std().item())
    return sizes


class _Leaks(CausalSelfAttention):
    scale, first_hidden = 1 / 4, 2  # heads of 16 numbers; the letter after is not hidden

    def forward(self, x, cache=None, patterns=None):
        B, T, C = x.size()
        q, k, v = (y.view(B, T, self.n_head, -1).transpose(1, 2) for y in self.c_attn(x).split(C, dim=2))
        hidden = torch.ones(T, T, dtype=torch.bool).triu(self.first_hidden)
        pattern = (q @ k.mT * self.scale).masked_fill(hidden, float("-inf")).softmax(-1)
        if patterns is not None:
            patterns.append(pattern)
        return self.c_proj((pattern @ v).transpose(1, 2).reshape(B, T, C))


class _ScaledByWidth(_Leaks):
    scale, first_hidden = 1 / 8, 1  # a width of 64


@exercise(8)
def check_8(diagnosis):
    answers = diagnosis()
    for name, wanted in (("A", "leak"), ("B", "init"), ("C", "scale")):
        if answers.get(name) != wanted:  # say which one is wrong, not what it is
            expect("the fault of each model, one of 'scale', 'leak', 'init'", f"model {name}",
                   answers.get(name), "another of the three")


@exercise(9)
def check_9(block_parameters):
    blocks = ((C, GPT(GPTConfig(8, 8, 1, 1, C)).transformer.h[0]) for C in (64, 768))
    cases = [(C, sum(p.numel() for p in block.parameters())) for C, block in blocks]
    expect_each("parameters of one block", block_parameters, "C", cases)


@exercise(10)
def check_10(top_p):
    probs = torch.tensor([0.1, 0.5, 0.1, 0.25, 0.05])
    kept = ((0.4, [0, 1.0, 0, 0, 0]), (0.7, [0, 2 / 3, 0, 1 / 3, 0]), (1.0, probs.tolist()))
    cases = [(probs.clone(), p, torch.tensor(wanted)) for p, wanted in kept]
    expect_each("probabilities after top-p", top_p, "probs p", cases, 1e-5)
