"""Speculative sampling writes what the large model alone would write, only faster."""

import pytest
import torch

from gpt2.speculative import Tally, speculate, verdict
from tests.models import small


def tiny(seed, layers=1, block_size=12, vocab=5):
    shape = dict(block_size=block_size, vocab_size=vocab, n_layer=layers, n_head=2, n_embd=8)
    return small(seed, 0.3, **shape)


@pytest.mark.parametrize("ahead", [1, 3, 9])
def test_greedy_is_letter_for_letter_the_same(ahead):
    """A cache that keeps refused ids, a proposal checked one place off, a window that moves too late."""
    large, small, idx = tiny(1, 2, vocab=40), tiny(2, block_size=7, vocab=40), torch.tensor([[3, 1, 4]])
    plain = list(large.stream(idx, 40, temperature=0))
    assert list(speculate(large, small, idx, 40, temperature=0, ahead=ahead)) == plain
    assert large.generate(idx, 40, temperature=0, draft=small)[0, 3:].tolist() == plain


def test_the_distribution_is_the_large_models():
    """Always keep, or replace a refused id by a plain draw: the letters would follow another law.

    The first letter follows p[0], one after a kept first follows p[1], whatever q proposes. Chi-square with
    three degrees of freedom passes 21 once in 10,000 times; the seed is fixed.
    """
    q, p = torch.tensor([[0.4, 0.3, 0.2, 0.1]] * 2), torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.7, 0, 0.1, 0.2],
                                                                  [0.25, 0.25, 0.25, 0.25]])
    generator = torch.Generator().manual_seed(0)

    def draw(probs):
        return torch.multinomial(probs, 1, generator=generator)

    drawn = [verdict(torch.cat([draw(row) for row in q]), q, p, draw).tolist() for _ in range(4000)]
    for place in (0, 1, 2):
        letters = [new[place] for new in drawn if len(new) > place]
        counts, expected = torch.bincount(torch.tensor(letters), minlength=4), p[place] * len(letters)
        held = expected > 0
        assert len(letters) > 500 and not counts[~held].any()
        assert ((counts - expected)[held] ** 2 / expected[held]).sum() < 21


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
    with pytest.raises(ValueError, match="may begin with a newline"):
        speculate(large, small, torch.zeros(1, 0, dtype=torch.long), 5)


def test_two_texts_at_once_leave_a_model_in_training_as_it_was():
    """The second stream found the first one's eval and gave it back at its end: no dropout from then on."""
    large, small, idx = tiny(1).train(), tiny(2), torch.tensor([[0]])
    first, second = (speculate(large, small, idx, 6, seed=0) for _ in range(2))
    next(first), next(second)
    assert large.training
    assert list(first) == list(second) and large.training and not small.training
