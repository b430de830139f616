"""bench/: counts, fits, budgets, losses and tables are what they are called."""

import json

import pytest
import torch

from bench import common, cost, cpu_recipe, first_steps, generate, how_low, hypotheses
from lab.project import ROOT, read_json
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import evaluate

# ---- shared


def test_measures_take_turns():
    """Rounds of one measure in a row, so that a slow minute hits it alone."""
    seen = []
    got = common.in_turns({name: lambda name=name: seen.append(name) or len(seen) for name in "ab"}, 2)
    assert seen == ["a", "b", "a", "b"] and got == {"a": [1, 3], "b": [2, 4]}


def test_a_wrong_law_is_refused():
    """A check on the held-out point that cannot fail, or a fit that misses an exact law."""
    square = {x: 1 + x * x for x in (1, 2, 4, 8)}
    right, wrong = (cost.judge(square, (16, 257), powers, 0.15) for powers in ((0, 1, 2), (0, 1)))
    assert right["held_out"]["holds"] and right["coefficients"] == pytest.approx([1, 0, 1], abs=1e-6)
    assert not wrong["held_out"]["holds"] and wrong["held_out"]["error"] < -0.3


def test_a_process_that_dies_is_one_sentence():
    """Out of memory in one process must not become a JSON traceback in another, or a wait without end."""
    with pytest.raises(SystemExit, match=r"bench\.cpu_recipe \[1\] ended early: TypeError"):
        common.in_process("bench.cpu_recipe", 1)


# ---- cost


def test_what_is_written_is_what_the_code_says():
    """A table in results/ that the formulas no longer give, or a fit that its own points no longer give."""
    saved = json.loads(cost.RESULT.read_text())
    for part in cost.MEASURES:
        for curve in saved["parts"][part]["curves"].values():
            *seen, last = ((p["x"], p["median"]) for p in curve["points"])
            again = cost.judge(dict(seen), last, curve["powers"], curve["held_out"]["tolerance"])
            assert again["coefficients"] == pytest.approx(curve["coefficients"], rel=1e-6)
            assert again["held_out"]["holds"] == curve["held_out"]["holds"]
    assert len(cost.draw(saved["parts"]).axes) == 12 and "at 1000" in cost.table_markdown(saved)


@pytest.mark.parametrize("part", cost.MEASURES)
def test_a_part_goes_into_the_file_beside_the_others(part, tmp_path, monkeypatch):
    """A part that throws another away; a part that does not run; no machine, no date."""
    monkeypatch.setattr(cost, "cores", lambda: 1)  # more would slow down every test after this one
    monkeypatch.setattr(common, "in_process", lambda module, axis, x: 10**7 * x)
    (tmp_path / "cost.json").write_text(json.dumps({"parts": {"other": {"kept": 1}}}))
    cost.run_part(part, tmp_path / "cost.json", tiny=True)
    saved = json.loads((tmp_path / "cost.json").read_text())["parts"]
    assert saved["other"] == {"kept": 1} and saved[part]["date"] and saved[part]["machine"]["cpu"]
    assert all(point["median"] > 0 for curve in saved[part]["curves"].values() for point in curve["points"])




# ---- recipe, hypotheses, how low


def record(kind, loss, wall, budget=None):
    return {"kind": kind, "seed": 1, "val_loss": loss, "wall_s": wall, "budget_s": budget}


def test_a_run_over_its_budget_is_counted_and_shown(tmp_path):
    """A recipe that takes longer than the reference and is praised for its loss; a spread that is hidden."""
    assert cpu_recipe.table_markdown(tmp_path) == "Not yet measured."
    runs = [record("reference", 1.9, 80.0), record("ours", 1.5, 81.0, 80.0), record("ours", 1.6, 79.0, 80.0)]
    made = cpu_recipe.summary(runs)
    assert made["ours"]["over_budget"] == 1 and made["reference"]["over_budget"] == 0
    (tmp_path / "cpu_recipe.json").write_text(json.dumps({"summary": made}))
    shown = cpu_recipe.table_markdown(tmp_path).splitlines()[-1]
    assert "**1.5500** (1.5000 to 1.6000) | 80.0; 1 over its budget, at 81.0 | 2 |" in shown


def test_a_budget_is_what_is_left_for_the_trainer(monkeypatch):
    """A run that counts its minutes from the first step on, and ends when the budget is long over."""
    got = []
    monkeypatch.setattr("train_gpt2.train", lambda config, corpus: got.append(config) or 1 / 0)
    for budget in (65, None):
        settings = cpu_recipe.SHORT if budget else cpu_recipe.REFERENCE
        began = cpu_recipe.time.time() - 20  # what Python, the imports and the text have taken
        with pytest.raises(ZeroDivisionError):
            cpu_recipe.child("ours", 1, budget, began, {**settings, "precision": "fp32"})
    assert 30 < 60 * got[0].minutes <= 65 - 20 - cpu_recipe.SPARE and got[0].max_steps > 10**6
    assert got[1].minutes == 0 and got[1].max_steps == 2000


ROW = {"against": None, "expected": "", "train_loss": 1.3, "dirty": False, "date": "today"}


def test_no_rerun_replaces_an_older_row(tmp_path, monkeypatch):
    """A finding that newer code overwrites; a seed that overwrites another; a repeat that stands twice."""
    monkeypatch.setattr(hypotheses, "RESULT", tmp_path / "rows.json")
    tried = ((1, "old", 1.5), (2, "old", 1.6), (1, "new", 1.4), (1, "new", 1.45))
    for seed, commit, loss in tried:
        hypotheses.keep_row({**ROW, "name": "a", "seed": seed, "commit": commit, "val_loss": loss})
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    kept = [(r["seed"], r["commit"], r["val_loss"]) for r in rows]
    assert kept == [(1, "old", 1.5), (2, "old", 1.6), (1, "new", 1.45)]
    hypotheses.keep_row({**rows[2], "dirty": True})
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == 4
    assert "(again, today)" in hypotheses.table_markdown({"rows": rows})


def test_rows_can_be_repeated_and_changed():
    """Settings that the trainer no longer knows, found after a minute; a new row that forgets its base."""
    for row in json.loads(hypotheses.RESULT.read_text())["rows"]:
        config = hypotheses.config_of(hypotheses.planned(row["name"])["settings"])
        assert (config.n_embd, config.max_steps) == tuple(row["settings"][k] for k in ("n_embd", "max_steps"))
    new = hypotheses.planned("slow", "4 heads", "higher", '{"lr": 1e-4}')
    assert new["against"] == "4 heads" and new["settings"]["lr"] == 1e-4 and new["settings"]["n_head"] == 4
    with pytest.raises(ValueError, match="no row 'slow': choose from 4 x 160, "):
        hypotheses.planned("slow")


def test_together_is_the_mean_of_probabilities():
    """The mean of the losses instead, or windows that differ from evaluate's."""
    torch.manual_seed(0)
    models = [GPT(GPTConfig(8, 65, 1, 1, 8)).eval() for _ in range(2)]
    ids = torch.randint(65, (100,))
    assert how_low.together(models[:1], ids) == pytest.approx(evaluate(models[0], ids), abs=1e-5)
    x, y = ids[None, :8], ids[1:9]
    p = sum(model(x)[0].softmax(-1)[0, range(8), y] for model in models) / 2
    assert how_low.together(models, ids[:9]) == pytest.approx(-p.log().mean().item(), abs=1e-5)


# ---- writing text


def turns(*rates):
    return [{"tok_s": rate, "first_ms": 10.0, "sweep_ms": 5.0, "peak": 300.0} for rate in rates]


def test_ratios_are_taken_within_a_turn():
    """On a machine that slows down for all, a ratio of medians from different turns would lie."""
    found = {"int8": turns(100, 50, 120), "transformers, fp32": turns(50, 25, 40),
             "transformers, bf16": turns(10, 30, 10), "no cache, fp32": turns(4, 2, 4)}
    row = generate.row("int8", found)
    low = pytest.approx(50 / 30, abs=1e-3)
    assert row["times_transformers"] == {"median": 2.0, "low": low, "high": 3.0, "n": 3}
    assert row["times_no_cache"] == {"median": 25.0, "low": 25.0, "high": 30.0, "n": 3}
    assert row["share_of_sweep"]["median"] == 0.5 and row["memory_mb"]["peak_writing"] == 300


def test_bins_follow_the_length_of_the_text():
    """Off by the prompt, the step in which the window moves lands in the wrong bin, or outside the cycle."""
    run = [1.0] * (384 - generate.PROMPT)
    run[257 - generate.PROMPT] = 129.0  # the window of 256 is full, and one letter more
    found = {(b["from"], b["to"]): b["mean_ms"]["median"] for b in generate.bins([run], 32)}
    assert found[224, 256] == 1.0 and found[256, 288] == 5.0 and list(found)[-1] == (352, 384)


@pytest.mark.parametrize("n", [97, 96])
def test_the_loss_as_written_is_the_exact_loss(n):
    """A target counted twice, a window's edge lost, a mean of means: each moves what int8 is judged by."""
    torch.manual_seed(0)
    model, ids = GPT(GPTConfig(16, 65, 2, 2, 16)).eval(), torch.randint(0, 65, (n,))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    assert generate.loss_as_written(model, ids, batch=4) == pytest.approx(evaluate(model, ids), abs=1e-5)


def test_it_runs_without_transformers(tmp_path, monkeypatch):
    """Who has only torch gets the other rows, and the files say what was measured."""
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(generate, "VARIANTS", ("int8", "no cache, fp32", "transformers, fp32"))
    monkeypatch.setattr(generate.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(common, "in_process", lambda module, *arguments: generate.child(*arguments))
    generate.main(["--tiny", "--repeats", "1", "--part", "speed", "length"])
    files = [generate.FILES[part] for part in ("speed", "length")]
    kept = [json.loads((tmp_path / "build" / name).read_text()) for name in files]
    assert [r["variant"] for r in kept[0]["rows"]] == ["int8", "no cache, fp32"]
    assert [r["variant"] for r in kept[1]["rows"]] == ["int8", "bf16"]
    assert all(file["config"]["tiny"] for file in kept) and "times_transformers" not in kept[0]["rows"][0]


def test_what_is_said_of_the_two_students_holds():
    """README and two notebooks speak of a rise, of a turn that does not come, and of the teachers' part."""
    alone, taught = read_json(ROOT / "results" / "distil.json")["rows"]
    assert [alone["name"], taught["name"]] == ["text alone", "four teachers"]
    assert 0.005 < alone["validations"][-1][1] - alone["val_loss"] < 0.05 and alone["train_loss_last_100"] < 1
    assert taught["validations"][-1][1] == taught["val_loss"] and taught["step"] == 12_000
    assert 0.03 < alone["val_loss"] - taught["val_loss"] < 0.15


def test_first_steps_are_compared_whole_or_not_at_all():
    """A mean over half of an epoch beside their mean over all of it; a step counted from 0 in one column."""
    stretches = [{"from": 1, "to": 1, "ours": None}, {"from": 2, "to": 4, "ours": None}]
    history = [{"step": 1, "loss": 8.0}, {"step": 2, "loss": 3.0}, {"step": 2, "val_loss": 9.0},
               {"step": 3, "loss": 2.0}]
    first_steps.fill({"first_steps": stretches}, history, {"seed": 1})
    assert stretches[0]["ours"] == {"loss": 8.0, "seed": 1} and stretches[1]["ours"] is None
    first_steps.fill({"first_steps": stretches}, [*history, {"step": 4, "loss": 4.0}], {})
    assert stretches[1]["ours"] == {"loss": 3.0}
