"""data/corpus.py: the split, texts that are too short or foreign, who speaks, what an app may offer."""

import pytest

from data.batches import eval_windows, get_batch
from data.corpus import corpus_from_text, split
from data.files import DataError
from data.tokenizer import CharTokenizer

TEXT = ("Any text will do for this, as long as it is long enough.\n" * 40)[:1999]


def test_split_is_nine_tenths():
    """Catches round() for int(), and a gap or overlap between the parts."""
    for n in (0, 1, 19, 1_115_394):
        a, b = split(range(n))
        assert a == range(int(0.9 * n)) and b == range(int(0.9 * n), n)


def test_symbols_that_the_vocabulary_lacks():
    """Catches fine-tuning on a text whose foreign symbols are dropped in silence."""
    with pytest.raises(DataError, match=r"mine has 2 symbols.*'\\xe9'.*'\\u20ac'"):
        corpus_from_text(TEXT + "\u00e9\u20ac", "mine", CharTokenizer.from_text(TEXT))
    assert corpus_from_text(TEXT, "mine", CharTokenizer.from_text(TEXT + "xyz")).tokenizer.vocab_size > len(
        set(TEXT)
    )
    with pytest.raises(DataError, match="surrogate|symbols"):
        corpus_from_text(TEXT + "\ud800", "mine")


@pytest.mark.parametrize("block_size", [1, 8, 100, 1024])
def test_shortest_text_is_long_enough(block_size):
    """Catches an error that asks for n characters and then refuses n."""
    with pytest.raises(DataError) as error:
        corpus_from_text("ab", "tiny", block_size=block_size)
    need = int(str(error.value).split("use a text of ")[1].split()[0])
    c = corpus_from_text("ab" * need, "enough", block_size=block_size)
    c = corpus_from_text(c.text[:need], "enough", block_size=block_size)
    get_batch(c.train, block_size, 4, 0, 0)
    list(eval_windows(c.val, block_size))
