"""Checks of the exercises of gpt2_training.ipynb: each compares the reader's function with another way."""

import torch

from lab.checks import exercise, expect, expect_each
from lab.training import memorisation
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import TrainConfig, evaluate, lr_at


def small_model(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**{**dict(block_size=8, vocab_size=11, n_layer=2, n_head=2, n_embd=16), **changes}))


def ids(n, seed=0):
    return torch.randint(11, (n,), generator=torch.Generator().manual_seed(seed))


@exercise(1)
def check_1(my_lr):
    for warmup, steps, peak, low in ((10, 100, 1e-3, 1e-4), (1, 20, 1.0, 0.0)):
        plan = dict(schedule="cosine", warmup_steps=warmup, max_steps=steps, lr=peak, min_lr=low)
        c = TrainConfig.preset_of("quick", **plan)
        cases = [(step, warmup, steps, peak, low, lr_at(c, step))
                 for step in (0, warmup - 1, warmup, steps // 2, steps - 1)]
        expect_each("learning rate", my_lr, "step warmup steps peak low", cases, 1e-9)


@exercise(2)
def check_2(exact_loss):
    model = small_model(dropout=0.5).train()
    for n in (2, 9, 17, 21):  # one target; one whole window; two; two and a piece
        expect("loss of every target, once", f"a text of {n} letters, block_size 8",
               float(exact_loss(model, ids(n))), evaluate(model, ids(n)), 1e-4)


@exercise(3)
def check_3(accumulated):
    x, y = ids(64).view(8, 8), ids(64, seed=1).view(8, 8)
    whole = small_model()
    whole(x, y)[1].backward()
    wanted = torch.cat([p.grad.flatten() for p in whole.parameters()])
    for n in (1, 2, 4):
        model = small_model()
        accumulated(model, list(zip(x.chunk(n), y.chunk(n), strict=True)))
        grads = [p.grad for p in model.parameters()]
        if any(g is None for g in grads):
            expect("gradients that are left on the model", f"{n} pieces", "none", "one for each parameter")
        got = torch.cat([g.flatten() for g in grads])
        pieces = f"8 sequences in {n} pieces"
        expect("length of the gradient", pieces, got.norm().item(), wanted.norm().item(), 1e-4)
        expect("is it the gradient of the whole batch?", pieces, torch.allclose(got, wanted, atol=1e-6), True)


@exercise(4)
def check_4(longest_copy):
    cases = (("xxabcx", "zabcz"), ("abc", "xyz"), ("", "abc"), ("aabaab", "aabaaab"), ("rain", "rain"))
    expect_each("length of the longest passage of text that stands in source", longest_copy, "text source",
                [(text, source, memorisation(text, source, least=1)) for text, source in cases])
