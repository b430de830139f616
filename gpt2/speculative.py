"""Speculative sampling: a small model proposes several ids, the large one checks them all in one pass.

Reading a large model's weights from memory takes most of the time of a step, and a pass over five ids
reads them once, as a pass over one does. Each proposal x, drawn from the small model's q, is kept with
probability min(1, p(x) / q(x)), p being the large model's; the first that is refused is replaced by a
draw from max(p - q, 0), scaled to sum 1. The text then has exactly the large model's distribution,
whatever the small one proposes (Leviathan et al. 2023, Chen et al. 2023); a better small model only
makes it faster.
"""

from dataclasses import dataclass

import torch

from gpt2.sampling import KVCache, check_prompt, check_settings, evaluating, filter_probs


@dataclass
class Tally:
    """What speculation brought: passes of the large model, ids proposed and kept."""

    passes: int = 0
    proposed: int = 0
    kept: int = 0

    @property
    def ids_a_pass(self):
        return (self.kept + self.passes) / max(1, self.passes)  # each pass adds one id of its own

    @property
    def acceptance(self):
        return self.kept / max(1, self.proposed)


class Reader:
    """A model with its cache, reading a text that grows at its end and may be taken back."""

    def __init__(self, model):
        self.model, self.start, self.context = model, 0, model.config.block_size
        self.cache = KVCache(model.config, 1, model.transformer.wte.weight)

    def fit(self, length):
        """Make room to predict what follows `length` ids, by the rule of gpt2/sampling.py."""
        if length - self.start > self.context:
            self.start, self.cache.length = length - max(1, self.context // 2), 0

    def room(self, length):
        return self.context - (length - self.start)

    def logits(self, text):
        """text (1, L) -> the logits (n, V) that follow its last n ids, those that were not read before."""
        new = text[:, self.start + self.cache.length :]
        x = self.model.hidden(new, self.cache)
        return self.model.lm_head(x)[0, :, : self.model.config.n_tokens].float()

    def keep(self, length):
        """Forget what was read beyond the first `length` ids."""
        if length < self.start:  # the window had moved on, for proposals that were refused
            self.start, self.cache.length = max(0, length - self.context // 2), 0
        self.cache.length = min(self.cache.length, length - self.start)


def speculate(model, draft, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=None, ahead=4,
              tally=None):
    """Continue idx (1, T) by max_new_tokens ids; yields (1,) int64. The settings are those of GPT.stream.

    draft: a GPT over the same vocabulary. ahead: ids that it proposes at once. tally: a Tally that is
    counted up. Raises ValueError for more than one row, another vocabulary, or what stream refuses.
    """
    check_prompt(model, idx)
    check_settings(temperature, top_k, top_p)
    if idx.size(0) != 1:
        raise ValueError(f"Speculative sampling writes one text at a time, not {idx.size(0)}.")
    sizes = [m.config.n_tokens or m.config.vocab_size for m in (model, draft)]
    if sizes[0] != sizes[1] or ahead < 1:
        raise ValueError(f"The draft must know the same {sizes[0]} ids (it has {sizes[1]}), "
                         "and ahead be at least 1.")
    generator = None if seed is None else torch.Generator(idx.device).manual_seed(seed)

    def probs(logits):
        return filter_probs(logits, temperature, top_k, top_p)

    def draw(p):  # (V,) -> (1,)
        return torch.multinomial(p, 1, generator=generator)

    return _rounds(Reader(model), Reader(draft), idx, max_new_tokens, ahead, probs, draw, tally or Tally())


@torch.no_grad()
def _rounds(large, small, text, left, ahead, probs, draw, tally):
    while left > 0:
        large.fit(text.size(1))
        n = min(ahead, left - 1, large.room(text.size(1)))
        with evaluating(large.model), evaluating(small.model):
            proposed, q = propose(small, text, n, probs, draw)
            p = probs(large.logits(torch.cat((text, proposed), dim=1))[-n - 1 :])  # (n + 1, V)
        new = verdict(proposed[0], q, p, draw)
        tally.passes += 1
        tally.proposed += n
        tally.kept += len(new) - 1
        text, left = torch.cat((text, new[None]), dim=1), left - len(new)
        for reader in (large, small):
            reader.keep(text.size(1) - 1)  # the last id is still to be read
        yield from new.split(1)


def propose(small, text, n, probs, draw):
    """n ids (1, n) drawn from the small model one after the other, and the distributions q (n, V)."""
    length, q = text.size(1), []
    for _ in range(n):
        small.fit(text.size(1))
        q.append(probs(small.logits(text)[-1:])[0])
        text = torch.cat((text, draw(q[-1])[None]), dim=1)
    return text[:, length:], q


def verdict(proposed, q, p, draw):
    """The proposals (n,) that are kept, and one id more: the correction, or the next one if all were kept."""
    for i, x in enumerate(proposed.tolist()):
        keep = (p[i, x] / q[i][x]).clamp(max=1)
        if draw(torch.stack((keep, 1 - keep))) == 1:
            rest = (p[i] - q[i]).clamp(min=0)
            return torch.cat((proposed[:i], draw(rest if rest.sum() > 0 else p[i])))
    return torch.cat((proposed, draw(p[-1])))
