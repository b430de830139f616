"""What the tests of the model share: a tiny one, ids for it, a folder of it as training writes it."""

import json
from pathlib import Path

import numpy as np
import torch

from data.ngram import NGram
from data.tokenizer import CharTokenizer
from model_gpt2 import GPT, GPTConfig

V = 65
CHARS = sorted(set("\n !$&',-.3:;?" + "".join(map(chr, [*range(65, 91), *range(97, 123)]))))  # 65


def small(seed=0, std=0.15, **changes):
    """A tiny model with weights as far from zero as trained ones, so that wrong arithmetic shows."""
    torch.manual_seed(seed)
    shape = {**dict(block_size=16, vocab_size=V, n_layer=3, n_head=4, n_embd=32), **changes}
    model = GPT(GPTConfig(**shape)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += std * torch.randn_like(p)
    return model


def ids(B, T, seed=1):
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(seed))


def model_folder(folder, model, tokenizer=None, **facts):
    """A model folder as training writes it: with tokenizer, 5-gram (of characters only) and metrics."""
    folder, V = Path(folder), model.config.vocab_size
    model.save_pretrained(folder)
    tokenizer = tokenizer or CharTokenizer(CHARS)
    tokenizer.save(folder, model.config.block_size)
    if isinstance(tokenizer, CharTokenizer):
        NGram(5, V).fit(np.random.default_rng(0).integers(0, V, 3000)).save(folder / "ngram5.npz")
    metrics = {"val_loss": 1.2345, "val_loss_char": 1.2345, "parameters": model.num_params(),
               "step": 7, "tokens": 3584, "seconds": 291.9,
               "machine": {"device": "cpu", "threads": 2, "torch": torch.__version__}}
    (folder / "metrics.json").write_text(json.dumps({**metrics, **facts}))
    return folder
