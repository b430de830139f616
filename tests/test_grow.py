"""A large model that begins exactly where small ones stand, and the trainer's options that go with it."""

import pytest
import torch

from data.corpus import corpus_from_text
from gpt2.grow import extend_positions, grow, places
from gpt2.teacher import soft_targets, teacher_table
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import TrainConfig, TrainError, train

SMALL = GPTConfig(block_size=16, vocab_size=11, n_layer=2, n_head=2, n_embd=16)
BIG = GPTConfig(block_size=24, vocab_size=11, n_layer=5, n_head=4, n_embd=32)


def small(seed):
    """A model whose weights are as far from zero as trained ones."""
    torch.manual_seed(seed)
    model = GPT(SMALL).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


@pytest.fixture
def ids():
    return torch.randint(0, 11, (3, 16), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_a_deeper_model_begins_exactly_where_the_shallow_one_stood(ids):
    """A new block that writes, an old one in the wrong order, a head of another size."""
    shape = GPTConfig(block_size=24, vocab_size=11, n_layer=5, n_head=2, n_embd=16)
    assert torch.allclose(grow([small(1)], shape)(ids)[0], small(1)(ids)[0], atol=1e-4)


@torch.no_grad()
def test_side_by_side_twice_the_same_is_the_same(ids):
    """Features that mix, queries read as keys, logits n times too large: all show where LayerNorm cannot."""
    assert torch.allclose(grow([small(1), small(1)], BIG, ids)(ids)[0], small(1)(ids)[0], atol=1e-4)


@torch.no_grad()
def test_side_by_side_gives_the_mean_of_the_logits(ids):
    """Two models: closer to the mean of their logits than either is; the rest is the shared LayerNorm."""
    models = [small(1), small(2)]
    mean = sum(m(ids)[0] for m in models) / 2
    away = [(logits - mean).norm() for logits in (grow(models, BIG, ids)(ids)[0], models[0](ids)[0])]
    assert away[0] < 0.4 * away[1]


@torch.no_grad()
def test_models_of_different_size_are_brought_to_one(ids):
    """The louder model drowns the other, or the gains are turned around."""
    models = [small(1), small(2)]
    for table in (models[1].transformer.wte.weight, models[1].transformer.wpe.weight):
        table *= 4
    mean = sum(m(ids)[0] for m in models) / 2
    matched, plain = ((grow(models, BIG, sample)(ids)[0] - mean).norm() for sample in (ids, None))
    assert matched < 0.7 * plain


def test_all_that_is_new_can_learn(ids):
    """A zero whose gradient is zero stays a zero."""
    model = grow([small(1), small(2)], BIG, ids).train()
    model(ids, ids)[1].backward()
    new = [i for i in range(5) if model.transformer.h[i] not in places(model.transformer.h, 2)]
    assert len(new) == 3
    assert all(model.transformer.h[i].mlp.c_proj.weight.grad.abs().sum() > 0 for i in new)
    across = model.transformer.h[0].mlp.c_fc.weight.grad[:64, 16:]  # from one model to the other
    assert across.abs().min() > 0


def test_positions_repeat_the_second_half():
    model = small(1)
    extend_positions(model, 8, 16)
    wpe = model.transformer.wpe.weight
    assert torch.equal(wpe[8:12], wpe[4:8]) and torch.equal(wpe[12:16], wpe[4:8])


@pytest.mark.parametrize("shape", [dict(n_embd=48), dict(n_head=2), dict(n_layer=1), dict(block_size=8)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError):
        grow([small(1), small(2)], GPTConfig(**{**vars(BIG), **shape}))


# ---- In the trainer


@pytest.fixture(scope="module")
def corpus():
    return corpus_from_text("To be, or not to be, that is the question.\n" * 60, "one line")


def tiny(**settings):
    base = dict(n_layer=1, n_embd=16, max_steps=8, eval_every=8, sample_chars=0, log_every=0, bar=False,
                precision="fp32")
    return TrainConfig.preset_of("quick", **{**base, **settings})


def test_grow_from_a_folder(corpus, tmp_path):
    """--grow-from that is not read: the first loss would be that of an untrained model."""
    folders = [str(tmp_path / name) for name in "ab"]
    runs = [train(tiny(max_steps=60, seed=i, out_dir=f), corpus) for i, f in enumerate(folders)]
    config = tiny(n_layer=2, n_head=4, n_embd=32, lr=1e-9, muon_lr=1e-9, max_steps=1,
                  grow_from=",".join(f + "/best" for f in folders))
    assert train(config, corpus).progress.val_loss < max(run.progress.val_loss for run in runs)
    with pytest.raises(TrainError, match="side by side"):
        train(tiny(n_embd=48, grow_from=folders[0] + "/best"), corpus)


def test_windows_in_turn(corpus):
    """Windows of the wrong length at a step, or another number of tokens a step."""
    config = tiny(windows="8:0.25,16:0.25,32:0.5")
    assert [config.window_at(step / 8) for step in range(8)] == [8, 8, 16, 16, 32, 32, 32, 32]
    assert train(config, corpus).progress.window == 32
    still = train(tiny(windows="8:0.5,32:0.5", lr=1e-9, muon_lr=1e-9), corpus).model
    wpe = still.transformer.wpe.weight  # what no window held before starts as its neighbours stand
    assert torch.allclose(wpe[8:12], wpe[4:8], atol=1e-4) and torch.allclose(wpe[28:], wpe[4:8], atol=1e-4)
    for windows in ("8", "8:0.5", "64:1", "7:1", "x:1"):
        with pytest.raises(TrainError, match="--windows"):
            tiny(windows=windows)


def test_soft_targets_are_probabilities():
    """A weight on the wrong side."""
    probs, y = torch.rand(2, 8, 65).softmax(-1), torch.full((2, 8), 7)
    soft = soft_targets(probs.half(), y, 0.25)
    assert torch.allclose(soft.sum(-1), torch.ones(2, 8), atol=1e-2)
    assert torch.allclose(soft[..., 7], 0.75 + 0.25 * probs[..., 7], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("n", [5, 8, 9, 12, 13, 16, 17, 40])
def test_the_table_says_what_the_teachers_expect_at_each_place(n):
    """A row moved by one, a place left out, a mean of logits, or less than half a context before a place."""
    torch.manual_seed(0)
    teachers, ids = [GPT(GPTConfig(8, 11, 1, 1, 16)).eval() for _ in range(2)], torch.randint(0, 11, (n,))
    for p in (p for t in teachers for p in t.parameters()):
        p.normal_(0, 0.5)
    table = teacher_table(teachers, ids, torch.device("cpu")).float()
    assert torch.allclose(table.sum(1), torch.ones(n), atol=1e-2) and table[0].std() == 0
    for i in range(1, n):
        start = 0 if i <= 8 else 4 * ((i - 5) // 4)  # the window that tells of i: 5 to 8 ids before it
        want = sum(t(ids[start:i][None])[0][0, -1].softmax(-1) for t in teachers) / 2
        assert torch.allclose(table[i], want, atol=0.03), i


def test_a_table_too_large_is_one_sentence():
    wide = [GPT(GPTConfig(8, 50000, 1, 1, 16))]
    with pytest.raises(TrainError, match="smaller vocabulary"):
        teacher_table(wide, torch.zeros(100_000, dtype=torch.long), torch.device("cpu"))


def test_a_teacher_moves_the_run(corpus, tmp_path):
    train(tiny(max_steps=20, out_dir=str(tmp_path)), corpus)
    losses = [train(tiny(seed=5, teacher=t, teacher_weight=1.0), corpus).train_losses[-1]
              for t in ("", str(tmp_path / "best"))]
    assert losses[0] != losses[1]


def test_frozen_matrices_stay(corpus, tmp_path):
    """Matrices that move, vectors that do not, or a run from scratch that would train next to nothing."""
    train(tiny(out_dir=str(tmp_path)), corpus)
    folder = str(tmp_path / "best")
    small = GPT.from_pretrained(folder)
    old, new = grow([small], small.config), train(tiny(grow_from=folder, freeze_matrices=True), corpus).model
    moved = {name for (name, a), b in zip(old.named_parameters(), new.parameters(), strict=True)
             if not torch.equal(a, b)}
    assert moved and all(dict(new.named_parameters())[name].dim() == 1 for name in moved)
    with pytest.raises(TrainError, match="--grow-from"):
        train(tiny(freeze_matrices=True), corpus)
