"""bench/: counts, fits, projections, budgets and tables are what they are called, and answer to their inputs."""

import json
import math
from dataclasses import replace

import pytest
import torch

from bench import common, cost, cost_figure, cpu_kernels, cpu_recipe, gpu_steps, how_low, hypotheses, projection
from bench.common import fit, judge, spread, value
from bench.projection import CARDS, GPT2, SETUPS, all_reduce_seconds, floors, project, step_bytes
from gpt2.plan import flops_per_token
from gpt2.settings import TrainConfig
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import evaluate

# ---- shared


def test_turns_and_their_spread():
    """Rounds of one measure in a row, so that a slow minute hits it alone; a spread that hides its ends."""
    seen = []
    got = common.in_turns({name: lambda name=name: seen.append(name) or len(seen) for name in "ab"}, 2)
    assert seen == ["a", "b", "a", "b"] and got == {"a": [1, 3], "b": [2, 4]}
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0, "n": 3}


def test_fit_finds_a_law_and_refuses_a_wrong_one():
    """A check on the held-out point that cannot fail, or a fit that misses an exact law."""
    line = {x: 3 + 2 * x for x in (1, 2, 4, 8)}
    assert fit(list(line), list(line.values()), (0, 1)) == pytest.approx([3, 2])
    square = {x: 1 + x * x for x in (1, 2, 4, 8)}
    assert judge(square, (16, 257), (0, 1, 2), 0.01)["held_out"]["holds"]
    wrong = judge(square, (16, 257), (0, 1), 0.15)
    assert not wrong["held_out"]["holds"] and wrong["held_out"]["error"] < -0.3 and wrong["largest_error"] > 0.1
    assert value([1.0, 2.0], (0, 1), 5) == 11


# ---- cost


def test_what_is_written_is_what_the_code_says():
    """A table in results/ that the formulas no longer give, or a fit that its own points no longer give."""
    saved = json.loads(cost.RESULT.read_text())
    for part in cost.MEASURES:
        for curve in saved["parts"][part]["curves"].values():
            *seen, last = ((p["x"], p["median"]) for p in curve["points"])
            again = judge(dict(seen), last, curve["powers"], curve["held_out"]["tolerance"])
            assert again["coefficients"] == pytest.approx(curve["coefficients"], rel=1e-6)
            assert again["held_out"]["holds"] == curve["held_out"]["holds"]
    assert saved["picture"]["alt"] == cost_figure.alt_text(saved["parts"])
    assert "held out" in cost.table_markdown(saved)
    assert json.loads(projection.RESULT.read_text()) == json.loads(json.dumps(projection.projections()))


def test_a_part_goes_into_the_file_beside_the_others(tmp_path):
    """A second part that throws the first away; a run that hides what the run before it said; no machine, no date."""
    out = tmp_path / "cost.json"
    out.write_text(json.dumps({"parts": {"other": {"kept": 1}}}))
    for _ in range(2):
        assert cost.main(["sampling", "--quick", "--out", str(out)]) == 0
    saved = json.loads(out.read_text())["parts"]
    assert saved["other"] == {"kept": 1} and saved["sampling"]["date"] and saved["sampling"]["machine"]["cpu"]
    assert len(saved["sampling"]["earlier_runs"]) == 1
    assert saved["sampling"]["curves"]["cached"]["points"][0]["median"] > 0
    with pytest.raises(SystemExit, match="has no time, memory yet: run those parts first"):
        cost_figure.draw_file(out)


def test_a_shape_changes_in_one_thing():
    """An axis that moves the heads' size, or another axis, along with it."""
    base, sequences = cost.config_at()
    assert cost.config_at("context", 64) == (replace(base, block_size=64), sequences)
    assert cost.config_at("sequences", 3) == (base, 3)
    wide, _ = cost.config_at("width", 256)
    assert wide.n_embd // wide.n_head == base.n_embd // base.n_head and wide.n_layer == base.n_layer


# ---- projection


def test_bytes_of_a_step_by_hand():
    """A factor lost in the bytes: counted here on paper for one layer, width 4, context 8, fp32."""
    tiny = GPTConfig(block_size=8, vocab_size=10, n_layer=1, n_head=1, n_embd=4)
    n = 12 * 16 + 13 * 4 + 2 * 4 + (10 + 8) * 4  # matrices, vectors, last LayerNorm, tables
    kept = 8 * ((2 * 4 + 14 * 4) * 4 + 4 * 1 + (4 + 4) * 4)
    logits = 8 * 10 * 8
    assert step_bytes(tiny, 6, 2, torch.float32) == 6 * (5 * kept + 2 * logits) + 3 * 16 * n + 40 * n
    card = projection.Card(peak=2e9, memory=1e9)
    parts = floors(tiny, card, 4, 4, torch.float32)
    assert parts["arithmetic"] == pytest.approx(4 * 8 * flops_per_token(tiny) / 2e9)
    assert parts["memory"] == pytest.approx(step_bytes(tiny, 4, 4, torch.float32) / 1e9)


@pytest.mark.parametrize("cards, factor", [(1, 0), (2, 1), (64, 2 * 63 / 64)])
def test_ring_all_reduce(cards, factor):
    """One card that waits for nobody, two that send the bytes once, many that send them nearly twice."""
    assert all_reduce_seconds(1e9, cards, 1e9) == pytest.approx(factor)


@pytest.mark.parametrize("setup", SETUPS, ids=lambda s: s["name"])
def test_no_projection_beats_arithmetic_or_scaling(setup):
    """More tokens a second than the cards' peak allows, more than twice the speed from twice the cards."""
    row, card = project(setup), CARDS[setup["card"]]
    assert row["projection"] and row["tok_s"] * flops_per_token(GPT2) <= card.peak * setup["cards"]
    assert row["mfu"] == pytest.approx(row["tok_s"] * flops_per_token(GPT2) / card.peak / setup["cards"], abs=1e-3)
    assert row["hours"] == pytest.approx(10e9 / row["tok_s"] / 3600, rel=1e-2)
    assert row["hours"] / 2 <= project({**setup, "cards": 2 * setup["cards"]})["hours"] + 5e-4  # rounding
    assert row["bound"] == projection.BOUNDS[max(row["step_seconds"], key=row["step_seconds"].get)]


def test_projections_answer_to_their_inputs():
    """A table whose rows are typed in: a slower link must cost time, and twice the tokens twice the hours."""
    many = SETUPS[2]
    assert project({**many, "link": many["link"] / 100})["bound"] == "all-reduce"
    assert project(many, tokens=20e9)["hours"] == pytest.approx(2 * project(many)["hours"], rel=1e-2)
    assert 0.4 < projection.SEEN["tok_s"] * flops_per_token(GPT2) / CARDS["A100"].peak < 0.6  # one card's, not eight's


# ---- a GPU that nobody had


def test_gpu_steps_without_a_gpu(capsys, tmp_path, monkeypatch):
    """A traceback where there is no card, a toy's numbers in results/, a table that claims what was not measured."""
    if not torch.cuda.is_available():
        assert gpu_steps.main([]) == 2 and "Colab or Kaggle" in capsys.readouterr().err
    assert gpu_steps.main(["--device", "cpu", "--tiny"]) == 2 and "--out" in capsys.readouterr().err
    text = gpu_steps.table_markdown(tmp_path / "none.json")
    assert text.count("not yet measured") == len(gpu_steps.ROWS) and "Card: none yet" in text


def test_gpu_steps_on_a_toy(capsys, tmp_path, monkeypatch):
    """A row that does not run, or that carries another precision than the one it used."""
    monkeypatch.setattr(gpu_steps, "ROWS", [row for row in gpu_steps.ROWS if "compile" not in row[1]])
    monkeypatch.setattr(gpu_steps, "WARM", 1)
    monkeypatch.setattr(gpu_steps, "SHAPE", {**gpu_steps.SHAPE, "max_steps": 4})
    out = tmp_path / "steps.json"
    assert gpu_steps.main(["--device", "cpu", "--tiny", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert rows[0]["measured"]["precision"] == "fp32" and all(row["measured"]["tok_s"]["median"] > 0 for row in rows)


# ---- recipes, hypotheses, kernels, how low


def record(kind, loss, wall, budget=None):
    return {"kind": kind, "seed": 1, "val_loss": loss, "wall_s": wall, "budget_s": budget}


def test_a_run_over_its_budget_is_counted():
    """A recipe that takes longer than the reference and is praised for its loss."""
    made = cpu_recipe.summary([record("reference", 1.9, 80.0), record("ours", 1.5, 81.0, 80.0),
                               record("ours", 1.6, 79.0, 80.0)])
    assert made["ours"]["over_budget"] == 1 and made["ours"]["val_loss"] == pytest.approx(1.55)
    assert made["reference"]["over_budget"] == 0


def test_the_steps_follow_the_clock(monkeypatch):
    """A machine that slows down in the middle, and a run that then ends late, or far too early."""
    now = [0.0]
    monkeypatch.setattr(cpu_recipe.time, "time", lambda: now[0])
    config = TrainConfig(max_steps=10**6)
    follow, step = cpu_recipe.clock(config, end=60.0), 0
    while step < config.max_steps:
        step, now[0] = step + 1, now[0] + (0.1 if now[0] < 20 else 0.2)
        follow({"step": step, "dt_ms": 0}, None)
    assert 59 < now[0] < 61 and step == config.max_steps


def test_the_recipes_are_settings_of_the_trainer():
    """A misspelt or impossible setting, found after a minute of training."""
    for settings in (cpu_recipe.REFERENCE, cpu_recipe.SHORT):
        TrainConfig.preset_of("cpu", **{**cpu_recipe.QUIET, **settings})
    for one in hypotheses.TRIED.values():
        TrainConfig.preset_of("cpu", **one["settings"])
        assert one["against"] is None or one["against"] in hypotheses.TRIED


def test_tables_are_their_files(tmp_path):
    """A table that keeps its old number, hides its spread, or hides that there is none."""
    assert cpu_recipe.table_markdown(tmp_path) == "Not yet measured."
    data = {"summary": cpu_recipe.summary([record("ours", 1.2345, 80.0)])}
    (tmp_path / "cpu_recipe.json").write_text(json.dumps(data))
    assert "1.2345" in cpu_recipe.table_markdown(tmp_path)
    one = spread([1.0, 3.0, 2.0])
    text = cpu_kernels.table_markdown({"parts": {"GELU": one}, "step": {"ours": one}})
    assert text.count("| 2.00 | 1.00 to 3.00 |") == 2


def test_no_rerun_replaces_an_older_row(tmp_path, monkeypatch):
    """A finding that newer code overwrites; a second seed that overwrites the first; a repeat that stands twice."""
    monkeypatch.setattr(hypotheses, "RESULT", tmp_path / "rows.json")
    row = {"name": "4 x 160", "against": None, "expected": "", "train_loss": 1.3, "dirty": False, "date": "today"}
    for seed, commit, loss in ((1, "old", 1.5), (2, "old", 1.6), (1, "new", 1.4), (1, "new", 1.45)):
        hypotheses.keep_row({**row, "seed": seed, "commit": commit, "val_loss": loss})
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    kept = [(r["seed"], r["commit"], r["val_loss"]) for r in rows]
    assert kept == [(1, "old", 1.5), (2, "old", 1.6), (1, "new", 1.45)]
    hypotheses.keep_row({**row, "seed": 1, "commit": "new", "val_loss": 1.3, "dirty": True})
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == 4
    assert "(again, today)" in hypotheses.table_markdown({"rows": rows})


def test_together_is_the_mean_of_probabilities():
    """The mean of the losses instead, or windows that differ from evaluate's."""
    torch.manual_seed(0)
    models = [GPT(GPTConfig(8, 65, 1, 1, 8)).eval() for _ in range(2)]
    ids = torch.randint(65, (100,))
    assert how_low.together(models[:1], ids) == pytest.approx(evaluate(models[0], ids), abs=1e-5)
    x, y = ids[None, :8], ids[1:9]
    p = sum(model(x)[0].softmax(-1)[0, range(8), y] for model in models) / 2
    assert how_low.together(models, ids[:9]) == pytest.approx(-p.log().mean().item(), abs=1e-5)
    assert math.isfinite(how_low.together(models, ids))
