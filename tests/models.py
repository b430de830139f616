"""What the tests of the model share: a tiny one, and ids for it."""

import torch

from model_gpt2 import GPT, GPTConfig

V = 65


def small(seed=0, std=0.15, **changes):
    """A tiny model with weights large enough that wrong arithmetic shows."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**dict(block_size=16, vocab_size=V, n_layer=3, n_head=4, n_embd=32), **changes}))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=std)
    return model.eval()


def ids(B, T, seed=1):
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(seed))
