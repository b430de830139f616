"""data/batches.py: windows that miss nothing, and batches that depend on (seed, step) alone."""

import numpy as np
import pytest
import torch

from data.batches import batch_starts, eval_windows, get_batch, shuffled_batch
from data.files import DataError


def test_batch_is_a_pure_function_of_seed_and_step():
    """Catches hidden state: a resumed run, or a second process, would see other data."""
    ids = torch.arange(1000)
    x, y = get_batch(ids, 8, 4, seed=3, step=7)
    torch.manual_seed(0)
    np.random.seed(0)
    get_batch(ids, 8, 4, seed=3, step=8)
    again = get_batch(ids, 8, 4, seed=3, step=7)
    assert torch.equal(x, again[0]) and torch.equal(y, again[1])
    assert torch.equal(y, x + 1) and x.shape == y.shape == (4, 8) and x.dtype == torch.int64
    assert x[:, 0].tolist() == [195, 732, 216, 542], (
        "the draw itself changed: earlier results would not come again"
    )
    larger = get_batch(ids, 8, 16, seed=3, step=7)
    assert torch.equal(larger[0][:4], x), "a slice of a larger batch"


def test_seeds_and_steps_give_other_batches():
    """Catches streams that overlap: step t of one seed must not be step t + 1 of another."""
    pairs = [(seed, step) for seed in range(8) for step in range(64)]
    starts = [tuple(batch_starts(10**6, 1, 8, *pair).tolist()) for pair in pairs]
    flat = [s for batch in starts for s in batch]
    assert len(set(starts)) == 512
    assert len(set(flat)) > 4060, "4,096 draws of a million: about 8 pairs by chance"


def test_every_legal_start_is_drawn_and_no_other():
    """Catches the last window lost to an exclusive bound, and one past the end. False alarm: under 1e-20."""
    ids, block = torch.arange(20), 8
    seen = [0] * 20
    for step in range(200):
        x, y = get_batch(ids, block, 8, 0, step)
        for s in x[:, 0].tolist():
            seen[s] += 1
        assert y.max() <= 19
    assert [s for s, n in enumerate(seen) if n] == list(range(12))
    expected = 1600 / 12
    chi2 = sum((n - expected) ** 2 / expected for n in seen[:12])
    assert chi2 < 45, "even over all starts; 45 for 11 degrees of freedom is p < 1e-5"


def test_batch_from_an_array_on_disk(tmp_path):
    """Catches token shards (uint16, memory-mapped) being refused, or overflowing."""
    np.save(tmp_path / "ids.npy", np.arange(50_000, 50_200, dtype=np.uint16))
    x, y = get_batch(np.load(tmp_path / "ids.npy", mmap_mode="r"), 8, 4, 0, 0)
    assert x.dtype == torch.int64 and torch.equal(y, x + 1) and x.min() >= 50_000


def test_bad_batch_requests_are_clear():
    """Catches numpy's own words for a text shorter than one window."""
    assert get_batch(torch.arange(9), 8, 2, 0, 0)[1][:, -1].tolist() == [8, 8], "exactly one window fits"
    with pytest.raises(DataError, match="8 symbols.*need 9"):
        get_batch(torch.arange(8), 8, 2, 0, 0)
    with pytest.raises(DataError, match="seed and step"):
        get_batch(torch.arange(90), 8, 2, -1, 0)


CASES = [(2, 8, 1), (9, 8, 4), (10, 8, 4), (100, 7, 3), (113, 8, 64), (8, 1, 2)]


@pytest.mark.parametrize(("length", "block", "batch"), CASES)
def test_eval_windows_score_every_target_once(length, block, batch):
    """Catches a lost tail, a doubled edge, or a first target without context: the loss would not be exact."""
    ids = torch.arange(length)
    targets, inputs = [], []
    for x, y in eval_windows(ids, block, batch):
        assert x.shape == y.shape and x.ndim == 2 and x.shape[0] <= batch and x.shape[1] <= block
        assert torch.equal(y, x + 1)
        inputs += x.flatten().tolist()
        targets += y.flatten().tolist()
    assert targets == list(range(1, length)) and inputs == list(range(length - 1))
    with pytest.raises(DataError, match="nothing to predict"):
        list(eval_windows(ids[:1], block, batch))


@pytest.mark.parametrize("length", [1000, 1005, 1009])
def test_an_epoch_shows_each_window_once(length):
    """A window that comes twice in an epoch, a target beyond the text, or a tenth of the text that
    never comes.
    """
    ids = torch.arange(length)
    windows = (length - 10) // 10
    x, y = shuffled_batch(ids, 10, windows, seed=3, step=0)  # a whole epoch in one batch
    seen = x.flatten().tolist()
    assert len(seen) == len(set(seen)) == 10 * windows > length - 20
    assert torch.equal(y, x + 1) and y.max() < length


def test_epochs_differ_and_batches_do_not_depend_on_their_size():
    """One order for all epochs, an order that ignores the seed, or a step that forgets where it
    stands in the epoch.
    """
    ids = torch.arange(1000)
    first, second = (shuffled_batch(ids, 10, 99, 3, step)[0] for step in (0, 1))
    assert not torch.equal(first, second) and not torch.equal(first, shuffled_batch(ids, 10, 99, 4, 0)[0])
    parts = [shuffled_batch(ids, 10, 33, 3, step)[0] for step in range(6)]
    assert torch.equal(torch.cat(parts), torch.cat((first, second)))


def test_a_text_of_one_window_can_be_shuffled():
    """Division by nothing where the text is hardly longer than the context."""
    x, y = shuffled_batch(torch.arange(12), 10, 4, 0, 7)
    assert x.shape == y.shape == (4, 10)
