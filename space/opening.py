"""The text that a page opens with: written by the model when the page is built, the same every time.

It draws with the generator of space/static/gpt2.js: the page's own Generate with this seed gives the same
text.
"""

import re

import torch

from data.tokenizer import load_tokenizer
from gpt2.sampling import filter_probs, steps
from model_gpt2 import GPT

SEED, TEMPERATURE, LENGTH, PAST_THE_END = 1, 0.7, 300, 120  # tokens; it ends at the end of a line


def numbers(seed: int):
    """gpt2.js's `generator`: numbers in [0, 1), a counter through MurmurHash3's finalizer."""
    counter, low = seed, 0xFFFFFFFF
    while True:
        counter = (counter + 0x9E3779B9) & low
        z = ((counter ^ (counter >> 16)) * 0x85EBCA6B) & low
        z = ((z ^ (z >> 13)) * 0xC2B2AE35) & low
        yield (z ^ (z >> 16)) / 2**32


def opening(folder, heldout: str = "") -> dict:
    """{"text", "n_prompt", "nats"} of a character model's folder: one number a character, None in the prompt.

    The prompt is the first speaker of `heldout`, where there is one, else what the model starts from. Raises
    ValueError for a model of pieces.
    """
    model, tokenizer = GPT.from_pretrained(folder), load_tokenizer(folder)
    if tokenizer.kind != "char":
        raise ValueError("The page counts in letters: a model of pieces writes there first.")
    speaker = re.search(r"^[^,.;!?\n]{2,24}:$", heldout, re.M) if isinstance(heldout, str) else None
    ids = (tokenizer.encode(f"{speaker[0]}\n") if speaker else []) or [tokenizer.start_id]
    n_prompt, nats, draws = len(ids), [None] * len(ids), numbers(SEED)

    def pick(logits):  # (1, V) -> (1, 1), as `draw` in gpt2.js does it
        logits = logits[:, : tokenizer.vocab_size].double()
        id = torch.searchsorted(filter_probs(logits, TEMPERATURE)[0].cumsum(0), next(draws), right=True)
        id = id.clamp(max=logits.size(1) - 1)
        nats.append(round(-float(logits.log_softmax(-1)[0, id]), 2))
        return id.view(1, 1)

    for new in steps(model, torch.tensor([ids]), LENGTH + PAST_THE_END, pick):
        ids.append(int(new))
        if len(ids) >= n_prompt + LENGTH and tokenizer.decode(ids[-1:]) == "\n":
            break
    return {"text": tokenizer.decode(ids), "n_prompt": n_prompt, "nats": nats}
