"""bench/summit.py: that it comes to its end, what is counted, and that its report holds together."""

import json
import math

from bench import summit
from bench.summit import curve, projection
from data.text import load_text
from lab.project import ROOT
from tests.runs import words
from train_gpt2 import main


def test_one_command_climbs_the_whole_road(tmp_path, monkeypatch):
    """A report that reads files which no code writes: the command ended in the last of four hours.

    All of it on a tiny shape; each run in this process, where the command starts one of its own.
    """
    text = tmp_path / "words.txt"
    text.write_text(words())
    tiny = dict(preset="quick", text=str(text), block_size=8, batch_size=8, tokens_per_step=64, max_steps=2,
                eval_every=9, sample_chars=0, device="cpu", precision="fp32", log_every=0, n_layer=1)
    small = dict(tiny, n_head=1, n_embd=8)
    large = dict(tiny, n_layer=2, n_head=2, n_embd=16, freeze_matrices=True, teacher_weight=1.0,
                 optimizer="adamw")
    changes = dict(SEED=small, MORE=small, LARGE=large, SEEDS=(1, 2), PROCESSES=1, RESULT=tmp_path / "r.json",
                   load_corpus=lambda quiet: load_text(text, quiet), finish=lambda ended: None,
                   start=lambda command, log, **environment: main(command[2:]))
    for name, value in changes.items():
        monkeypatch.setattr(summit, name, value)
    summit.main(["--out", str(tmp_path / "out")])
    report = json.loads((tmp_path / "r.json").read_text())
    assert [run["name"] for run in report["runs"]] == ["seed-1", "seed-2", "more-1", "more-2", "large"]
    assert report["runs"][-1]["settings"]["teacher"] == "more-1/best,more-2/best"
    ends = [run["val_loss"] for run in report["runs"][2:4]]
    exact, before = report["exact"], 1.05 * math.log(len(set(words())))
    assert exact["mean_probabilities"] < sum(ends) / 2 < before and 0 < exact["start"]["val_loss"] < before
    assert len(report["samples"]) == 4 and all(len(sample["text"]) > 400 for sample in report["samples"])


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
