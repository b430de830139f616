"""gpt2/checkpoint.py: checkpoints that survive kills, damage, full disks; runs that go on bit for bit."""

import dataclasses
import importlib
import io
import json
import os
import random
import signal
import time
import types
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import train_gpt2
from data.corpus import corpus_from_text
from gpt2 import checkpoint, runlog
from gpt2.checkpoint import load_checkpoint, save_checkpoint
from model_gpt2 import GPT
from tests.runs import CORPUS, forkserver, raising, run, same, tiny, words
from train_gpt2 import TrainError


def result_of(folder):
    """What must not depend on interruptions: weights, moments, generators, the history without its times
    (and without the validation that a stop by a callback adds)."""
    saved = load_checkpoint(folder)
    saved = {k: saved[k] for k in ("model", "optimizer", "scaler", "rng", "step", "best")}
    history = [json.loads(line) for line in open(Path(folder) / "history.jsonl")]
    return saved, [{k: v for k, v in r.items() if k not in ("dt_ms", "tok_s")} for r in history
                   if "val_loss" not in r or r["step"] % 6 == 0]


# ---- resume


def noting(done, stop=None):
    """A callback that keeps the steps that were really done, and stops a run."""
    return lambda record, model: done.append(record["step"]) or record["step"] == stop


@pytest.mark.parametrize("kind, precision", [("adamw", "fp32"), ("muon", "bf16"), ("muon", "fp16")])
def test_resume_is_bit_exact(tmp_path, kind, precision):
    """Anything that last.pt forgets: a moment, the scaler, the generator, the place in the data."""
    settings = dict(optimizer=kind, precision=precision)
    run(tmp_path / "whole", **settings)
    for start, stop in pairwise((0, 4, 6, 7, 12)):
        done = []
        run(tmp_path / "parts", noting(done, stop), **settings)
        assert done[0] == start + 1  # a run that begins anew comes to the same end
        torch.rand(5)  # another session has another random state
    assert bool(load_checkpoint(tmp_path / "whole")["scaler"]) == (precision == "fp16")
    assert same(result_of(tmp_path / "whole"), result_of(tmp_path / "parts"))


def test_the_last_step_is_safe_before_the_rest_is_measured(tmp_path, monkeypatch):
    """The machine goes while the right guesses are counted: the steps since the last save were gone too."""
    monkeypatch.setattr(train_gpt2, "complete", raising(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, save_every=0)
    assert load_checkpoint(tmp_path)["step"] == 12


def test_another_configuration_is_refused(tmp_path):
    """Weights of one run continued with another's settings; a night's work deleted by the same command.

    And the same text cut elsewhere: what was validation is trained on, and no hash tells.
    """
    n = len(CORPUS.train) + 100
    cut_elsewhere = dataclasses.replace(CORPUS, train_text=CORPUS.text[:n], val_text=CORPUS.text[n:])
    run(tmp_path)
    with pytest.raises(TrainError, match="split"):
        run(tmp_path, corpus=cut_elsewhere)
    with pytest.raises(TrainError, match=r"lr 0.02 there, 0.001 here; .*seed 1337 there, 3 here") as error:
        run(tmp_path, lr=1e-3, seed=3)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainError, match="learned another text, .*: choose another --out-dir"):
        run(tmp_path, corpus=corpus_from_text(words(2500), "words"))
    run(tmp_path, batch_size=2, eval_every=4, save_every=5)  # these do not change the numbers
    with pytest.raises(TrainError, match="--resume auto"):
        run(tmp_path, resume="no")
    assert run(tmp_path, resume="overwrite", max_steps=3).progress.step == 3
    assert not (tmp_path / "last.prev.pt").exists()


# ---- damage


def test_one_damaged_byte_falls_back(tmp_path):
    """torch.load does not check sums: a byte that a disk turned around would live on in the weights, unseen.

    False pass: a byte that carries nothing (padding, a time stamp) may load; then the content is the same.
    """
    run(tmp_path)
    whole, r = (tmp_path / "last.pt").read_bytes(), random.Random(0)
    saved, previous = load_checkpoint(tmp_path), torch.load(tmp_path / "last.prev.pt", weights_only=True)
    caught = 0
    for _ in range(40):
        at = r.randrange(len(whole))
        (tmp_path / "last.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        warnings = []
        got = load_checkpoint(tmp_path, warnings.append)
        assert same(got, previous if warnings else saved)
        caught += len(warnings)
        if warnings:
            assert got["step"] == 9 and "damaged" in warnings[0] and (tmp_path / "last.pt.damaged").exists()
    assert caught > 5


def test_what_cannot_be_read_falls_back(tmp_path, capsys):
    """A copy that broke off half way, and no run starts for it; a pickle that starts a program."""
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    run(tmp_path)
    last = tmp_path / "last.pt"
    whole = last.read_bytes()
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    for content in (b"", b"PK", b"not a checkpoint", (tmp_path / "evil.pt").read_bytes(),
                    whole[: len(whole) // 2]):
        last.write_bytes(content)
        assert load_checkpoint(tmp_path, lambda text: None)["step"] == 9
    assert not (tmp_path / "pwned").exists()
    last.write_bytes(b"")
    assert run(tmp_path).progress.step == 12
    assert "damaged" in capsys.readouterr().out
    for name in ("last.pt", "last.prev.pt"):
        (tmp_path / name).unlink()
        (tmp_path / name / "data").mkdir(parents=True)  # a program unpacked them: they are zip files
    with pytest.raises(TrainError, match="--resume overwrite"):
        run(tmp_path)
    assert run(tmp_path, resume="overwrite", max_steps=2).progress.step == 2  # the advice works
    assert not list(tmp_path.glob("*.damaged"))


@pytest.mark.parametrize("hurt", [
    lambda saved: [1, 2], lambda saved: {"step": 12}, lambda saved: {**saved, "config": {}},
    lambda saved: saved["model"].popitem() and saved, lambda saved: saved["progress"].update(odd=1) or saved,
    lambda saved: {**saved, "optimizer": [{}]}])
def test_what_loads_but_is_no_checkpoint_falls_back(tmp_path, hurt, capsys):
    """A traceback, and last.prev.pt beside it was never tried."""
    done = []
    run(tmp_path)
    torch.save(hurt(load_checkpoint(tmp_path)), tmp_path / "last.pt")
    run(tmp_path, noting(done))
    assert done[0] == 10 and "last.pt is damaged (it is no checkpoint" in capsys.readouterr().out


def test_a_damaged_history_is_read_past(tmp_path):
    """A byte that a disk turned around, a line by another program: a traceback where the run is whole."""
    run(tmp_path, max_steps=6)
    path = tmp_path / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    junk = b'\xff\xfe\n{"step": "x"}\n[1]\n7\n{}\n' + b"[" * 100_000 + b"\n"
    path.write_bytes(b"".join(lines[:2]) + junk + b"".join(lines[2:]))
    result = run(tmp_path)
    assert [r["step"] for r in result.history if "loss" in r] == list(range(1, 13))
    assert len(path.read_bytes().splitlines()) == 14  # with the validations of steps 6 and 12


# ---- full disk


def test_full_disk_for_real(tmp_path):
    """The way torch itself fails when a file may not grow, with all that it leaves open."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    save_checkpoint(tmp_path, {"step": 1, "model": torch.zeros(10_000)})
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
        with pytest.raises(TrainError, match="^Could not write the checkpoint of step 2.*still good.$"):
            save_checkpoint(tmp_path, {"step": 2, "model": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert torch.load(tmp_path / "last.pt")["step"] == 1 and not (tmp_path / "last.pt.tmp").exists()


# ---- best/, moments, and when to save


def test_moments_are_the_weights_of_their_steps(tmp_path):
    """Weights of another step than the folder says; a resumed run that leaves one out; a word for a step."""
    for steps in (6, 12):
        run(tmp_path, keep_steps="0,6,12", max_steps=steps, decay_steps=12)
    moments = [GPT.from_pretrained(tmp_path / "moments" / step).state_dict() for step in ("0", "6", "12")]
    assert not same(moments[0], moments[1]) and not same(moments[1], moments[2])
    last = load_checkpoint(str(tmp_path), print)["model"]
    assert all(torch.equal(last[name].half().float(), tensor) for name, tensor in moments[2].items())
    with pytest.raises(TrainError, match="keep-steps"):
        tiny(tmp_path, keep_steps="0,ten")


def test_best_is_not_the_last(tmp_path, monkeypatch):
    """best/ overwritten at each validation."""
    losses = iter([2.0, 1.5, 1.7, 1.6])
    monkeypatch.setattr(train_gpt2, "evaluate", lambda *_: next(losses))
    run(tmp_path, eval_every=3)
    metrics = json.load(open(tmp_path / "best" / "metrics.json"))
    assert (metrics["val_loss"], metrics["step"]) == (1.5, 6)
    assert load_checkpoint(tmp_path)["best"] == {"val_loss": 1.5, "step": 6}


def test_autosave_by_time(tmp_path, monkeypatch):
    """A step that takes a minute, and no checkpoint for hours because steps are what is counted."""
    saved = []
    monkeypatch.setattr(train_gpt2, "save_checkpoint", lambda folder, c: saved.append(c["step"]))
    clock = iter(range(0, 10**6, 30))  # each look at the clock is half a minute later
    monkeypatch.setattr(train_gpt2, "time", types.SimpleNamespace(
        monotonic=lambda: next(clock), perf_counter=time.perf_counter))
    run(tmp_path, save_every=0, save_minutes=2, max_steps=20)
    assert 3 <= len(saved) < 20 and saved[-1] == 20


# ---- kill -9


PLACES = [("torch", "save", 2), ("os", "fsync", 5), ("os", "replace", 6), ("train_gpt2", "optimizer_step", 3),
          ("os", "replace", 3), ("gpt2.checkpoint", "save_best", 1)]  # before the nth call of it


def child(folder, place):
    if place:
        module, name, n = importlib.import_module(place[0]), place[1], place[2]
        real, calls = getattr(module, name), []

        def wrapped(*args, **more):
            calls.append(1)
            if len(calls) == n:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **more)

        setattr(module if name != "save_best" else train_gpt2, name, wrapped)
    run(folder, max_steps=20, save_every=1)


def test_kills_at_chosen_places(tmp_path):
    """A moment without a whole checkpoint, a torn history, a lost step: after all kills, the same end."""
    folder, step = tmp_path / "killed", 0
    for place in (*PLACES, None):
        process = forkserver().Process(target=child, args=(str(folder), place))
        process.start()
        process.join(120)
        assert process.exitcode == (-signal.SIGKILL if place else 0), place
        warnings = []
        saved = load_checkpoint(folder, warnings.append) or {"step": 0}
        assert not warnings and saved["step"] >= step, place
        done = runlog.read_history(folder)
        assert saved["step"] >= max((r["step"] for r in done), default=0) - 1, place  # one interval at most
        step = saved["step"]
        if place:  # and a line that the kill cut off
            with open(folder / "history.jsonl", "a") as file:
                file.write('{"step": 9')
    run(tmp_path / "whole", max_steps=20, save_every=1)
    assert same(result_of(folder), result_of(tmp_path / "whole"))
    best = json.load(open(folder / "best" / "metrics.json"))
    assert best["step"] == load_checkpoint(folder)["best"]["step"]


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, capsys, number):
    """Ctrl-C or a scheduler's SIGTERM that loses the work; a stop button that is dead after train()."""
    before = signal.getsignal(number)
    result = run(tmp_path, lambda record, model: record["step"] == 5 and os.kill(os.getpid(), number),
                 save_every=0, log_every=1, max_steps=50)
    assert result.stopped == "signal" and load_checkpoint(tmp_path)["step"] == result.progress.step < 8
    assert runlog.read_history(tmp_path)[-1]["step"] == result.progress.step
    out = capsys.readouterr().out
    assert f"--out-dir {tmp_path}" in out and "--resume auto" in out
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_it_at_once(tmp_path, capsys, monkeypatch):
    """A run that cannot be stopped while a step takes minutes, or that then prints a traceback."""
    def impatient(config):
        return run(tmp_path, lambda *_: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])

    monkeypatch.setattr(train_gpt2, "train", impatient)
    assert train_gpt2.main(["--preset", "quick"]) == 130
    assert "Stopped at once" in capsys.readouterr().err


def test_a_second_ctrl_c_while_it_saves_is_no_full_disk(tmp_path, capsys, monkeypatch):
    """torch's writer makes "unexpected pos" of the interrupt: told to free some space, exit code 2."""
    class Interrupted(io.FileIO):
        def write(self, piece):
            if self.tell() and not presses:
                presses.extend(os.kill(os.getpid(), signal.SIGINT) for _ in range(2))
            return super().write(piece)

    presses = []
    monkeypatch.setattr(checkpoint, "open", Interrupted, raising=False)
    monkeypatch.setattr(train_gpt2, "train", lambda config: run(tmp_path))
    assert train_gpt2.main(["--preset", "quick"]) == 130
    assert "Stopped at once" in capsys.readouterr().err
