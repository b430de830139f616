"""bench/cost.py and bench/common.py: the counts, the fits, the projections; and that what is written came from them."""

import json
from dataclasses import replace

import pytest
import torch

from bench import cost
from bench.common import CARDS, GPT2, Card, all_reduce_seconds, fit, floors, judge, reach, step_bytes, value
from bench.cost import SETUPS, project
from gpt2.plan import flops_per_token
from model_gpt2 import GPTConfig

TINY = GPTConfig(block_size=8, vocab_size=10, n_layer=1, n_head=1, n_embd=4)


def test_bytes_of_a_step_by_hand():
    """A factor lost in the bytes: counted here on paper for one layer, width 4, context 8, fp32."""
    n = 12 * 16 + 13 * 4 + 2 * 4 + (10 + 8) * 4  # matrices, vectors, last LayerNorm, tables
    kept = 8 * ((2 * 4 + 14 * 4) * 4 + 4 * 1 + (4 + 4) * 4)
    logits = 8 * 10 * 8
    assert step_bytes(TINY, 6, 2, torch.float32) == 6 * (5 * kept + 2 * logits) + 3 * 16 * n + 40 * n


def test_floors_are_work_over_rate():
    """Seconds that do not follow from the card's two rates, or a half-precision step that moves as much as fp32."""
    card = Card("toy", peak=2e9, memory=1e9)
    parts = floors(TINY, card, 4, 4, torch.float32)
    assert parts["arithmetic"] == pytest.approx(4 * 8 * flops_per_token(TINY) / 2e9)
    assert parts["memory"] == pytest.approx(step_bytes(TINY, 4, 4, torch.float32) / 1e9)
    assert step_bytes(GPT2, 8, 8, torch.float16) < step_bytes(GPT2, 8, 8, torch.float32)
    assert reach(TINY, card, 4, 4, 2 * sum(parts.values()), torch.float32) == pytest.approx(0.5)


def test_ring_all_reduce():
    """One card that waits for nobody, two that send the bytes once, many that send them nearly twice."""
    assert all_reduce_seconds(1e9, 1, 0) == 0
    assert all_reduce_seconds(1e9, 2, 1e9) == pytest.approx(1)
    assert all_reduce_seconds(1e9, 64, 1e9) == pytest.approx(2 * 63 / 64)


def test_fit_finds_a_law_and_refuses_a_wrong_one():
    """A check on the held-out point that cannot fail, or a fit that misses an exact law."""
    line = {x: 3 + 2 * x for x in (1, 2, 4, 8)}
    assert fit(list(line), list(line.values()), (0, 1)) == pytest.approx([3, 2])
    assert judge(line, (16, 35), (0, 1), 0.01)["held_out"]["holds"]
    square = {x: 1 + x * x for x in (1, 2, 4, 8)}
    assert judge(square, (16, 257), (0, 1, 2), 0.01)["held_out"]["holds"]
    wrong = judge(square, (16, 257), (0, 1), 0.15)
    assert not wrong["held_out"]["holds"] and wrong["held_out"]["error"] < -0.3 and wrong["largest_error"] > 0.1
    assert value([1.0, 2.0], (0, 1), 5) == 11


@pytest.mark.parametrize("setup", SETUPS, ids=lambda s: s["name"])
def test_no_projection_beats_arithmetic_or_scaling(setup):
    """More tokens a second than the cards' peak allows, more than twice the speed from twice the cards."""
    row = project(setup)
    card = CARDS[setup["card"]]
    assert row["projection"] and row["tok_s"] * flops_per_token(GPT2) <= card.peak * setup["cards"]
    assert row["mfu"] == pytest.approx(row["tok_s"] * flops_per_token(GPT2) / card.peak / setup["cards"], abs=1e-3)
    assert row["hours"] == pytest.approx(10e9 / row["tok_s"] / 3600, rel=1e-2)
    assert row["hours_if_hidden"] <= row["hours"]
    double = project({**setup, "cards": 2 * setup["cards"], "link": setup["link"] or card.link or 1e9})
    assert row["hours"] / 2 <= double["hours"] + 5e-4  # rounding
    longest = max(row["step_seconds"], key=row["step_seconds"].get)
    assert row["bound"] == cost.BOUNDS[longest]


def test_projections_answer_to_their_inputs():
    """A table whose rows are typed in: a slower link, or a card that reaches less, must cost time."""
    many = SETUPS[3]
    assert project({**many, "link": many["link"] / 100})["bound"] == "all-reduce"
    assert project(many, tokens=20e9)["hours"] == pytest.approx(2 * project(many)["hours"], rel=1e-2)
    assert project(SETUPS[0])["tok_s"] == pytest.approx(cost.SEEN["T4"]["tok_s"], rel=0.01)  # its own calibration


def test_the_readings_of_the_landmarks_fit_their_cards():
    """182 k tok/s read as eight cards' would be 6% of their peak; as one card's it is half, and 16 k in fp32 is 70%."""
    flops = flops_per_token(GPT2)
    assert 0.4 < 182e3 * flops / CARDS["A100"].peak < 0.6 and 0.6 < 16e3 * flops / 19.5e12 < 0.8
    assert 0.2 < 18.1e3 * flops / CARDS["T4"].peak < 0.28
    for name in cost.SEEN:
        assert 0.2 < cost.seen_reach(name) < 1


def test_what_is_written_is_what_the_code_says():
    """A table in results/ that the formulas no longer give, or a fit that its own points no longer give."""
    saved = json.loads(cost.RESULT.read_text())
    assert saved["predictions"] == json.loads(json.dumps(cost.predictions()))
    for part in ("time", "memory", "sampling"):
        for curve in saved["parts"][part]["curves"].values():
            *seen, last = ((p["x"], p["median"]) for p in curve["points"])
            again = judge(dict(seen), last, curve["powers"], curve["held_out"]["tolerance"])
            assert again["coefficients"] == pytest.approx(curve["coefficients"], rel=1e-6)
            assert again["held_out"]["holds"] == curve["held_out"]["holds"]
    assert saved["picture"]["alt"] == cost.alt_text(saved)
    assert cost.predictions_markdown(saved).count("\n") == 1 + len(SETUPS)
    assert "held out" in cost.table_markdown(saved)


def test_a_part_goes_into_the_file_beside_the_others(tmp_path):
    """A second part that throws the first away; a run that hides what the run before it said; no machine, no date."""
    out = tmp_path / "cost.json"
    out.write_text(json.dumps({"parts": {"memory": {"kept": 1}}}))
    for _ in range(2):
        assert cost.main(["sampling", "--quick", "--out", str(out)]) == 0
    saved = json.loads(out.read_text())["parts"]
    assert saved["memory"] == {"kept": 1} and saved["sampling"]["date"] and saved["sampling"]["machine"]["cpu"]
    assert len(saved["sampling"]["earlier_runs"]) == 1
    assert saved["sampling"]["curves"]["cached"]["points"][0]["median"] > 0


def test_one_sentence_for_what_cannot_be(tmp_path, capsys):
    """A traceback for a figure without data or a part that does not exist."""
    assert cost.main(["figure", "--out", str(tmp_path / "none.json")]) == 2
    assert cost.main(["speed"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and "run those parts first" in said and "Traceback" not in said


def test_nanoseconds_a_pair(monkeypatch):
    """Nanoseconds a pair of positions that forget the heads, the sequences, or the square of the length."""
    monkeypatch.setattr(cost, "in_turns", lambda measures, rounds: {T: [2.0] for T in measures if measures[T]() > 0})
    assert cost.attention_alone([16, 32], 1) == {"16": round(2e9 / (8 * 4 * 16**2), 3),
                                                 "32": round(2e9 / (8 * 4 * 32**2), 3)}


def test_a_shape_changes_in_one_thing():
    """An axis that moves the heads' size, or another axis, along with it."""
    base, sequences = cost.config_at()
    assert cost.config_at("context", 64) == (replace(base, block_size=64), sequences)
    assert cost.config_at("sequences", 3) == (base, 3)
    wide, _ = cost.config_at("width", 256)
    assert wide.n_embd // wide.n_head == base.n_embd // base.n_head and wide.n_layer == base.n_layer
