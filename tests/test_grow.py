"""A large model that begins exactly where small ones stand, and the trainer's options that go with it."""

import functools

import pytest
import torch

from gpt2.grow import extend_positions, grow, places
from gpt2.teacher import soft_targets, teacher_table
from model_gpt2 import GPT, GPTConfig
from tests import models
from tests.runs import run, tiny
from train_gpt2 import TrainError

small = functools.partial(models.small, std=0.1, block_size=16, vocab_size=11, n_layer=2, n_head=2, n_embd=16)
BIG = GPTConfig(block_size=24, vocab_size=11, n_layer=5, n_head=4, n_embd=32)


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


def test_grow_from_a_folder(tmp_path):
    """--grow-from that is not read: the first loss would be that of an untrained model."""
    folders = [str(tmp_path / name) for name in "ab"]
    losses = [run(f, max_steps=40, seed=i).progress.best_loss for i, f in enumerate(folders)]
    grow_from = ",".join(f + "/best" for f in folders)
    grown = run(n_layer=2, n_head=4, n_embd=16, lr=1e-9, muon_lr=1e-9, max_steps=1, grow_from=grow_from)
    assert grown.progress.val_loss < max(losses)
    with pytest.raises(TrainError, match="side by side"):
        run(n_embd=24, grow_from=folders[0] + "/best")


def test_a_folder_that_holds_no_model_is_said_at_once(tmp_path, monkeypatch):
    """A typo that was looked for on the Hub, five times; the folder of a run, whose model lies in best/."""
    monkeypatch.setattr(GPT, "from_pretrained", lambda name: pytest.fail(f"looked for {name}"))
    (tmp_path / "best").mkdir()
    with pytest.raises(TrainError, match=f"--teacher: {tmp_path} is the folder of a run.*best?"):
        run(teacher=str(tmp_path))
    for name in ("nowhere", "./a", "out/a", "a/b/c", f"{tmp_path}/a"):
        with pytest.raises(TrainError, match=f"--grow-from: there is no folder {name}"):
            run(grow_from=name)


def test_frozen_matrices_stay(tmp_path):
    """Matrices that move, vectors that do not, or a run from scratch that would train next to nothing."""
    run(tmp_path)
    folder = str(tmp_path / "best")
    small = GPT.from_pretrained(folder)
    old, new = grow([small], small.config), run(grow_from=folder, freeze_matrices=True).model
    moved = {name for (name, a), b in zip(old.named_parameters(), new.parameters(), strict=True)
             if not torch.equal(a, b)}
    assert moved and all(dict(new.named_parameters())[name].dim() == 1 for name in moved)
    with pytest.raises(TrainError, match="--grow-from"):
        run(freeze_matrices=True)


def test_windows_in_turn():
    """Windows of the wrong length at a step, or another number of tokens a step."""
    config = tiny(windows="2:0.25,4:0.25,8:0.5")
    assert [config.window_at(step / 8) for step in range(8)] == [2, 2, 4, 4, 8, 8, 8, 8]
    still = run(windows="2:0.5,8:0.5", lr=1e-9, muon_lr=1e-9)
    wpe = still.model.transformer.wpe.weight  # what no window held before starts as its neighbours stand
    assert still.progress.window == 8
    assert all(torch.allclose(wpe[i], wpe[1], atol=1e-4) for i in range(2, 8))


# ---- Teachers


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


def test_a_teacher_moves_the_run(tmp_path):
    """--teacher that is not read, or not weighed; a table that does not fit is one sentence."""
    run(tmp_path)
    teacher = str(tmp_path / "best")
    losses = [run(seed=5, teacher=t, teacher_weight=w).train_losses[-1]
              for t, w in (("", 1.0), (teacher, 0.0), (teacher, 0.5), (teacher, 1.0))]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and len({round(x, 4) for x in losses[1:]}) == 3
    wide = [GPT(GPTConfig(8, 50000, 1, 1, 16))]
    with pytest.raises(TrainError, match="smaller vocabulary"):
        teacher_table(wide, torch.zeros(100_000, dtype=torch.long), torch.device("cpu"))
