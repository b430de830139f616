"""data/corpus.py and data/batches.py: the split, who speaks, windows that miss nothing, batches that depend
on (seed, step) alone.
"""

import numpy as np
import pytest
import torch

from data.batches import batch_starts, eval_windows, get_batch, shuffled_batch
from data.corpus import corpus_from_text
from data.files import DataError
from data.tokenizer import CharTokenizer
from tests import texts

TEXT = ("Any text will do for this, as long as it is long enough.\n" * 40)[:1999]
IDS = torch.arange(1000)


def test_a_text_that_cannot_be_used_is_one_sentence():
    """Catches a text whose foreign symbols are dropped in silence; an error that refuses what it asks for."""
    with pytest.raises(DataError, match=r"mine has 2 symbols.*'\\xe9'.*'\\u20ac'"):
        corpus_from_text(TEXT + "\u00e9\u20ac", "mine", CharTokenizer.from_text(TEXT))
    wider = CharTokenizer.from_text(TEXT + "xyz")
    assert corpus_from_text(TEXT, "mine", wider).tokenizer is wider
    with pytest.raises(DataError, match="symbols"):
        corpus_from_text(TEXT + "\ud800", "mine")
    with pytest.raises(DataError, match="too few.*use a text of 20 or more"):
        corpus_from_text("ab", "tiny")
    assert len(corpus_from_text("ab" * 10, "enough").val) == 2


# --- what an app can offer ---

CHAT = "".join(f"[{i % 24:02}:{i % 60:02}] {['Ann', 'Bo'][i % 2]}: message {i}\n" for i in range(300))
CODE = "for x in y:\n    if x:\n        pass\n    else:\n        print(x)\n" * 50


@pytest.mark.parametrize(("text", "speakers", "form"), [
    (texts.play() + "\n\nOnce Only:\nabc", {"АННА", "О'Брайен", "Third Man"}, "{}:\n"),
    (CHAT, {"Ann", "Bo"}, "{}: "), (CODE, set(), ""), (texts.cyrillic(20_000), set(), ""),
    (texts.log(), set(), "")])
def test_speakers_of_a_play_and_of_a_log(text, speakers, form):
    """Catches ROMEO offered to a reader of another text, and headings or code taken for people."""
    corpus = corpus_from_text(text, "any")
    assert set(corpus.speakers) == speakers
    assert not speakers or corpus.examples[0] == form.format(corpus.speakers[0])


def test_examples_come_from_validation(shakespeare):
    """Catches prompts that training has seen, and prompts cut inside a word."""
    assert len(shakespeare.examples) == 5
    for example in shakespeare.examples[2:]:
        at = shakespeare.val_text.index(example)
        assert not shakespeare.val_text[at + len(example)].isalpha()


# --- batches ---


@pytest.mark.parametrize(("draw", "first"), [(get_batch, [195, 732, 216, 542]), (shuffled_batch, None)])
def test_batch_is_a_pure_function_of_seed_and_step(draw, first):
    """Catches hidden state: a resumed run, or a second process, would see other data."""
    x, y = draw(IDS, 8, 4, seed=3, step=7)
    torch.manual_seed(0)
    np.random.seed(0)
    assert not torch.equal(draw(IDS, 8, 4, seed=3, step=8)[0], x)
    assert not torch.equal(draw(IDS, 8, 4, seed=4, step=7)[0], x)
    assert torch.equal(draw(IDS, 8, 4, seed=3, step=7)[0], x)
    assert torch.equal(y, x + 1) and x.shape == y.shape == (4, 8) and x.dtype == torch.int64
    assert first in (None, x[:, 0].tolist()), "the draw itself changed: earlier results would not come again"


def test_every_legal_start_is_drawn_and_no_other():
    """Catches the last window lost to an exclusive bound, one past the end (false alarm: under 1e-5), and
    streams that overlap: step t of one seed must not be step t + 1 of another.
    """
    starts = np.concatenate([batch_starts(20, 8, 8, 0, step) for step in range(200)])
    seen = np.bincount(starts)
    assert len(seen) == 12 and seen.min() > 0
    expected = 1600 / 12
    assert ((seen - expected) ** 2 / expected).sum() < 45, "chi2 of 11 degrees of freedom"
    batches = [batch_starts(10**6, 1, 8, seed, step).tolist() for seed in range(8) for step in range(64)]
    assert len({start for batch in batches for start in batch}) > 4060, "of 4,096 about 8 pairs by chance"


def test_bad_batch_requests_are_clear():
    """Catches numpy's own words for a text shorter than one window."""
    assert get_batch(torch.arange(9), 8, 2, 0, 0)[1][:, -1].tolist() == [8, 8], "exactly one window fits"
    assert shuffled_batch(torch.arange(12), 10, 4, 0, 7)[0].shape == (4, 10), "too short for epochs"
    with pytest.raises(DataError, match="8 symbols.*need 9"):
        shuffled_batch(torch.arange(8), 8, 2, 0, 0)
    with pytest.raises(DataError, match="seed and step"):
        get_batch(torch.arange(90), 8, 2, -1, 0)
    with pytest.raises(DataError, match="nothing to predict"):
        list(eval_windows(torch.arange(1), 8))


@pytest.mark.parametrize("length", [1000, 1005, 1009])
def test_an_epoch_shows_each_window_once(length):
    """Catches a window that comes twice or never, one that ends beyond the text, and epochs in one order."""
    thirds = [shuffled_batch(torch.arange(length), 10, 33, seed=3, step=step)[0] for step in range(6)]
    epochs = torch.cat(thirds[:3]), torch.cat(thirds[3:])
    for x in epochs:
        assert x.unique().numel() == x.numel() == 990 and x.max() < length - 1
    assert not torch.equal(*epochs)
