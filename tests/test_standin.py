"""data/standin.py: a text whose best possible loss is known, so a leak can be proved."""

import hashlib
import json
import math
import random

import numpy as np
import pytest
from conftest import ROOT

from data import shakespeare, standin
from data.ngram import NGram


@pytest.fixture(scope="module")
def corpus():
    """As a machine without any network has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("GPT2_DATA", raising=False)
        patch.setenv("GPT2_DATA_URL", "http://127.0.0.1:9/")
        patch.setattr(shakespeare, "LOCAL_FILE", ROOT / "no such file")
        return shakespeare.load_corpus(quiet=True)


@pytest.fixture(scope="module")
def play(corpus):
    return corpus.text


# --- the text ---


def test_the_same_text_on_every_machine(play):
    """Catches a draw that depends on the machine, and another size or alphabet than Shakespeare's."""
    assert hashlib.sha256(play.encode()).hexdigest() == standin.SHA256
    assert len(play) == 1_115_394 and sorted(set(play)) == list(standin.SYMBOLS)
    assert standin.make(5000) == play[:5000] and standin.make(5000, seed=1)[100:] != play[100:5000]


# --- its law ---


def law(past):
    """p of each of the 65 symbols after `past`, by log_probs alone."""
    p = {}
    for c in standin.SYMBOLS:
        try:
            p[c] = math.exp(standin.log_probs(past + c, len(past))[0])
        except ValueError:
            p[c] = 0.0
    return p


def test_law_sums_to_one_and_is_the_one_that_was_drawn_from():
    """Catches mass lost or counted twice (the floor would be wrong), and a draw that follows other weights.

    The score of what came against its expectation is a z value over 40 places: a false alarm at 4.5 is 1 in
    150,000.
    """
    rng, score, variance = random.Random(5), 0.0, 0.0
    for seed in range(40):
        text = standin.make(300, seed=seed + 10)
        at = rng.randrange(1, 299)
        p = law(text[:at])
        assert sum(p.values()) == pytest.approx(1, abs=1e-9), text[:at][-40:]
        assert standin.log_probs(text)[at] == pytest.approx(math.log(p[text[at]]), abs=1e-12)
        surprise = [(-math.log(q), q) for q in p.values() if q]
        mean = sum(s * q for s, q in surprise)
        score += -math.log(p[text[at]]) - mean
        variance += sum(q * (s - mean) ** 2 for s, q in surprise)
    assert abs(score) / math.sqrt(variance) < 4.5


def test_starting_late_or_stopping_early_gives_the_same_numbers(play):
    """Catches a short cut that loses part of the state: the floor is computed by it."""
    text = play[:3000]
    whole = standin.log_probs(text)
    assert len(whole) == 3000 and max(whole) <= 1e-12
    for start in (0, 1, 39, 40, 41, 1000, 2517, 2999, 3000):
        assert standin.log_probs(text, start) == whole[start:]
    for stop in (0, *range(60, 140, 2)):  # cut anywhere, also inside a word, a name or a mark
        assert standin.log_probs(text[:stop]) == whole[:stop]


@pytest.mark.parametrize("bad", ["First Citizen:\n", "AUFLES:\nthe", "AUFLES:\nThe the", "AUFLES:\n\n"])
def test_foreign_text_is_refused(bad):
    """Catches a probability for what the grammar cannot say."""
    with pytest.raises(ValueError, match="grammar"):
        standin.log_probs(bad + "x" * 60)


# --- the floor ---


def test_floor_is_where_it_belongs(play, corpus):
    """Catches a floor over other targets than validation's, one that counting breaks, a wrong error bar, and
    a committed table that the code no longer gives.
    """
    surprise = -np.array(standin.log_probs(play, 1_003_855))
    assert corpus.name == "standin" and len(surprise) == len(corpus.val) - 1 == 111_539
    assert corpus.floor == pytest.approx(surprise.mean(), abs=1e-12)
    plain = surprise.std() / math.sqrt(len(surprise))
    assert 0.4 * plain < corpus.floor_se < 1.2 * plain
    saved = json.loads((ROOT / "results" / "ngram_standin.json").read_text(encoding="utf-8"))
    assert saved["corpus"] == {"name": corpus.name, "sha256": corpus.sha256}
    assert (saved["floor"], saved["floor_se"]) == pytest.approx((corpus.floor, corpus.floor_se), abs=1e-12)
    for n in (2, 6):
        loss = NGram(n, 65).fit(corpus.train).loss(corpus.val)
        assert loss == pytest.approx(saved["rows"][n]["val_loss"], abs=1e-9) and loss > corpus.floor + 0.4
