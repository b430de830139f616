"""Folders of a run: who owns them, whose run lies in them, the copy that brings it back; what is said."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

import train_gpt2
from data.corpus import corpus_from_text
from data.ngram import NGram
from data.tokenizer import load_tokenizer
from gpt2 import checkpoint, folders, owner, plan, runlog
from gpt2.best import complete
from gpt2.checkpoint import load_checkpoint, look_into
from gpt2.owner import Owner
from gpt2.report import seconds_left
from model_gpt2 import GPT, GPTConfig
from tests.runs import CORPUS, ROOT, raising, run, same, words
from train_gpt2 import TrainError


def spoil(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- the copy


def test_a_new_machine_goes_on_from_the_copy(tmp_path, monkeypatch):
    """The machine is gone, the copy is not: the run began at step 1 and replaced it, 150 -> 10."""
    drive, copied, done = str(tmp_path / "drive"), [], []

    def callback(record, model):
        copied.append((look_into(drive) or {"step": 0})["step"])
        return record["step"] == 7

    monkeypatch.setattr(train_gpt2, "COPY_SECONDS", -1)  # so often, and at the end
    run(tmp_path / "old", callback, copy_to=drive)
    assert copied == [0, 0, 0, 3, 3, 3, 3, 6]  # after steps 1 to 7, and the validation of step 6
    again = run(tmp_path / "new", lambda record, _: done.append(record["step"]), copy_to=drive)
    whole = run(tmp_path / "whole")
    assert done[0] == 8  # from step 1 it would come to the same end
    assert same(again.model.state_dict(), whole.model.state_dict())
    assert [r["step"] for r in again.history if "loss" in r] == list(range(1, 13))
    assert load_checkpoint(drive)["step"] == 12
    assert all((tmp_path / name / "best" / "model.safetensors").exists() for name in ("drive", "new"))


def test_the_later_of_folder_and_copy_goes_on(tmp_path):
    """A folder that stayed behind on another machine writes its earlier step over the later copy."""
    drive, done = str(tmp_path / "drive"), []
    run(tmp_path / "a", max_steps=4, copy_to=drive)
    folders.copy_run(tmp_path / "a", tmp_path / "b")
    run(tmp_path / "a", max_steps=8, copy_to=drive)
    result = run(tmp_path / "b", lambda *_: done.append(1), max_steps=8, copy_to=drive)
    assert result.progress.step == 8 and not done  # nothing was left to do
    assert look_into(drive)["step"] == 8


def test_the_copy_is_guarded_like_the_folder(tmp_path):
    """--copy-to FOLDER_OF_ANOTHER_RUN: its last.pt and best/ were replaced, exit 0."""
    drive = tmp_path / "drive"
    run(drive)
    before = content_of(drive)
    for resume in ("auto", "overwrite", "no"):
        with pytest.raises(TrainError, match="seed 1337 there, 4 here.*another --copy-to"):
            run(tmp_path / "mine", seed=4, copy_to=str(drive), resume=resume)
    with pytest.raises(TrainError, match="--copy-to.*already holds a run"):
        run(tmp_path / "mine", copy_to=str(drive), resume="no")
    assert content_of(drive) == before


@pytest.mark.parametrize("changes", [{"seed": 5}, {"max_steps": 20}])
def test_a_copy_that_changed_meanwhile_is_not_replaced(tmp_path, changes, capsys):
    """Another machine went on with the run, or put another one there, while this one trained."""
    drive = tmp_path / "drive"
    run(tmp_path / "else", **changes)

    def callback(record, model):
        if record["step"] == 5:
            folders.copy_run(tmp_path / "else", drive)

    run(tmp_path / "here", callback, copy_to=str(drive))
    assert (drive / "last.pt").read_bytes() == (tmp_path / "else" / "last.pt").read_bytes()
    assert "warning: no copy" in capsys.readouterr().out


@pytest.mark.parametrize("hurt", ["here", "drive"])
def test_a_damaged_checkpoint_is_not_the_later_one(tmp_path, hurt):
    """A damaged copy that is brought back, or kept as the later one; a damaged folder beside a whole copy."""
    here, drive = tmp_path / "here", tmp_path / "drive"
    run(here, max_steps=4, save_every=0)
    folders.copy_run(here, drive)
    run(tmp_path / hurt, max_steps=8, save_every=0)
    for path in (tmp_path / hurt).glob("last*.pt"):
        spoil(path)
    again = run(here, max_steps=6, save_every=0, copy_to=str(drive))
    assert [r["step"] for r in again.history if "loss" in r] == list(range(1, 7))
    assert load_checkpoint(drive)["step"] == 6


def test_what_is_damaged_never_replaces_a_whole_copy(tmp_path):
    """copy_run took last.pt as it was, while last.prev.pt was whole; with none whole, the rest.

    And where the only copy cannot be read, a run on a new machine began at step 1 and replaced it.
    """
    here, drive = tmp_path / "here", tmp_path / "drive"
    run(here)
    spoil(here / "last.pt")
    folders.copy_run(here, drive)
    assert load_checkpoint(drive)["step"] == 9
    before = content_of(drive)
    spoil(here / "last.prev.pt")
    (here / "history.jsonl").unlink()
    with pytest.raises(OSError, match="no checkpoint to copy is whole"):
        folders.copy_run(here, drive)
    assert content_of(drive) == before
    spoil(drive / "last.pt")
    with pytest.raises(TrainError, match="No checkpoint in .*drive can be read"):
        run(tmp_path / "new", copy_to=str(drive))


def test_best_survives_a_kill_between_its_two_renames(tmp_path):
    """best/ moved away, the new one not yet there: the best model gone for good, here or in the copy."""
    run(tmp_path / "drive", max_steps=6)
    os.replace(tmp_path / "drive" / "best", tmp_path / "drive" / "best.old")
    result = run(tmp_path / "new", max_steps=6, copy_to=str(tmp_path / "drive"))
    for name in ("drive", "new"):
        assert same(GPT.from_pretrained(tmp_path / name / "best").state_dict(), result.model.state_dict())


def test_drive_that_is_not_mounted_is_refused(tmp_path, monkeypatch):
    """makedirs invents /content/drive/MyDrive, and the copy is lost with the machine, in silence."""
    monkeypatch.setattr(folders, "DRIVE", str(tmp_path / "drive"))
    mine = str(tmp_path / "drive" / "MyDrive" / "run")
    for named in (dict(folder=mine), dict(folder=tmp_path / "here", copy_to=mine)):
        with pytest.raises(TrainError, match="not mounted"):
            run(**named)
    assert not (tmp_path / "drive").exists()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == str(tmp_path / "drive"))
    assert run(tmp_path / "here", copy_to=mine, max_steps=2).progress.step == 2


# ---- what is kept


def test_a_finished_run_is_kept_shown_and_extended(tmp_path, capsys):
    """Run all after a restart: best/ was gone at once."""
    run(tmp_path)
    best = content_of(tmp_path / "best")
    again = run(tmp_path)
    assert "stands at step 12 (max_steps); it is kept" in capsys.readouterr().out
    assert len(again.train_losses) == 12 and content_of(tmp_path / "best") == best
    assert run(tmp_path, max_steps=15).progress.step == 15
    capsys.readouterr()
    run(tmp_path, max_steps=10, log_every=1)
    said = capsys.readouterr().out
    assert "stopped at step 15 (max_steps)" in said and "of 10" not in said and "going on" not in said


def cut_off(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("step, hurt, lost", [
    (6, lambda best: shutil.rmtree(best), "of step 6 in last.pt."),
    (6, lambda best: cut_off(best / "model.safetensors"), "of step 6 in last.pt."),
    (6, lambda best: (best / "metrics.json").write_text("[1]"), "of step 6 in last.pt."),
    (8, lambda best: shutil.rmtree(best), "of step 8 in last.pt; the best one, of step 6, is lost.")])
def test_a_best_that_is_gone_comes_back(tmp_path, monkeypatch, capsys, step, hurt, lost):
    """A finished run typed again: a traceback, or "kept in best" where nothing was any more."""
    loss = iter([1.5, 1.7, 1.6])
    monkeypatch.setattr(train_gpt2, "evaluate", lambda *_: next(loss))
    run(tmp_path, max_steps=step)
    hurt(tmp_path / "best")
    capsys.readouterr()
    again = run(tmp_path, max_steps=step, log_every=1)
    assert f"{tmp_path}/best is gone or damaged: it is written anew from the model {lost}" in (
        said := capsys.readouterr().out)
    assert same(GPT.from_pretrained(tmp_path / "best").state_dict(), again.model.state_dict())
    assert json.loads((tmp_path / "best" / "metrics.json").read_text())["step"] == step
    assert f"at step {step}, kept in" in said and load_checkpoint(tmp_path)["best"]["step"] == step


def test_a_best_that_is_gone_comes_back_from_the_copy(tmp_path, monkeypatch, capsys):
    """The best model there was lay in the copy, and the last one was about to be written over it."""
    loss, drive = iter([1.5, 1.7, 1.6]), tmp_path / "drive"
    monkeypatch.setattr(train_gpt2, "evaluate", lambda *_: next(loss))
    run(tmp_path / "here", copy_to=str(drive))
    before = (drive / "best" / "model.safetensors").read_bytes()
    cut_off(tmp_path / "here" / "best" / "model.safetensors")
    run(tmp_path / "here", copy_to=str(drive), log_every=1)
    for folder in (tmp_path / "here", drive):
        assert (folder / "best" / "model.safetensors").read_bytes() == before
    said = capsys.readouterr().out
    assert f"here/best is gone or damaged: that of {drive} takes its place" in said
    assert f"1.5000 nats a token at step 6, kept in {tmp_path}" in said


def test_a_best_that_goes_while_it_trains_is_not_kept(tmp_path, capsys):
    """A best/ that somebody had deleted meanwhile was said to be kept."""
    best = tmp_path / "best"
    run(tmp_path, lambda record, _: record["step"] == 12 and "loss" not in record and shutil.rmtree(best),
        log_every=1)
    says = f"; {best} is gone, the same command with --resume auto writes it anew"
    assert says in capsys.readouterr().out


def test_what_comes_from_the_text_is_made_again(tmp_path):
    """Letter counts or a tokenizer that were cut off: a traceback, or an app that cannot be started."""
    run(tmp_path)
    before = content_of(tmp_path / "best")
    for name in ("ngram5.npz", "tokenizer.json"):
        cut_off(tmp_path / "best" / name)
    run(tmp_path)
    assert content_of(tmp_path / "best").keys() == before.keys() and load_tokenizer(tmp_path / "best")
    assert NGram.load(tmp_path / "best" / "ngram5.npz")
    cut_off(tmp_path / "best" / "metrics.json")
    with pytest.raises(TrainError, match="best is damaged: the same command"):
        complete(tmp_path / "best", CORPUS)


def test_overwrite_with_another_text(tmp_path):
    """The old counts stayed (5-gram "5.142", true 1.669); a reader's own notes were gone with the run."""
    run(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "ngram5.npz").write_text("of an older version")
    other = corpus_from_text(words()[::-1] + "\n" + words(2000).upper(), "other")
    run(tmp_path, corpus=other, resume="overwrite")
    want = NGram(5, other.tokenizer.vocab_size).fit(other.train.numpy()).loss(other.val.numpy())
    assert json.load(open(tmp_path / "best" / "metrics.json"))["ngram5_val_loss"] == want
    assert NGram.load(tmp_path / "best" / "ngram5.npz").loss(other.val.numpy()) == want
    checkpoint.remove_run(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("log-")) == ["notes.txt"]


# ---- one owner


def held_by(folder, **changes):
    card = {**json.loads(owner.card()), **changes}
    (folder / "owner.json").write_text(json.dumps(card))


def test_two_runs_in_one_folder(tmp_path):
    """One died with "free some space", and the survivor's history was torn."""
    code = ("import sys, time; from gpt2.owner import Owner; o = Owner(); o.take(sys.argv[1]); "
            "print(1, flush=True); time.sleep(60)")
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT, stdout=subprocess.PIPE)
    other.stdout.readline()
    says = rf"in use by a run on .* \(process {other.pid}, since \d\d:\d\d\): wait for it"
    for named in (dict(folder=tmp_path), dict(folder=tmp_path / "mine", copy_to=str(tmp_path))):
        with pytest.raises(TrainError, match=says) as error:
            run(**named)
        assert "\n" not in str(error.value)
    (tmp_path / "owner.json").write_text("")
    with pytest.raises(TrainError, match="just being taken"):
        Owner().take(tmp_path)
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # a zombie is dead too
    assert run(tmp_path, max_steps=2).progress.step == 2
    other.communicate()
    assert not (tmp_path / "owner.json").exists()


LONG_AGO = time.time() - 20 * owner.BEAT


@pytest.mark.parametrize("changes, says", [
    ({}, None), ({"host": "elsewhere"}, "or, if that machine is gone, go on after"),
    ({"host": "elsewhere", "beat": LONG_AGO}, None), ({"host": "elsewhere", "beat": 9e9}, None)])
def test_dead_owners_do_not_block(tmp_path, changes, says):
    """A folder that nobody can use any more, because a machine was switched off in the middle of a run."""
    held_by(tmp_path, **changes)
    mine = Owner()
    if says:
        with pytest.raises(TrainError, match=says):
            mine.take(tmp_path)
    else:
        mine.take(tmp_path)
        assert json.loads((tmp_path / "owner.json").read_text())["pid"] == os.getpid()
        mine.release()
        assert not (tmp_path / "owner.json").exists()


def test_where_the_system_cannot_lock(tmp_path, monkeypatch):
    """Windows, or a disk without locks: the owner's signs of life are all there is to go by."""
    monkeypatch.setattr(owner, "fcntl", None)
    first = Owner()
    first.take(tmp_path)
    with pytest.raises(TrainError, match="in use"):
        Owner().take(tmp_path)
    first.release()
    held_by(tmp_path, beat=LONG_AGO)
    Owner().take(tmp_path)


def test_a_long_run_shows_that_it_lives(tmp_path):
    """A card of ten minutes ago, and another machine takes the folder of a run that goes on."""
    mine = Owner()
    mine.take(tmp_path)
    for host in (json.loads(owner.card())["host"], "elsewhere"):
        held_by(tmp_path, beat=5.0, host=host)
        mine.beat_at = 0
        mine.beat()
        assert (json.loads((tmp_path / "owner.json").read_text())["beat"] > 5) == (host != "elsewhere")
    mine.release()
    assert (tmp_path / "owner.json").exists()  # it is theirs now


# ---- what is said can never end a run


def test_a_closed_pipe_ends_the_talking(tmp_path):
    """train_gpt2.py ... | head: nothing was saved, and "free some space"."""
    (tmp_path / "text.txt").write_text(words())
    flags = "--preset quick --n-embd 8 --block-size 8 --tokens-per-step 64 --max-steps 12 --device cpu"
    command = [sys.executable, "train_gpt2.py", *flags.split(), "--text", str(tmp_path / "text.txt"),
               "--out-dir", str(tmp_path / "run")]
    shell = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shell.stdout.close()
    said = shell.stderr.read()
    assert shell.wait(120) == 0 and "Error" not in said
    assert load_checkpoint(tmp_path / "run")["step"] == 12


class Full(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    def add_scalar(self, *_):
        self.write("")


@pytest.mark.parametrize("what", ["file", "history", "board"])
def test_a_full_log_disk_does_not_end_the_run(tmp_path, monkeypatch, capsys, what):
    """Hours of training lost for a line of a log."""
    real = runlog.RunLog._open_files

    def opened(self, folder, step):
        real(self, folder, step)
        setattr(self, what, Full())

    monkeypatch.setattr(runlog.RunLog, "_open_files", opened)
    monkeypatch.setattr(runlog.RunLog, "_open_board", lambda self, *_: self.board)
    result = run(tmp_path, tensorboard=True)
    assert len(result.train_losses) == 12 and load_checkpoint(tmp_path)["step"] == 12
    assert capsys.readouterr().out.count(f"goes on without its {what}") == 1


@pytest.mark.parametrize("code, says", [
    (errno.ENOSPC, "free some space"), (errno.EACCES, "not be written"), (errno.EIO, "look after the disk")])
def test_an_os_error_is_named_for_what_it_is(tmp_path, monkeypatch, code, says):
    """Told to free some space for a folder that may not be written to; a traceback where it is full."""
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainError, match="another --out-dir"):
        run(tmp_path / "file" / "run")  # a traceback from makedirs
    monkeypatch.setattr(runlog, "write_atomic", raising(OSError(code, os.strerror(code))))
    with pytest.raises(TrainError, match=f"{os.strerror(code)}.*{says}") as error:
        run(tmp_path)
    assert "\n" not in str(error.value)


def test_a_silent_run_says_where_it_stands(tmp_path, monkeypatch, capsys):
    """log_every=0, bar=False: nothing is shown for the first minutes. And a disk that is too small.

    After 40 seconds in which teachers read, and one step of a second: "about 10.6 hours left".
    """
    monkeypatch.setattr(runlog, "FIRST_WORD", -1)
    monkeypatch.setattr(plan, "free_disk", lambda folder: 5000)
    run(tmp_path / "a", copy_to=str(tmp_path / "b"), max_steps=6)
    *disk, stands = capsys.readouterr().out.splitlines()
    assert len(disk) == 2 and all("NOT ENOUGH" in line for line in disk) and str(tmp_path / "b") in disk[1]
    assert stands.startswith("step 5 of 6 | loss ") and "left, until " in stands
    stand = SimpleNamespace(config=SimpleNamespace(max_steps=1000, minutes=0), ready_at=(0, 40.0))
    for step, left in ((1, None), (4, None), (5, 995)):
        stand.progress = SimpleNamespace(step=step, clock=40.0 + step)
        assert seconds_left(stand) == left
    checkpoint_bytes, best_bytes = plan.disk_plan(GPTConfig(vocab_size=65), "adamw")
    assert 1.02e9 < checkpoint_bytes < 1.04e9 and 0.34e9 < best_bytes < 0.35e9
    assert plan.disk_plan(GPTConfig(vocab_size=65), "adamw", "fp16")[1] == best_bytes / 2
