"""Several processes: the run of one, and no hang when one dies. Also text from shards on disk."""

import dataclasses
import json
import os
import signal
import socket
import sys

import numpy as np
import pytest
import torch

from data.shards import write_shards
from gpt2 import processes
from gpt2.plan import pick_micro_batch
from gpt2.processes import leave
from tests import runs
from tests.runs import CORPUS, words
from train_gpt2 import TrainConfig, TrainError, train


def test_a_run_on_shards_is_the_run_on_the_text(tmp_path):
    """Shards that are drawn at random and recorded as shuffled; the sentence for the wrong tokenizer."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "words.txt").write_text(words())
    write_shards(tmp_path / "texts", tmp_path / "shards", say=lambda line: None)
    c = runs.tiny(order="shuffled")
    shards = dataclasses.replace(c, data=str(tmp_path / "shards"))
    on_text, on_shards = train(c, CORPUS), train(shards)
    assert on_text.train_losses == on_shards.train_losses and on_text.val_losses == on_shards.val_losses
    with pytest.raises(TrainError, match="--tokenizer char"):
        train(dataclasses.replace(shards, tokenizer="bpe"))


# ---- two processes


def losses(out):
    records = [json.loads(line) for line in open(out / "history.jsonl")]
    return [r.get("loss", r.get("val_loss")) for r in records if "epoch" not in r]


SETTINGS = dict(lr=0.02, max_steps=8, eval_every=4, log_every=1, dropout=0.0)


def node(rank, folder, port, what):
    """One of two machines, with a folder of its own; what it says is in said0, said1."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                      MASTER_PORT=str(port))
    sys.stdout = open(folder / f"said{rank}", "w", buffering=1)

    def callback(record, model):
        if rank == 1 and record["step"] == 2 and what in ("SIGKILL", "SIGTERM"):
            os.kill(os.getpid(), getattr(signal, what))

    changes = {"lr": 0.04} if rank == 1 and what == "another rate" else {}
    try:
        runs.run(folder / f"node{rank}", callback, **{**SETTINGS, **changes})
    except TrainError as error:
        print(error)
        sys.exit(2)
    finally:
        leave()


@pytest.fixture
def machines(tmp_path):
    """Start both; returns the exit codes and what each has said."""
    def start(what=""):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        nodes = [runs.forkserver().Process(target=node, args=(rank, tmp_path, port, what)) for rank in (0, 1)]
        for process in nodes:
            process.start()
        for process in nodes:
            process.join(60)
            process.kill()
        return [process.exitcode for process in nodes], [(tmp_path / f"said{r}").read_text() for r in (0, 1)]

    return start


def test_two_machines_stop_and_go_on_and_are_one(machines, tmp_path):
    """Node 0 restored, node 1 began anew, and the farewell was that of a good run with a wrong model.

    Ranks with the same slice, gradients summed and not averaged, an exchange left out: another loss than one
    process has. One of them is asked to stop before anything was validated; then last.pt is cut off: each
    process moved it away, and the second died of its absence. And two processes that drop out the same
    activations would have the same generator.
    """
    first = tmp_path / "node0"
    codes, said = machines("SIGTERM")
    assert codes == [0, 0], said
    assert torch.load(first / "last.pt", weights_only=True)["step"] == 3 and not (first / "best").exists()
    assert machines()[0] == [0, 0]
    before, saved = losses(first), torch.load(first / "last.pt", weights_only=True)
    assert len(before) == 10 and saved["step"] == 8
    runs.run(tmp_path / "one", **SETTINGS)
    assert np.allclose(losses(tmp_path / "one"), before, atol=1e-5)
    assert not torch.equal(*(state["cpu"] for state in saved["rng"]))
    (first / "last.pt").write_bytes(b"cut off")
    codes, said = machines()
    assert codes == [0, 0], said
    assert said[0].count("damaged") == 1 and "going on after step 6" in said[0] and not said[1]
    again = torch.load(first / "last.pt", weights_only=True)
    assert losses(first) == before and runs.same(again["model"], saved["model"])
    assert runs.run(first, **{**SETTINGS, "max_steps": 9}).progress.step == 9  # one goes on where two stopped


def test_machines_with_other_settings_are_told(machines):
    """A command typed differently on the second machine: a model between two runs."""
    codes, said = machines("another rate")
    assert 0 not in codes
    assert all("Process 1 was started with another set of settings than process 0" in text for text in said)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "node0/best"), KeyError()])
def test_whatever_process_0_meets_in_its_folders_is_handed_on(error, monkeypatch):
    """Only a TrainError was: after any other the processes beside it waited for ever."""
    def work():
        raise error

    sent = []
    monkeypatch.setattr(processes, "from_first", lambda value, world: sent.append(value) or sent[0])
    with pytest.raises(type(error)):
        processes.first_does(work, rank=0, world=2)
    with pytest.raises(TrainError, match="Permission|KeyError"):
        processes.first_does(work, rank=1, world=2)


def test_a_dead_process_ends_the_run(machines):
    """The others wait for its gradients for ever, and the card is paid for all night."""
    codes, said = machines("SIGKILL")
    assert codes[1] == -signal.SIGKILL and codes[0] > 0
    assert "Process 0 lost the others after step 2" in said[0]


def test_processes_that_do_not_find_one_another(monkeypatch):
    """WORLD_SIZE without torchrun, or a machine that is not there: a traceback of torch's rendezvous.

    And sequences that fall under the table because three processes cannot share eight.
    """
    for name, value in dict(WORLD_SIZE="2", RANK="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="no port").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainError, match="Process 1 does not reach the others .*torchrun") as error:
        train(TrainConfig.preset_of("quick", device="cpu"))
    assert "\n" not in str(error.value)
    with pytest.raises(TrainError, match="3 processes"):
        pick_micro_batch(runs.tiny(), None, torch.float32, torch.device("cpu"), world=3)
