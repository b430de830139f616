"""bench/summit.py: what is left out, what is counted, and that its report holds together."""

import json

from bench.summit import added_blocks, curve, leave_out, projection
from lab.project import ROOT
from model_gpt2 import GPT, GPTConfig


def test_the_blocks_that_growing_adds():
    assert added_blocks(12, 4) == [1, 2, 4, 5, 7, 8, 10, 11]
    model = GPT(GPTConfig(8, 5, 3, 1, 8))
    kept = list(model.transformer.h)
    leave_out(model, [1])
    assert list(model.transformer.h) == [kept[0], kept[2]]


def test_a_curve_has_every_step_once():
    steps = [{"step": i + 1, "loss": float(i)} for i in range(100)]
    points = curve(steps, 10, points=40)
    assert len(points) == 50 and points[-1] == [1000, 98.5] and points[0] == [20, 0.5]


def test_the_report_holds_together():
    """A best that is no run's, a folder of the machine that measured, a loss below what exact means allow."""
    path = ROOT / "results" / "summit.json"
    report = json.loads(path.read_text())
    losses = [r["val_loss"] for r in report["runs"]]
    assert report["best"]["val_loss"] == min(losses) and report["best"]["parameters"] == 85_892_352
    assert "/work" not in path.read_text() and "/home" not in path.read_text()
    exact, best = report["exact"], report["best"]["val_loss"]
    assert exact["mean_probabilities"] < best < exact["start"]["val_loss"]
    assert projection(report["runs"]) == report["projection_t4"]
