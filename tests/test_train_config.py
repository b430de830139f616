"""gpt2/settings.py: presets, what cannot go together, and the command line."""

import dataclasses
import json
import runpy
import shlex
import sys

import pytest

from gpt2.errors import TrainError
from gpt2.settings import NO_END, PRESETS, TrainConfig, as_command, flag, make_parser, parse_command
from tests.runs import ROOT


@pytest.mark.parametrize("command, says", [
    ("--preset gpt2-chr", "did you mean gpt2-char"), ("--max-stepps 5", "did you mean --max-steps"),
    ("--max-steps five", "max-steps"), ("--max-steps 0", "at least 1"), ("--beta2 1", "below 1"),
    ("--n-head 7", "multiple of 7"), ("--tokens-per-step 1000", "try 1024"), ("--batch-size 0", "at least 1"),
    ("--preset quick --batch-size 17", "16 sequences"), ("--lr 0", "--lr is 0"), ("--lr nan", "at least 0"),
    ("--lr inf", "at least 0 and finite"), ("--minutes inf", "at least 0 and below 1000000"),
    ("--seed 99999999999999999999999", "at least 0 and below"), ("--max-steps 9999999999", "and below"),
    ("--lr 1e-4 --min-lr 1e-3", "above --lr"), ("--schedule step", "cosine"), ("--device tpu", "cuda:N"),
    ("--out-dir train_gpt2.py", "is a file"), ("train", "Unknown argument 'train'"),
    ("--windows 100:1", "part of --tokens-per-step"), ("--windows 64", "shares that make 1"),
    ("--windows 64:0.5", "shares that make 1"), ("--windows 256:1", "none longer than"),
    ("--text a.txt --data b", "two texts"), ("--copy-to ./out/cpu", "--out-dir itself"),
    ("--keep-steps 0,ten", "whole numbers with commas")])
def test_one_sentence_for_what_cannot_be(command, says, monkeypatch):
    """A traceback, a page of usage, or a mistake that is found after the model is built."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(TrainError) as error:
        parse_command(command.split())
    assert says in str(error.value) and "\n" not in str(error.value)


def test_from_the_shell_too(monkeypatch, capsys):
    """The sentence must reach the shell alone, with an exit code that scripts can see."""
    monkeypatch.setattr(sys, "argv", ["train_gpt2.py", "--preset", "gpt3"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "train_gpt2.py"), run_name="__main__")
    out, err = capsys.readouterr()
    assert end.value.code == 2 and out == "" and "gpt2-char" in err and err.count("\n") == 1


def test_every_field_is_a_flag_with_help():
    """A field without its comment, which is its help; a preset whose own values do not go together."""
    text = " ".join(make_parser().format_help().split())
    for f in dataclasses.fields(TrainConfig):
        assert flag(f.name) in text, f.name
    assert all(action.help for action in make_parser()._actions)
    for name in PRESETS:
        assert name in text and TrainConfig.preset_of(name)


@pytest.mark.parametrize("preset, changes", [
    ("gpt2-char", dict(batch_size="auto", out_dir="out/my run", compile=True)),
    ("quick", dict(bias=False, tensorboard=True, dropout=0.2, out_dir="x")),
    ("cpu", dict(lr=1e-4, out_dir="x"))])
def test_a_command_is_the_run(preset, changes):
    """The line that a stopped run prints, and that starts another run."""
    c = TrainConfig.preset_of(preset, **changes)
    words = shlex.split(as_command(c))
    assert words[:2] == ["python", "train_gpt2.py"] and parse_command(words[2:])[0] == c


def test_a_new_context_alone_is_enough():
    """--block-size 100 refused, because tokens a step and micro-batch of the preset no longer fit."""
    c, _ = parse_command(["--preset", "quick", "--block-size", "100"])
    assert c.tokens_per_step % 100 == 0 and c.batch_size <= c.sequences


@pytest.mark.parametrize("command, minutes, steps", [
    ("", 5.0, 4200), ("--max-steps 100", 0.0, 100), ("--minutes 10", 10.0, NO_END),
    ("--minutes 0", 0.0, 4200),
    ("--max-steps 100 --minutes 2", 2.0, 100), ("--decay-steps 200", 0.0, 4200), ("--lr 1e-3", 5.0, 4200)])
def test_clock_or_steps(command, minutes, steps):
    """A run with --max-steps that the preset's five minutes cut short; an hour that ends at step 4,200."""
    c = parse_command(command.split())[0]
    assert (c.minutes, c.max_steps) == (minutes, steps)
    assert parse_command(shlex.split(as_command(c))[2:])[0] == c


def test_unknown_setting_from_python():
    """A misspelt keyword that is quietly ignored."""
    with pytest.raises(TrainError, match="max_step"):
        TrainConfig.preset_of("cpu", max_step=3)


def test_the_recorded_runs_can_be_started():
    """A command in the table of runs that is refused at the door, or counts its epochs wrong."""
    runs = json.loads((ROOT / "results" / "training_runs.json").read_text())["runs"]
    configs = [parse_command(shlex.split(run["command"])[2:])[0] for run in runs]
    assert len(runs) == 5 and all(run["command"].startswith("python train_gpt2.py ") for run in runs)
    assert configs[3].max_steps == 60 * (1_003_854 // configs[3].tokens_per_step)
