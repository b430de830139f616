"""Several processes: the run of one, and no hang when one dies. Also text from shards on disk."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from data.corpus import corpus_from_text
from data.shards import write_shards
from gpt2.plan import pick_micro_batch
from tests.runs import ROOT, words
from train_gpt2 import TrainConfig, TrainError, main, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "texts" / "more").mkdir(parents=True)
    (folder / "texts" / "a.txt").write_text(words())
    (folder / "texts" / "more" / "b.txt").write_text("green stones, and rain\n" * 200)
    write_shards(folder / "texts", folder / "shards", say=lambda line: None)
    return folder


# ---- shards


def test_a_run_on_shards_is_the_run_on_the_text(tmp_path):
    """Shards that are drawn at random and recorded as shuffled; the sentence for the wrong tokenizer."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(words())
    write_shards(tmp_path / "texts", tmp_path / "shards", say=lambda line: None)
    c = TrainConfig.preset_of("quick", order="shuffled", max_steps=3, eval_every=3, log_every=0, device="cpu")
    shards = dataclasses.replace(c, data=str(tmp_path / "shards"))
    runs = [train(c, corpus_from_text(words(), "a")), train(shards)]
    assert runs[0].train_losses == runs[1].train_losses and runs[0].val_losses == runs[1].val_losses
    with pytest.raises(TrainError, match="--tokenizer char"):
        train(dataclasses.replace(shards, tokenizer="bpe"))


# ---- several processes


def torchrun(n, script, *args, timeout=300):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}",
               script, *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})


def flags(folder, out, *more):
    return ["--preset", "quick", "--data", str(folder / "shards"), "--out-dir", str(out), "--device", "cpu",
            "--precision", "fp32", "--max-steps", "8", "--eval-every", "4", "--save-every", "4",
            "--batch-size", "4", *more]


def losses(out):
    records = [json.loads(line) for line in open(out / "history.jsonl")]
    return [r.get("loss", r.get("val_loss")) for r in records]


def test_two_processes_are_one(folder, tmp_path):
    """Ranks with the same slice, gradients summed and not averaged, an exchange left out: another loss."""
    done = torchrun(2, "train_gpt2.py", *flags(folder, tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("step ") and "tok/s" in line]
    assert len(lines) == 8  # only rank 0 speaks
    assert main(flags(folder, tmp_path / "one")) == 0
    assert np.allclose(losses(tmp_path / "one"), losses(tmp_path / "two"), atol=1e-5)
    # one process goes on where two stopped
    assert main(flags(folder, tmp_path / "two", "--resume", "auto", "--max-steps", "10")) == 0
    assert len(losses(tmp_path / "two")) == 13


MACHINES = """
import dataclasses, os, signal, sys
import train_gpt2
from gpt2.settings import parse_command
rank = os.environ["RANK"]

def callback(record, model):
    if record["step"] == 3 and rank == os.environ.get("DIES"):
        os.kill(os.getpid(), signal.SIGKILL)
    if record["step"] == 2 and rank == os.environ.get("STOPS"):
        os.kill(os.getpid(), signal.SIGTERM)

c = parse_command(sys.argv[1:])[0]
c = dataclasses.replace(c, out_dir=c.out_dir + rank, lr=c.lr * (2 if rank == os.environ.get("OTHER") else 1))
try:
    train_gpt2.train(c, callback=callback)
except train_gpt2.TrainError as error:
    sys.exit(f"{rank}: {error}")
"""


@pytest.fixture
def machines(folder, tmp_path, monkeypatch):
    """Start two processes, as on two machines, each with a folder of its own; the first one's folder is
    returned."""
    (tmp_path / "machines.py").write_text(MACHINES)

    def run(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        command = flags(folder, tmp_path / "node", *"--resume auto --dropout 0.1 --save-every 3".split())
        return torchrun(2, str(tmp_path / "machines.py"), *command), tmp_path / "node0"

    return run


def test_two_machines_resume(machines):
    """Node 0 restored, node 1 began anew, and the farewell was that of a good run with a wrong model.

    last.pt is cut off too: each process moved it away, and the second died of its absence. And two processes
    that drop out the same activations would have the same generator.
    """
    done, first = machines()
    assert done.returncode == 0, done.stderr
    before = losses(first)
    saved = torch.load(first / "last.pt", weights_only=True)
    assert saved["step"] == 8 and not torch.equal(*(state["cpu"] for state in saved["rng"]))
    (first / "last.pt").write_bytes(b"cut off")
    done, first = machines()
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("damaged") == 1 and "going on after step 6" in done.stdout
    assert losses(first) == before
    again = torch.load(first / "last.pt", weights_only=True)
    assert all(torch.equal(again["model"][name], saved["model"][name]) for name in saved["model"])


def test_machines_with_other_settings_are_told(machines):
    """A command typed differently on the second machine: a model between two runs."""
    done, _ = machines(OTHER="1")
    assert done.returncode != 0
    assert "Process 1 was started with another set of settings than process 0" in done.stderr


def test_a_dead_process_ends_the_run(machines):
    """The others wait for its gradients for ever, and the card is paid for all night."""
    done, _ = machines(DIES="1")
    assert done.returncode != 0
    assert "0: Process 0 lost the others after step 3" in done.stderr


def test_a_signal_before_the_first_validation(machines):
    """One of two processes is asked to stop while no model has been validated: no traceback, nothing lost."""
    done, first = machines(STOPS="1")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert torch.load(first / "last.pt", weights_only=True)["step"] == 3 and not (first / "best").exists()
    done, first = machines(STOPS="none")
    assert done.returncode == 0 and len(losses(first)) == 10


def test_processes_that_do_not_find_one_another(monkeypatch):
    """WORLD_SIZE without torchrun, or a machine that is not there: a traceback of torch's rendezvous."""
    for name, value in dict(WORLD_SIZE="2", RANK="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="no port").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainError, match="Process 1 does not reach the others .*torchrun") as error:
        train(TrainConfig.preset_of("quick", device="cpu"))
    assert "\n" not in str(error.value)


def test_uneven_shares_are_refused():
    """Sequences that fall under the table because three processes cannot share sixteen."""
    c = TrainConfig.preset_of("quick")
    with pytest.raises(TrainError, match="3 processes"):
        pick_micro_batch(c, None, torch.float32, torch.device("cpu"), world=3)
