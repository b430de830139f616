"""Speculative sampling writes what the large model alone would write, only faster."""

import pytest
import torch

from gpt2.sampling import filter_probs
from gpt2.speculative import Tally, speculate
from model_gpt2 import GPT, GPTConfig


def tiny(seed, layers=1, block_size=12, vocab=5):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(block_size, vocab, layers, 2, 16)).eval()
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("ahead", [1, 3, 9])
def test_greedy_is_letter_for_letter_the_same(ahead):
    """A cache that keeps refused ids, a proposal checked one place off, a window that moves too late."""
    large, small, idx = tiny(1, 2, vocab=40), tiny(2, block_size=7, vocab=40), torch.tensor([[3, 1, 4]])
    plain = list(large.stream(idx, 60, temperature=0))
    assert list(speculate(large, small, idx, 60, temperature=0, ahead=ahead)) == plain
    assert large.generate(idx, 60, temperature=0, draft=small)[0, 3:].tolist() == plain


def test_the_distribution_is_the_large_models():
    """Always keep, or replace a refused id by a plain draw: the pairs of letters would follow another law."""
    large, small, idx = tiny(1, 2), tiny(2), torch.tensor([[0, 1]])
    settings = dict(temperature=0.9, top_k=4)
    first = filter_probs(large(idx)[0][:, -1], **settings)[0]
    texts = torch.tensor([[0, 1, a] for a in range(5)])
    both = filter_probs(large(texts)[0][:, -1], **settings)
    expected = (first[:, None] * both).flatten()
    n = 2000
    drawn = [list(speculate(large, small, idx, 3, seed=seed, ahead=2, **settings))[:2] for seed in range(n)]
    counts = torch.bincount(torch.tensor([5 * a.item() + b.item() for a, b in drawn]), minlength=25)
    assert counts[expected == 0].sum() == 0
    held = expected > 0
    chi2 = ((counts - n * expected)[held] ** 2 / (n * expected)[held]).sum()
    assert chi2 < 45  # 24 degrees of freedom at most: above it once in 170 times; the seeds are fixed


def test_the_model_itself_as_its_draft_keeps_everything():
    """A tally that lies, or rounding that refuses equals."""
    model, tally = tiny(1, 2, block_size=64), Tally()
    ids = list(speculate(model, model, torch.tensor([[0]]), 40, seed=0, ahead=4, tally=tally))
    assert len(ids) == 40 and tally.acceptance > 0.95 and tally.ids_a_pass > 4


def test_same_seed_same_text_and_refusals():
    large, small, idx = tiny(1), tiny(2), torch.tensor([[0]])
    texts = [list(speculate(large, small, idx, 20, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    with pytest.raises(ValueError, match="one text"):
        speculate(large, small, torch.zeros(2, 3, dtype=torch.long), 5)
    with pytest.raises(ValueError, match="same 5 ids"):
        speculate(large, tiny(2, vocab=6), idx, 5)
