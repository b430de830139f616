"""data/corpus.py: the split, texts that are too short or foreign, who speaks, what an app may offer."""

import pytest

from data.corpus import corpus_from_text, split
from data.files import DataError
from data.tokenizer import CharTokenizer
from tests import texts

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
    wider = CharTokenizer.from_text(TEXT + "xyz")
    assert corpus_from_text(TEXT, "mine", wider).tokenizer is wider
    with pytest.raises(DataError, match="symbols"):
        corpus_from_text(TEXT + "\ud800", "mine")


def test_shortest_text_is_long_enough():
    """Catches an error that asks for n characters and then refuses n."""
    with pytest.raises(DataError, match="too few.*use a text of 20 or more"):
        corpus_from_text("ab", "tiny")
    assert len(corpus_from_text("ab" * 10, "enough").val) == 2


# --- what an app can offer ---

CHAT = "".join(f"[{i % 24:02}:{i % 60:02}] {['Ann', 'Bo'][i % 2]}: message {i}\n" for i in range(300))
CODE = "for x in y:\n    if x:\n        pass\n    else:\n        print(x)\n" * 50


@pytest.mark.parametrize(
    ("text", "speakers", "form"),
    [
        (texts.play() + "\n\nOnce Only:\nabc", {"АННА", "О'Брайен", "Third Man"}, "{}:\n"),
        (CHAT, {"Ann", "Bo"}, "{}: "),
        (CODE, set(), ""),
        (texts.cyrillic(20_000), set(), ""),
        (texts.log(), set(), ""),
    ],
)
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
