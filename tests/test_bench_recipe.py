"""bench/cpu_recipe.py, cpu_kernels.py, hypotheses.py, how_low.py: budgets kept, tables true, together is a mean."""

import json
import math

import pytest
import torch

from bench import cpu_kernels, cpu_recipe, how_low, hypotheses
from gpt2.settings import TrainConfig
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import evaluate


def record(kind, loss, wall, budget=None):
    return {"kind": kind, "seed": 1, "val_loss": loss, "wall_s": wall, "budget_s": budget}


def test_a_run_over_its_budget_is_counted():
    """A recipe that takes longer than the reference and is praised for its loss."""
    made = cpu_recipe.summary([record("reference", 1.9, 80.0), record("ours", 1.5, 81.0, 80.0),
                               record("ours", 1.6, 79.0, 80.0)])
    assert made["ours"]["over_budget"] == 1 and made["ours"]["val_loss"] == pytest.approx(1.55)
    assert made["reference"]["over_budget"] == 0


def test_the_recipes_are_settings_of_the_trainer():
    """A misspelt or impossible setting, found after a minute of training."""
    for settings in (cpu_recipe.REFERENCE, cpu_recipe.SHORT):
        TrainConfig.preset_of("cpu", **{**cpu_recipe.QUIET, **settings})
    for one in hypotheses.TRIED.values():
        TrainConfig.preset_of("cpu", **one["settings"])
        assert one["against"] is None or one["against"] in hypotheses.TRIED


def test_a_short_run_fits_its_budget(tmp_path, monkeypatch, capsys):
    """Imports, the probe or the validation left out of the budget: the run would end late."""
    tiny = dict(n_layer=1, n_head=1, n_embd=16, block_size=16, batch_size=4, tokens_per_step=64)
    found = cpu_recipe.run("ours", 1, 25.0, tiny)
    assert found["wall_s"] < 27 and found["steps"] > 100 and 0 < found["val_loss"] < math.log(65)


def test_the_table_is_the_file_s(tmp_path):
    """A table that keeps its old number, or hides that there is none."""
    assert cpu_recipe.table_markdown(tmp_path) == "Not yet measured."
    data = {"summary": cpu_recipe.summary([record("ours", 1.2345, 80.0)])}
    (tmp_path / "cpu_recipe.json").write_text(json.dumps(data))
    assert "1.2345" in cpu_recipe.table_markdown(tmp_path)


def test_together_is_the_mean_of_probabilities():
    """The mean of the losses instead, or windows that differ from evaluate's."""
    torch.manual_seed(0)
    models = [GPT(GPTConfig(8, 65, 1, 1, 8)).eval() for _ in range(2)]
    ids = torch.randint(65, (100,))
    alone = [evaluate(model, ids) for model in models]
    assert how_low.together(models[:1], ids) == pytest.approx(alone[0], abs=1e-5)
    x, y = ids[None, :8], ids[1:9]
    p = sum(model(x)[0].softmax(-1)[0, range(8), y] for model in models) / 2
    assert how_low.together(models, ids[:9]) == pytest.approx(-p.log().mean().item(), abs=1e-5)


def test_a_better_row_takes_the_place_of_its_own_only(tmp_path, monkeypatch):
    """A second seed that overwrites the first, or a repeat that stands twice."""
    monkeypatch.setattr(hypotheses, "RESULT", tmp_path / "rows.json")
    for seed, loss in ((1, 1.5), (2, 1.6), (1, 1.4)):
        hypotheses.keep_row({"name": "4 x 160", "seed": seed, "val_loss": loss, "against": None, "expected": "",
                             "train_loss": 1.3})
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(r["seed"], r["val_loss"]) for r in rows] == [(2, 1.6), (1, 1.4)]


def test_the_two_ways_of_a_part_compute_the_same():
    """A speed-up that compares two different things."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 8, 4)
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert torch.allclose(fused, cpu_kernels.model_gpt2.attention_by_hand(q, k, v)[0], atol=1e-6)
    names = cpu_kernels.actions(torch.float32, B=1, T=4, nh=1, hs=2)
    assert len(names) == 4 and all(action() is None for action in names.values())


def test_kernels_of_the_table_are_those_measured():
    """A table without the spread, or with another file's numbers."""
    one = cpu_kernels.spread([1.0, 3.0, 2.0])
    text = cpu_kernels.table_markdown({"parts": {"GELU": one}, "step": {"ours": one}})
    assert text.count("| 2.00 | 1.00 to 3.00 |") == 2
