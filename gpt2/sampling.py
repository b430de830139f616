"""Writing with a GPT-2: the cache of keys and values, the filters, one id a step.

Positions are learned, so a window that moves makes every cached key wrong. The rule: a prompt is cut to
its last block_size ids; when the window is full, the last block_size // 2 ids start afresh from
position 0.
"""

import contextlib
import math

import torch
import torch.nn.functional as F


class KVCache:
    """The keys and values of every position seen so far: no work is done twice.

    like: a tensor of the wanted device and dtype. The buffers are allocated once, for the whole context.
    """

    def __init__(self, config, B, like):
        head_size = config.n_embd // config.n_head
        shape = config.n_layer, B, config.n_head, config.block_size, head_size
        # fp32 beside bf16 weights on a CPU: one position looks back over 1,000 in a third of the time
        slow = like.device.type == "cpu" and like.dtype == torch.bfloat16
        dtype = torch.float32 if slow else like.dtype
        self.k = torch.empty(shape, dtype=dtype, device=like.device)
        self.v = torch.empty(shape, dtype=dtype, device=like.device)
        self.length = 0  # positions filled

    def append(self, layer, k, v):
        """The new k, v (B, nh, T, hs) of a layer -> all so far, (B, nh, S, hs) each."""
        end = self.length + k.size(2)
        self.k[layer, :, :, self.length:end] = k
        self.v[layer, :, :, self.length:end] = v
        if self.length == 0:
            return k, v  # the first ones are all there are, in their own dtype
        return self.k[layer, :, :, :end], self.v[layer, :, :, :end]


def check_prompt(model, idx):
    if idx.dim() != 2 or idx.is_floating_point() or idx.numel() == 0:
        raise ValueError("idx must be whole numbers of shape (B, T), not "
                         f"{idx.dtype} of shape {tuple(idx.shape)}; "
                         "an empty prompt may begin with a newline.")
    model.check_ids(idx)


def check_settings(temperature, top_k, top_p):
    if not 0 <= temperature < math.inf or top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"temperature ({temperature}) must be 0 or more, and top_p ({top_p}) above 0 "
                         "and at most 1.")


def filter_probs(logits, temperature=1.0, top_k=None, top_p=None):
    """logits (B, V) -> the probabilities (B, V) that sampling draws from.

    The settings are those of GPT.stream; at temperature 0 the likeliest id has all the probability.
    """
    check_settings(temperature, top_k, top_p)
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.size(-1)).to(logits.dtype)
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    if top_k is not None and 0 < top_k < logits.size(-1):
        least = logits.topk(top_k).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < least, float("-inf"))
    probs = logits.softmax(dim=-1)
    if top_p is not None and top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # what the likelier ones hold: 0 for the first, so it stays
        probs = probs.masked_fill((before >= top_p).scatter(-1, order, before >= top_p), 0.0)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    return probs


def generate(model, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=None, use_cache=True,
             draft=None):
    """idx (B, T) -> (B, T + max_new_tokens); the settings are those of stream, draft that of speculate."""
    if draft is None:
        steps = stream(model, idx, max_new_tokens, temperature, top_k, top_p, seed, use_cache)
    else:
        from gpt2.speculative import speculate  # it stands on this file
        steps = speculate(model, draft, idx, max_new_tokens, temperature, top_k, top_p, seed)
    return torch.cat([idx, *(new[:, None] for new in steps)], dim=1)


def stream(model, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=None, use_cache=True):
    """Sample one id a step for each row of idx (B, T); yields (B,) int64.

    temperature: 0 is greedy, 1 the model's own distribution. top_k: only the k likeliest; None, 0 or
    negative: all.
    top_p: only the fewest that together hold this probability. seed: same seed, same text.
    use_cache=False: a slow reference. Raises ValueError at once (a generator's body would wait until
    its first id is asked for) for an empty prompt, ids out of range or impossible settings.
    """
    check_prompt(model, idx)
    check_settings(temperature, top_k, top_p)
    generator = None if seed is None else torch.Generator(idx.device).manual_seed(seed)

    def pick(logits):  # (B, V) -> (B, 1)
        if temperature == 0:
            return logits.argmax(dim=-1, keepdim=True)
        probs = filter_probs(logits, temperature, top_k, top_p)
        return torch.multinomial(probs, 1, generator=generator)

    return steps(model, idx, max_new_tokens, pick, use_cache)


@torch.no_grad()
def steps(model, idx, max_new_tokens, pick, use_cache=True):
    """Yields (B,) int64, a step each: pick turns logits (B, V) into the next ids (B, 1)."""
    block_size = model.config.block_size
    window = idx[:, -block_size:]  # (B, S)
    cache = KVCache(model.config, idx.size(0), model.transformer.wte.weight) if use_cache else None
    for _ in range(max_new_tokens):
        if window.size(1) > block_size:
            window = window[:, -max(1, block_size // 2):]
            if cache is not None:
                cache.length = 0
        unseen = window if cache is None else window[:, cache.length:]
        with evaluating(model):
            last = model.hidden(unseen, cache)[:, -1]  # (B, C)
            logits = model.lm_head(last)[:, :model.config.n_tokens].float()  # (B, ids in use)
        new = pick(logits)  # (B, 1)
        yield new[:, 0]
        window = torch.cat((window, new), dim=1)


@contextlib.contextmanager
def evaluating(model):
    """The model without dropout, and back: between two ids of a stream it may be trained."""
    was_training = model.training
    if was_training:  # else nothing: eval() walks through all modules
        model.eval()
    try:
        yield
    finally:
        if was_training:
            model.train()
