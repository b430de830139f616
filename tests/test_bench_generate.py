"""bench/generate.py: the turns, the ratios, the bins and the loss are what they are called."""

import json

import pytest
import torch

from bench import generate
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import evaluate


def turns(**rates):
    return {name: [{"tok_s": r, "first_ms": 10.0, "sweep_ms": 5.0, "read_ms": 4.0, "peak": 300.0} for r in values]
            for name, values in rates.items()}


def test_ratios_are_taken_within_a_turn():
    """On a machine that slows down for all, a ratio of medians from different turns would lie."""
    made = turns(ours=[100, 50, 120], theirs=[50, 25, 40], plain=[4, 2, 4])
    made = {"int8": made["ours"], "transformers, fp32": made["theirs"], "no cache, fp32": made["plain"]}
    made["transformers, bf16"] = turns(x=[10, 30, 10])["x"]
    ready = {"libraries_mb": 200.0, "making_mb": 400.0}
    rows = [generate.row(v, ready, made[v]) for v in made]
    generate.compare(rows, made)
    low = pytest.approx(50 / 30, abs=1e-3)
    assert rows[0]["times_transformers"] == {"median": 2.0, "low": low, "high": 3.0, "n": 3}
    assert rows[0]["times_no_cache"] == {"median": 25.0, "low": 25.0, "high": 30.0, "n": 3}
    assert rows[0]["share_of_sweep"]["median"] == 0.5 and rows[0]["share_of_read"]["median"] == 0.4
    assert rows[0]["memory_mb"]["peak_writing"] == 300
    assert "50%" in generate.table(rows).splitlines()[1]


def test_bins_follow_the_length_of_the_text():
    """Off by the prompt, the step in which the window moves lands in the wrong bin, or outside the cycle."""
    context = 256
    n = context * 3 // 2 - generate.PROMPT
    move = context + 1 - generate.PROMPT  # the prompt and this many new ids are one more than the context
    run = [1.0] * n
    run[move] = 129.0
    found = {(b["from"], b["to"]): b["mean_ms"]["median"] for b in generate.bins([run], 32)}
    assert found[224, 256] == 1.0 and found[256, 288] == 5.0 and list(found)[-1] == (352, 384)
    flat = generate.flatness([run], context)
    assert flat["up_to_context_ms"]["median"] == 1.0 and flat["move_ms"]["median"] == 129.0
    assert flat["past_context_ms"]["median"] == pytest.approx(1 + 128 / len(run[move:move + 128]), abs=1e-3)


def test_the_move_is_where_the_bench_thinks_it_is(monkeypatch):
    """If the rule of the window changed, the costly step would be counted elsewhere."""
    model, lengths = GPT(GPTConfig(32, 65, 1, 1, 8)).eval(), []
    trunk = GPT.hidden

    def spy(self, idx, cache=None):
        lengths.append(idx.size(1))
        return trunk(self, idx, cache)

    monkeypatch.setattr(GPT, "hidden", spy)
    model.generate(generate.prompt_ids(16), 40, seed=0)
    assert lengths.index(16, 1) == 32 + 1 - generate.PROMPT and set(lengths[1:17]) == {1}


@pytest.mark.parametrize("n", [97, 96])
def test_both_losses_are_the_exact_loss(n):
    """A target counted twice, a window's edge lost, a mean of means: each moves the figure that int8 is judged by."""
    torch.manual_seed(0)
    model, ids = GPT(GPTConfig(16, 65, 2, 2, 16)).eval(), torch.randint(0, 65, (n,))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    want = evaluate(model, ids)
    assert generate.loss_as_written(model, ids, batch=4) == pytest.approx(want, abs=1e-5)
    assert generate.loss_as_read(model, ids, batch=4) == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("variant, matrices", [("int8", 9), ("bf16", 9), ("fp32", 9)])
def test_the_limit_covers_every_matrix(variant, matrices):
    """A limit that misses a class of layers is too high, and the share of it too low."""
    subject = generate.Ours(variant, generate.TINY)
    assert len(subject.linears) == matrices  # 4 in each of 2 blocks, and the head
    sweep, read = generate.limits(subject, generate.VARIANTS[variant])
    assert sweep > 0 and read > 0
    assert sum(r * c for r, c in map(generate.matrix_shape, subject.linears)) == 2 * 12 * 32 * 32 + 65 * 32


def test_it_runs_without_transformers(tmp_path, monkeypatch, capsys):
    """Who has only torch gets the other rows and one sentence, and the file says what was measured."""
    monkeypatch.setattr(generate, "VARIANTS", {v: generate.VARIANTS[v] for v in
                                               ("int8", "no cache, fp32", "transformers, fp32")})
    monkeypatch.setattr(generate.importlib.util, "find_spec", lambda name: None)
    generate.speed(tmp_path, quick=True, repeats=1)
    said, kept = capsys.readouterr().out, json.loads((tmp_path / "generate.json").read_text())
    assert "transformers is not installed" in said
    assert [r["variant"] for r in kept["rows"]] == ["int8", "no cache, fp32"]
    assert kept["config"]["quick"] and kept["rows"][0]["tok_s"]["median"] > 0
    assert "times_transformers" not in kept["rows"][0]


def test_a_worker_that_dies_is_one_sentence():
    """Out of memory in one process must not become a JSON traceback in another, or a wait without end."""
    worker = generate.Worker("no such variant", quick=True)
    with pytest.raises(SystemExit, match="no such variant ended early: .*invalid choice"):
        worker.read()
    worker.process.communicate()
