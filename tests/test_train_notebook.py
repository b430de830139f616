"""gpt2_training.ipynb: its exercises can be solved and cannot be fooled; its measurements measure."""

import random
from pathlib import Path

import torch

from data.shakespeare import corpus_from_text
from data.tokenizer import CharTokenizer
from lab import exercises_training, reading, training
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import TrainConfig, train

ROOT = Path(__file__).resolve().parents[1]

# ---- measurements


def longest_by_force(text, source):
    spans = ((i, j) for i in range(len(text)) for j in range(i + 1, len(text) + 1))
    return max((j - i for i, j in spans if text[i:j] in source), default=0)


def test_memorisation_meter():
    """A meter that misses a copy in the middle, or counts one that is not there."""
    r = random.Random(0)
    for _ in range(200):
        source, text = ("".join(r.choice("ab ") for _ in range(n)) for n in (30, 12))
        want = longest_by_force(text, source)
        assert training.memorisation(text, source, least=1) == want
        assert training.memorisation(text, source, least=5) == (want if want >= 5 else 0)
        covered = {i for a, b in training.copied(text, source, least=4) for i in range(a, b)}
        starts = [s for s in range(len(text) - 3) if text[s : s + 4] in source]
        assert covered == {i for s in starts for i in range(s, s + 4)}


def test_letter_losses_and_positions_agree():
    """Losses shifted by one letter against their place."""
    model, ids = exercises_training.small_model(), exercises_training.ids(200)
    whole = torch.stack([reading.letter_losses(model, ids[s : s + 9]) for s in range(192)])
    assert whole.shape == (192, 8)
    assert torch.allclose(reading.losses_by_position(model, ids, windows=192), whole.mean(0), atol=1e-4)


def test_kinds_of_places_share_the_past():
    """A place counted twice, a kind that reads the future, a line start that is not one."""
    ids = torch.tensor([5, 6, 0, 5, 6, 7, 5, 8, 9, 5, 7, 7, 7])  # 0 is the newline
    kinds = reading.kinds_of_places(ids, newline=0)
    past = torch.ones(13, 13).tril().bool()
    assert torch.equal(kinds.sum(0).bool(), past) and int(kinds.sum(0).max()) == 1
    names = dict(zip(reading.KINDS, kinds[:, 9], strict=True))  # what the letter 5 at place 9 sees
    assert names["itself"].nonzero().tolist() == [[9]]
    assert names["the letter before"].nonzero().tolist() == [[8]]
    assert names["the line's start"].nonzero().flatten().tolist() == [2, 3]
    assert names["copies of itself"].nonzero().flatten().tolist() == [0, 6]


def test_shares_of_a_head_add_up_to_one():
    """A share that is lost between the kinds, or an even spread that is not even."""
    model, tokenizer = exercises_training.small_model(block_size=32), CharTokenizer.from_text("\nabcdefghij")
    shares, even = reading.head_shares(model, exercises_training.ids(400), tokenizer, windows=3, first=4)
    assert shares.shape == (2, 2, len(reading.KINDS))
    assert torch.allclose(shares.sum(-1), torch.ones(2, 2), atol=1e-5) and abs(even.sum() - 1) < 1e-5


def test_a_head_that_copies_is_seen(monkeypatch):
    """The place that a copier looks at: the letter after the earlier copy, not the copy itself."""
    text = "\n" + "abcdefghijklmnopqrstuvwxyz" * 40
    corpus = corpus_from_text(text, "letters")
    model = GPT(GPTConfig(32, corpus.tokenizer.vocab_size, n_layer=1, n_head=1, n_embd=8))

    def copier(ids):
        pattern = torch.eye(ids.size(1))
        for t in range(1, ids.size(1)):
            earlier = [s for s in range(t) if ids[0, s] == ids[0, t] and s < t]
            if earlier:
                pattern[t] = torch.eye(ids.size(1))[earlier[-1] + 1]
        return [pattern[None, None]]

    monkeypatch.setattr(model, "attention_maps", copier)
    monkeypatch.setattr(reading, "random_string", lambda corpus, n, seed: torch.arange(1, n + 1))
    found = reading.twice_losses(model, corpus, n=12, strings=1)
    assert found["copying"] == [[1.0]] and len(found["nats"]) == 24


def test_a_new_name_is_new(shakespeare):
    """PROSPERO, 63 times in validation and never in train: the lesson of section 8."""
    name, places = reading.new_name(shakespeare)
    assert name == "PROSPERO" and len(places) == 63 and name not in shakespeare.train_text
    assert all(shakespeare.val_text[p : p + len(name)] == name for p in places)


def test_samples_outlive_the_session(tmp_path, capsys):
    """A run shown a second time that has lost what it wrote on its way."""
    corpus = corpus_from_text("rain and stone, green and old. " * 60, "words")
    c = TrainConfig.preset_of("quick", max_steps=6, eval_every=2, sample_chars=5, log_every=0,
                              out_dir=str(tmp_path), device="cpu", resume="auto")
    first, again = train(c, corpus, training.say_validation), train(c, corpus)
    assert len(first.samples) == 3 and set(map(len, first.samples.values())) == {5}
    assert again.samples == first.samples and capsys.readouterr().out.count("validation") == 3
