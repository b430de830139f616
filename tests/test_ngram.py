"""data/ngram.py: the marks that every rung of the ladder is measured by."""

import json
import math
import time
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import ROOT

from data.ngram import NGram

# looked up, not made here
FACTS = {1: 3.347, 2: 2.482, 3: 2.049, 4: 1.774, 5: 1.669, 6: 1.698, 7: 1.779, 8: 1.876}


@pytest.fixture(scope="module")
def ids():
    """3,000 symbols of 7 kinds in which the last two matter."""
    rng, out = np.random.default_rng(0), [0, 1]
    for _ in range(2998):
        out.append(int((out[-1] * 2 + out[-2] + rng.geometric(0.6)) % 7))
    return np.array(out)


def by_hand(train, context, n, V):
    """The same law from its definition, with dictionaries: [p of each symbol] after `context`."""
    train, context = [int(i) for i in train], [int(i) for i in context]

    def counts(tail):
        k = len(tail)
        return Counter(train[i + k] for i in range(len(train) - k) if train[i : i + k] == tail)

    if n <= 2:
        c = counts(context[len(context) - n + 1 :] if n == 2 and context else [])
        return [(c[w] + 1) / (sum(c.values()) + V) for w in range(V)]
    p = [1 / V] * V
    for k in range(min(n - 1, len(context)) + 1):
        c = counts(context[len(context) - k :])
        total, types = sum(c.values()), len(c)
        if total:
            p = [(c[w] + types * p[w]) / (total + types) for w in range(V)]
    return p


# --- the law ---


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_law_is_the_definition(n, ids):
    """Catches a wrong back-off, a context that slides by one, lost mass, and three ways in that differ."""
    train, val = ids[:300], ids[300:330]
    model = NGram(n, 7).fit(train)
    rows, losses = model.probs(val), model.losses(val)
    assert rows.shape == (30, 7) and model.probs([]).shape == (0, 7)
    for t in range(30):
        hand = by_hand(train, val[:t], n, 7)
        assert model.next_probs(val[:t]) == pytest.approx(hand, abs=1e-12)
        if t:
            assert rows[t - 1] == pytest.approx(hand, abs=1e-12)
            assert losses[t - 1] == pytest.approx(-math.log(hand[val[t]]), abs=1e-12)
    assert rows.min() > 0 and np.allclose(rows.sum(1), 1) and model.loss(val) == losses.mean()


def test_windows_forget_what_came_before(ids):
    """Catches windows that share context, start without their first letter, or lose the short last one."""
    model, val = NGram(4, 7).fit(ids[:2000]), ids[2000:2107]
    for block in (1, 10, 10_000):
        by_window = []
        for start in range(0, len(val) - 1, block):
            window = val[start : start + block + 1]
            by_window += [-math.log(model.next_probs(window[:t])[window[t]]) for t in range(1, len(window))]
        assert len(by_window) == 106
        assert model.loss_in_windows(val, block) == pytest.approx(np.mean(by_window), abs=1e-12)


def test_takes_tensors_and_refuses_nonsense(ids):
    """Catches ids beyond the vocabulary read as another context, and fractions or letters taken for ids."""
    model = NGram(3, 7).fit(torch.from_numpy(ids))
    assert np.array_equal(model.next_probs(torch.tensor([1, 2])), model.next_probs([1, 2]))
    small = NGram(3, 4).fit([0, 1, 2, 0, 1, 2])
    assert small.unseen([0, 1, 2, 3, 3, 3]) == 3 / 4, "strings, not kinds, and whole ones"
    for bad in ([7], [-1], [0.5], [[1, 2]], ["a"]):
        with pytest.raises(ValueError, match="0 to 6"):
            model.losses(bad)
    with pytest.raises(ValueError, match="counted nothing"):
        NGram(3, 7).next_probs([1])
    with pytest.raises(ValueError, match="at least 3"):
        NGram(3, 7).fit([1, 2])
    for n, V in ((0, 7), (3, 0), (12, 65)):
        with pytest.raises(ValueError, match="cannot count"):
            NGram(n, V)


# --- files ---


@pytest.mark.parametrize("n", [1, 2, 5])
def test_saved_counts_give_the_same_law(n, ids, tmp_path):
    """Catches counts that overflow, a lost start of the text, and a table that forgets its text."""
    model = NGram(n, 7).fit(np.concatenate([ids, np.zeros(70_000, np.int64)]))  # a count beyond 16 bits
    model.save(tmp_path / "counts.npz", "ab" * 32)
    NGram.load(tmp_path / "counts.npz").save(tmp_path / "twice.npz")
    again = NGram.load(tmp_path / "twice.npz")
    assert (again.n, again.vocab_size, again.corpus_sha256) == (n, 7, "ab" * 32)
    assert np.array_equal(again.losses(ids), model.losses(ids))
    assert np.array_equal(again.next_probs([]), model.next_probs([]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["counts.npz", "twice.npz"]


GOOD = dict(n=3, vocab_size=4, head=[0, 1], steps=[1, 5, 20], counts=[1, 1, 2])
EVIL = [
    dict(n=np.array([object()], dtype=object)), dict(n=10**9, vocab_size=1), dict(n=5, vocab_size=10**6),
    dict(n=0), dict(n=[3, 3]), dict(extra=[1]), dict(steps=[1, 0, 3]), dict(steps=[1, 2**62, 2**62]),
    dict(steps=[1, 5]), dict(steps=[], counts=[]), dict(counts=[1, 0, 2]), dict(head=[0]), dict(head=[0, 9]),
]
HUGE = [dict(steps=np.zeros(4_100_000, np.int64)), dict(head=np.zeros(40_000_000, np.uint8))]


def test_a_strangers_table_is_refused_at_once(tmp_path, monkeypatch):
    """Catches pickled code, 118 kB that unpack to 3 GB, a loop for ever, and counts that are none."""
    np.savez_compressed(tmp_path / "plain.npz", **GOOD)
    assert NGram.load(tmp_path / "plain.npz").corpus_sha256 == ""
    for change in (*EVIL, *HUGE):
        np.savez_compressed(tmp_path / "evil.npz", **{**GOOD, **change})
        if any(change is huge for huge in HUGE):
            monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("unpacked"))
        start = time.process_time()
        with pytest.raises(ValueError, match="evil.npz is damaged"):
            NGram.load(tmp_path / "evil.npz")
        assert time.process_time() - start < 10, change.keys()


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "flipped", "text"])
def test_bad_file_is_one_sentence(damage, ids, tmp_path):
    """Catches zipfile's or numpy's traceback where the file's name and a sentence belong."""
    path = tmp_path / "counts.npz"
    NGram(3, 7).fit(ids).save(path)
    body, middle = path.read_bytes(), path.stat().st_size // 2
    flipped = body[:middle] + bytes(255 - b for b in body[middle : middle + 40]) + body[middle + 40 :]
    path.write_bytes({"cut": body[:middle], "flipped": flipped, "text": b"hello\n"}.get(damage, b""))
    if damage == "absent":
        path.unlink()
    with pytest.raises(ValueError, match="counts.npz") as error:
        NGram.load(path)
    assert "\n" not in str(error.value)


# --- the marks, on the real text ---


def test_marks_are_the_known_ones(shakespeare):
    """Catches another smoothing, split or set of targets, and a committed table that the code no longer
    gives: the ladder's right axis would be wrong.
    """
    c, saved = shakespeare, json.loads((ROOT / "results" / "ngram.json").read_text(encoding="utf-8"))
    assert saved["corpus"] == {"name": c.name, "sha256": c.sha256} and saved["val_targets"] == 111_539
    rows = {row["n"]: row for row in saved["rows"]}
    assert list(rows) == list(range(9))
    for n, fact in FACTS.items():
        assert rows[n]["val_loss"] == pytest.approx(fact, abs=0.0006)
    for n in (1, 2, 3, 5, 8):
        model = NGram(n, 65).fit(c.train)
        losses = model.losses(c.val)
        assert len(losses) == 111_539 and rows[n]["val_loss"] == pytest.approx(losses.mean(), abs=1e-9)
        if n in (2, 5):
            assert rows[n]["unseen"] == pytest.approx(model.unseen(c.val), abs=1e-9)
            start = model.loss(c.train[:100_000])  # like the rest
            assert rows[n]["train_loss"] == pytest.approx(start, abs=0.03)
        if n == 5:
            for block, loss in {8: 1.830, 64: 1.688}.items():
                assert model.loss_in_windows(c.val, block) == pytest.approx(loss, abs=0.0006)
