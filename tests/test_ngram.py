"""data/ngram.py: the marks that every rung of the ladder is measured by."""

import json
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data.ngram import NGram

FACTS = {
    1: 3.347,
    2: 2.482,
    3: 2.049,
    4: 1.774,
    5: 1.669,
    6: 1.698,
    7: 1.779,
    8: 1.876,
}  # looked up, not made here


@pytest.fixture
def ids():
    """3,000 symbols of 7 kinds in which the last two matter."""
    rng, out = np.random.default_rng(0), [0, 1]
    for _ in range(2998):
        out.append(int((out[-1] * 2 + out[-2] + rng.geometric(0.6)) % 7))
    return np.array(out)


def by_hand(train, context, n, V):
    """The same law from its definition, with dictionaries: {symbol: p} after `context`."""
    train, context = [int(i) for i in train], [int(i) for i in context]

    def counts(tail):
        k = len(tail)
        return Counter(train[i + k] for i in range(len(train) - k) if train[i : i + k] == tail)

    if n <= 2:
        c = counts(context[len(context) - n + 1 :] if n == 2 else [])
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
    """Catches a wrong back-off, a context that slides by one, and strings at the start of the text
    left uncounted.
    """
    train, val = ids[:300], ids[300:330]
    model = NGram(n, 7).fit(train)
    for t in range(1, 30):
        hand = by_hand(train, val[:t], n, 7)
        assert model.next_probs(val[:t]) == pytest.approx(hand, abs=1e-12)
        assert model.losses(val)[t - 1] == pytest.approx(-math.log(hand[val[t]]), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_probabilities_sum_to_one_and_agree(n, ids):
    """Catches mass lost in smoothing, zero for a string never seen, and three ways in that give
    three answers.
    """
    model = NGram(n, 7).fit(ids[:400])
    rng = np.random.default_rng(1)
    for length in (0, 1, 2, 4, 9, 200):
        context = rng.integers(0, 7, length)
        p = model.next_probs(context)
        assert p.shape == (7,) and p.sum() == pytest.approx(1, abs=1e-12) and p.min() > 0
    text = rng.integers(0, 7, 50)
    rows = model.probs(text)
    assert rows.shape == (50, 7) and np.allclose(rows.sum(1), 1)
    assert np.allclose(rows, [model.next_probs(text[: t + 1]) for t in range(50)], atol=1e-15)
    assert np.allclose(model.losses(text), -np.log(rows[np.arange(49), text[1:]]))
    assert model.loss(text) == pytest.approx(model.losses(text).mean())
    assert model.probs([]).shape == (0, 7)


def test_future_does_not_matter(ids):
    """Catches a table that looks ahead: it would be the best model in the project."""
    model, text = NGram(5, 7).fit(ids), ids[:40].copy()
    before, rows = model.losses(text), model.probs(text)
    text[20:] = 6 - text[20:]
    assert np.array_equal(model.losses(text)[:19], before[:19]) and np.array_equal(
        model.probs(text)[:20], rows[:20]
    )
    assert not np.array_equal(model.losses(text)[19:], before[19:])


def test_windows_forget_what_came_before(ids):
    """Catches windows that share context, start without their first letter, or lose the short one
    at the end.
    """
    model, val, block = NGram(4, 7).fit(ids[:2000]), ids[2000:2107], 10
    by_window = []
    for start in range(0, len(val) - 1, block):
        window = val[start : start + block + 1]
        by_window += [-math.log(model.next_probs(window[:t])[window[t]]) for t in range(1, len(window))]
    assert len(by_window) == 106
    assert model.loss_in_windows(val, block) == pytest.approx(np.mean(by_window), abs=1e-12)
    assert model.loss_in_windows(val, 10_000) == pytest.approx(model.loss(val), abs=1e-12)
    assert model.loss_in_windows(val, 1) == pytest.approx(np.mean([
        -math.log(model.next_probs(val[t - 1 : t])[val[t]]) for t in range(1, len(val))
    ]))  # fmt: skip


def test_unseen_counts_strings_not_kinds():
    """Catches counting each new string once, or the shorter strings inside it."""
    model = NGram(3, 4).fit([0, 1, 2, 0, 1, 2])
    assert model.unseen([0, 1, 2, 3, 3, 3]) == 3 / 4
    assert model.unseen([0, 1, 2, 0]) == 0


def test_takes_tensors_and_refuses_nonsense(ids):
    """Catches ids beyond the vocabulary read as another context, and fractions or letters taken for ids."""
    torch = pytest.importorskip("torch")
    model = NGram(3, 7).fit(torch.from_numpy(ids))
    assert np.array_equal(model.next_probs(torch.tensor([1, 2])), model.next_probs([1, 2]))
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
    """Catches counts that overflow a narrow type, and the start of the text lost on the way."""
    model = NGram(n, 7).fit(np.concatenate([ids, np.zeros(70_000, np.int64)]))  # a count beyond 16 bits
    model.save(tmp_path / "counts.npz")
    again = NGram.load(tmp_path / "counts.npz")
    assert (again.n, again.vocab_size) == (n, 7)
    assert np.array_equal(again.losses(ids), model.losses(ids))
    assert np.array_equal(again.next_probs([]), model.next_probs([]))
    assert [p.name for p in tmp_path.iterdir()] == ["counts.npz"]
    again.save(tmp_path / "twice.npz")
    assert np.array_equal(NGram.load(tmp_path / "twice.npz").losses(ids), model.losses(ids))


def test_file_needs_no_pickle(ids, tmp_path):
    """Catches object arrays: a model folder from a stranger must not be able to run code."""
    NGram(3, 7).fit(ids).save(tmp_path / "counts.npz")
    with np.load(tmp_path / "counts.npz", allow_pickle=False) as data:
        assert all(data[name].dtype.kind in "iu" for name in data.files)
    np.savez(tmp_path / "evil.npz", n=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="evil.npz"):
        NGram.load(tmp_path / "evil.npz")


GOOD = dict(n=3, vocab_size=4, head=[0, 1], steps=[1, 5, 20], counts=[1, 1, 2])


@pytest.mark.parametrize(
    "change",
    [
        dict(n=10**9, vocab_size=1), dict(n=2**62, vocab_size=2**62), dict(n=0), dict(n=-3),
        dict(vocab_size=0), dict(n=2**62),
        dict(n=900, vocab_size=1, head=np.zeros(899, int), steps=[0], counts=[1]),
        dict(n=5, vocab_size=10**6), dict(steps=[1, 0, 3]), dict(steps=[1, -5, 9]), dict(steps=[1, 2, 2**40]),
        dict(steps=[1, 5]), dict(counts=[1, 0, 2]), dict(counts=[1, 2**62, 2]), dict(steps=[1, 2**62, 2**62]),
        dict(head=[0]), dict(head=[0, 9]),
        dict(steps=[], counts=[]), dict(steps=[[1, 5, 20]]), dict(n=[3, 3]), dict(extra=[1]),
        dict(steps=np.zeros(8_000_000, np.int64), counts=np.zeros(8_000_000, np.int64)),
        dict(head=np.zeros(40_000_000, np.uint8)),
    ],
)  # fmt: skip
def test_a_strangers_table_is_refused_at_once(change, tmp_path):
    """Catches 118 kB that unpack to 3 GB, a number of letters that loops for ever, and counts that
    are none.
    """
    np.savez_compressed(tmp_path / "evil.npz", **{**GOOD, **change})
    start = time.process_time()
    with pytest.raises(ValueError, match="evil.npz is damaged"):
        NGram.load(tmp_path / "evil.npz")
    assert time.process_time() - start < 1


def test_a_table_knows_its_text(ids, tmp_path):
    """Catches the table of another text kept beside a model; and the good form of the refused ones
    refused too.
    """
    np.savez_compressed(tmp_path / "plain.npz", **GOOD)
    assert NGram.load(tmp_path / "plain.npz").corpus_sha256 == ""
    NGram(3, 7).fit(ids).save(tmp_path / "counts.npz", "ab" * 32)
    again = NGram.load(tmp_path / "counts.npz")
    assert again.corpus_sha256 == "ab" * 32
    again.save(tmp_path / "twice.npz")
    assert NGram.load(tmp_path / "twice.npz").corpus_sha256 == "ab" * 32


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "flipped", "foreign", "text"])
def test_bad_file_is_one_sentence(damage, ids, tmp_path):
    """Catches zipfile's or numpy's traceback where the file's name and a sentence belong."""
    path = tmp_path / "counts.npz"
    NGram(3, 7).fit(ids).save(path)
    body = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "foreign":
        np.savez(path, other=np.arange(3))
    else:
        middle = len(body) // 2
        flipped = body[:middle] + bytes(255 - b for b in body[middle : middle + 40]) + body[middle + 40 :]
        path.write_bytes({"empty": b"", "cut": body[:middle], "flipped": flipped, "text": b"hello\n"}[damage])
    with pytest.raises(ValueError, match="counts.npz") as error:
        NGram.load(path)
    assert "\n" not in str(error.value)


# --- the marks, on the real text ---


@pytest.mark.parametrize("n", FACTS)
def test_marks_are_the_known_ones(n, shakespeare):
    """Catches another smoothing, split or set of targets: the ladder's right axis would be wrong."""
    model = NGram(n, 65).fit(shakespeare.train)
    assert model.loss(shakespeare.val) == pytest.approx(FACTS[n], abs=0.0006)
    assert len(model.losses(shakespeare.val)) == 111_539
    never = {4: 0.04, 5: 0.10, 6: 0.21}
    if n in never:
        assert model.unseen(shakespeare.val) == pytest.approx(never[n], abs=0.005)


def test_five_gram_in_windows_and_in_time(shakespeare, tmp_path):
    """Catches a summit that a model could not reach fairly, a slow fit, and a file too large for a
    model folder.
    """
    start = time.process_time()
    model = NGram(5, 65).fit(shakespeare.train)
    assert time.process_time() - start < 3
    for block, loss in {8: 1.830, 32: 1.708, 64: 1.688, 128: 1.678}.items():
        assert model.loss_in_windows(shakespeare.val, block) == pytest.approx(loss, abs=0.0006)
    model.save(tmp_path / "ngram5.npz")
    assert (tmp_path / "ngram5.npz").stat().st_size < 500_000
    start = time.process_time()
    for t in range(300):
        model.next_probs(shakespeare.val[:t].tolist())
    assert (time.process_time() - start) / 300 < 2e-3


@pytest.mark.parametrize("name", ["ngram", "ngram_standin"])
def test_results_are_from_this_code(name, request):
    """Catches a committed table that the code no longer gives."""
    from data import standin
    from data.shakespeare import corpus_from_text

    path = Path(__file__).parents[1] / "results" / f"{name}.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    c = (
        request.getfixturevalue("shakespeare")
        if name == "ngram"
        else corpus_from_text(standin.make(), "standin")
    )
    assert saved["corpus"] == {"name": c.name, "sha256": c.sha256} and saved["val_targets"] == len(c.val) - 1
    for n in (2, 5):
        row, model = saved["rows"][n], NGram(n, 65).fit(c.train)
        now = model.loss(c.val), model.loss(c.train[:100_000]), model.unseen(c.val)
        assert (row["val_loss"], row["unseen"]) == pytest.approx((now[0], now[2]), abs=1e-9)
        assert row["train_loss"] == pytest.approx(now[1], abs=0.03), "the start of train is like the rest"
    assert [row["n"] for row in saved["rows"]] == list(range(9))
    if name == "ngram_standin":
        assert (saved["floor"], saved["floor_se"]) == pytest.approx(standin.floor(), abs=1e-12)
