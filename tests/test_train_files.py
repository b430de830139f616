"""gpt2/checkpoint.py: checkpoints that survive kills, damage, full disks; runs that go on bit for bit."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

import train_gpt2
from data.corpus import corpus_from_text
from data.shards import write_shards
from gpt2 import runlog
from gpt2.checkpoint import load_checkpoint, save_checkpoint
from model_gpt2 import GPT
from tests.runs import ROOT, same, tiny, until, words
from train_gpt2 import TrainError, train


@pytest.fixture(scope="module")
def corpus():
    return corpus_from_text(words(), "words")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text(words())
    write_shards(folder / "texts", folder / "shards", say=lambda line: None)
    return str(folder / "shards")


def result_of(folder):
    """What must not depend on interruptions: weights, moments, generators, the history without its times."""
    saved = load_checkpoint(folder)
    saved = {k: saved[k] for k in ("model", "optimizer", "scaler", "rng", "step", "best")}
    times = ("dt_ms", "tok_s")
    history = [json.loads(line) for line in open(Path(folder) / "history.jsonl")]
    return saved, [{k: v for k, v in r.items() if k not in times} for r in history]


# ---- resume


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_resume_is_bit_exact(corpus, tmp_path, kind, precision):
    """Anything that last.pt forgets: a moment, the scaler, the generator, the place in the data."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny(whole, optimizer=kind, precision=precision), corpus)
    for stop in (7, 10, 13):
        settings = tiny(parts, optimizer=kind, precision=precision)
        train(settings, corpus, until(stop))
        torch.rand(5)  # another session has another random state
    train(tiny(parts, optimizer=kind, precision=precision), corpus)
    assert same(result_of(whole), result_of(parts))


def test_a_crash_between_checkpoints(corpus, tmp_path):
    """Steps that are done again after a crash stand twice in the history, and twice in every picture."""
    class Crash(Exception):
        pass

    def callback(record, model):
        if record["step"] == 13:
            raise Crash

    with pytest.raises(Crash):
        train(tiny(tmp_path / "parts"), corpus, callback)
    assert [r["step"] for r in runlog.read_history(tmp_path / "parts")][-1] == 13
    train(tiny(tmp_path / "parts"), corpus)
    train(tiny(tmp_path / "whole"), corpus)
    assert same(result_of(tmp_path / "whole"), result_of(tmp_path / "parts"))


def test_the_last_step_is_safe_before_the_rest_is_measured(corpus, tmp_path, monkeypatch):
    """The machine goes while the right guesses are counted: the steps since the last save were gone too."""
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_gpt2, "complete", killed)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(tmp_path, save_every=0), corpus)
    assert load_checkpoint(tmp_path)["step"] == 20


def test_another_configuration_is_refused(corpus, tmp_path):
    """Weights of one run continued with another's settings: numbers that belong to nothing."""
    train(tiny(tmp_path), corpus)
    with pytest.raises(TrainError, match=r"lr 0.02 there, 0.001 here; .*seed 1337 there, 3 here") as error:
        train(tiny(tmp_path, lr=1e-3, seed=3), corpus)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainError, match="corpus_sha256"):
        train(tiny(tmp_path), corpus_from_text(words(2500), "words"))
    train(tiny(tmp_path, batch_size=2, eval_every=4, save_every=3), corpus)  # these do not change the numbers


def test_a_run_is_not_thrown_away_by_accident(corpus, tmp_path):
    """The same command typed twice without --resume deletes a night's work."""
    train(tiny(tmp_path, max_steps=5), corpus)
    with pytest.raises(TrainError, match="--resume auto"):
        train(tiny(tmp_path, resume="no"), corpus)
    assert train(tiny(tmp_path, resume="overwrite", max_steps=3), corpus).progress.step == 3
    assert not (tmp_path / "last.prev.pt").exists()


# ---- damage


def test_one_damaged_byte_falls_back(corpus, tmp_path):
    """torch.load does not check sums: a byte that a disk turned around would live on in the weights, unseen.

    False pass: a byte that carries nothing (padding, a time stamp) may load; then the content is the same.
    """
    train(tiny(tmp_path), corpus)
    whole, r = (tmp_path / "last.pt").read_bytes(), random.Random(0)
    saved, previous = load_checkpoint(tmp_path), torch.load(tmp_path / "last.prev.pt", weights_only=True)
    caught = 0
    for _ in range(60):
        at = r.randrange(len(whole))
        (tmp_path / "last.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        warnings = []
        got = load_checkpoint(tmp_path, warnings.append)
        assert same(got, previous if warnings else saved)
        caught += len(warnings)
        if warnings:
            assert got["step"] == 15 and "damaged" in warnings[0] and (tmp_path / "last.pt.damaged").exists()
    assert caught > 10


@pytest.mark.parametrize("content", [b"", b"PK", b"not a checkpoint at all", None])
def test_cut_off_checkpoint_falls_back(corpus, tmp_path, content, capsys):
    """A copy that broke off half way, and a run that does not start for it."""
    train(tiny(tmp_path), corpus)
    whole = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert train(tiny(tmp_path), corpus).progress.step == 20
    assert "damaged" in capsys.readouterr().out
    (tmp_path / "last.prev.pt").write_bytes(b"")
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(TrainError, match="--resume overwrite"):
        train(tiny(tmp_path), corpus)


def test_a_checkpoint_cannot_run_code(corpus, tmp_path):
    """A pickle from a stranger's Drive that starts a program."""
    train(tiny(tmp_path), corpus)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"model": Evil()}, tmp_path / "last.pt")
    assert load_checkpoint(tmp_path, lambda text: None)["step"] == 15
    assert not (tmp_path / "pwned").exists()


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
    assert load_checkpoint(tmp_path)["step"] == 1 and not (tmp_path / "last.pt.tmp").exists()


def test_out_dir_that_cannot_be(corpus, tmp_path):
    """A traceback from makedirs for a folder under a file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match="another --out-dir") as error:
        train(tiny(tmp_path / "file" / "run"), corpus)
    assert "\n" not in str(error.value)


def test_moments_are_the_weights_of_their_steps(tmp_path, corpus):
    """Weights of another step than the folder says; a resumed run that leaves one out; a word for a step."""
    for steps in (10, 20):
        train(tiny(tmp_path, keep_steps="0,10,20", max_steps=steps, decay_steps=20), corpus)
    moments = [GPT.from_pretrained(tmp_path / "moments" / step).state_dict() for step in ("0", "10", "20")]
    assert not same(moments[0], moments[1]) and not same(moments[1], moments[2])
    last = load_checkpoint(str(tmp_path), print)["model"]
    assert all(torch.equal(last[name].half().float(), tensor) for name, tensor in moments[2].items())
    with pytest.raises(TrainError, match="keep-steps"):
        tiny(tmp_path, keep_steps="0,ten")


# ---- best/ and the second folder


def test_best_survives_a_kill_between_its_two_renames(corpus, tmp_path):
    """best/ moved away, the new one not yet there: the best model of the run gone for good."""
    train(tiny(tmp_path, max_steps=10), corpus)
    os.replace(tmp_path / "best", tmp_path / "best.old")
    result = train(tiny(tmp_path, max_steps=10), corpus)
    assert GPT.from_pretrained(tmp_path / "best").num_params() == result.model.num_params()


def test_best_is_not_the_last(corpus, tmp_path, monkeypatch):
    """best/ overwritten at each validation."""
    losses = iter([2.0, 1.5, 1.7, 1.6])
    monkeypatch.setattr(train_gpt2, "evaluate", lambda *_: next(losses))
    train(tiny(tmp_path, eval_every=5), corpus)
    metrics = json.load(open(tmp_path / "best" / "metrics.json"))
    assert (metrics["val_loss"], metrics["step"]) == (1.5, 10)
    assert load_checkpoint(tmp_path)["best"] == {"val_loss": 1.5, "step": 10}


def test_autosave_by_time(corpus, tmp_path, monkeypatch):
    """A step that takes a minute, and no checkpoint for hours because steps are what is counted."""
    saved = []
    monkeypatch.setattr(train_gpt2, "save_checkpoint", lambda folder, c: saved.append(c["step"]))
    clock = iter(range(0, 10**6, 30))  # each look at the clock is half a minute later
    monkeypatch.setattr(train_gpt2, "time", types.SimpleNamespace(
        monotonic=lambda: next(clock), perf_counter=time.perf_counter))
    train(tiny(tmp_path, save_every=0, save_minutes=2), corpus)
    assert 3 <= len(saved) < 20 and saved[-1] == 20


# ---- kill -9


def child(folder, shards):
    torch.set_num_threads(1)
    train(tiny(folder, data=shards, max_steps=120, save_every=1, eval_every=10, bar=False))


def test_twenty_kills(shards, tmp_path):
    """A moment without a whole checkpoint, a torn history, a lost step: after twenty kills, the same end."""
    # torch is imported once, and forked while no thread runs
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["train_gpt2"])
    folder, r, step, killed = tmp_path / "killed", random.Random(7), 0, 0
    for _ in range(20):
        process = server.Process(target=child, args=(str(folder), shards))
        process.start()
        wait_for_a_step(folder, step, process)
        time.sleep(0.15 * r.random())
        killed += process.is_alive()
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        warnings = []
        saved = load_checkpoint(folder, warnings.append)
        assert saved and not warnings and saved["step"] >= step
        done = [rec["step"] for rec in runlog.read_history(folder)]
        assert saved["step"] >= max(done) - 1  # nothing lost but the last interval
        step = saved["step"]
    assert killed >= 15
    run = server.Process(target=child, args=(str(folder), shards))
    run.start()
    run.join(300)
    assert run.exitcode == 0
    whole = server.Process(target=child, args=(str(tmp_path / "whole"), shards))
    whole.start()
    whole.join(300)
    assert same(result_of(folder), result_of(tmp_path / "whole"))
    best = json.load(open(folder / "best" / "metrics.json"))
    assert best["step"] == load_checkpoint(folder)["best"]["step"]


def wait_for_a_step(folder, step, process, seconds=120):
    """Until the child has gone beyond the step, so that twenty kills are twenty places in the run."""
    end = time.time() + seconds
    while time.time() < end and process.is_alive():
        if any(rec["step"] > step for rec in runlog.read_history(folder)[-3:]):
            return
        time.sleep(0.01)


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(shards, tmp_path, number):
    """Ctrl-C or a scheduler's SIGTERM that loses the work since the last autosave."""
    command = [sys.executable, "train_gpt2.py", "--preset", "quick", "--data", shards, "--block-size", "16",
               "--out-dir", str(tmp_path / "run"), "--max-steps", "99999", "--save-every", "0",
               "--eval-every", "99999"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if line.startswith("step 5 "):
            break
    process.send_signal(number)
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0, out
    saved = load_checkpoint(tmp_path / "run")
    last = [r["step"] for r in runlog.read_history(tmp_path / "run")][-1]
    assert saved["step"] == last >= 5
    assert f"--out-dir {tmp_path / 'run'} --resume auto" in out and "Traceback" not in out


def test_signals_are_given_back(corpus, tmp_path):
    """A notebook whose stop button does nothing after train()."""
    before = signal.getsignal(signal.SIGINT)
    train(tiny(tmp_path, max_steps=2), corpus)
    assert signal.getsignal(signal.SIGINT) is before
