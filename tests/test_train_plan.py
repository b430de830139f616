"""gpt2/plan.py: the formulas against what torch really builds and keeps."""

import re

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import gpt2.corpus
import train_gpt2
from gpt2 import plan
from gpt2.plan import count_params, flops_per_token, memory_plan, model_config
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import TrainConfig, make_optimizers


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tie", [True, False])
def test_parameters_by_formula(bias, tie):
    """A forgotten bias, or a tied head counted twice."""
    g = GPTConfig(24, 31, n_layer=3, n_head=2, n_embd=16, bias=bias, tie_weights=tie)
    model = GPT(g)
    matrices = sum(p.numel() for n, p in model.named_parameters() if ".h." in n and p.dim() == 2)
    assert count_params(g) == (model.num_params(), matrices)


@pytest.mark.parametrize("preset, changes, tokens, rows, size", [
    ("gpt2-char", {}, 65, 65, 85_892_352), ("gpt2-char", dict(tie_weights=False), 65, 65, 85_942_272),
    ("gpt2-bpe", {}, 50257, 50304, 124_475_904)])
def test_the_presets_have_the_sizes_they_promise(preset, changes, tokens, rows, size):
    """A preset that is no longer GPT-2's shape."""
    g = model_config(TrainConfig.preset_of(preset, **changes), tokens)
    assert count_params(g)[0] == size and g.vocab_size == rows


def kept_for_backward(model, x, dtype):
    """Bytes that autograd keeps between forward and backward, weights not counted, each storage once."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(t):
        # held, or its address is used again
        kept[t.untyped_storage().data_ptr()] = (t.untyped_storage().nbytes(), t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = model(x, x)[1]
    loss.backward()
    return sum(size for at, (size, _) in kept.items() if at not in own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n_layer, vocab_size", [(2, 65), (6, 65), (2, 4096)])
def test_memory_by_formula(dtype, n_layer, vocab_size):
    """A plan that is wrong by a third: a batch that 'fits' and dies, or a card half used."""
    g = GPTConfig(64, vocab_size, n_layer, n_head=4, n_embd=64)
    x = torch.zeros(8, 64, dtype=torch.long)
    plan, scores = memory_plan(g, 8, dtype), x.numel() * g.vocab_size * 4
    # on a CPU; see memory_plan
    patterns = 2 * g.n_layer * 8 * g.n_head * 64 * 64 if dtype == torch.bfloat16 else 0
    kept = kept_for_backward(GPT(g), x, dtype)
    assert plan["activations"] + scores + patterns == pytest.approx(kept, rel=0.1)
    assert plan["logits"] >= 2 * scores  # at its peak, the backward pass holds them and their gradient


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_moments_by_formula(kind):
    """Muon keeps one number a weight where AdamW keeps two."""
    g = GPTConfig(block_size=16, vocab_size=65, n_layer=2, n_head=2, n_embd=32)
    model, x = GPT(g), torch.zeros(1, 16, dtype=torch.long)
    model(x, x)[1].backward()
    optimizers = make_optimizers(model, TrainConfig.preset_of("quick", optimizer=kind), torch.float32)
    for optimizer in optimizers:
        optimizer.step()
    kept = sum(t.numel() * 4 for o in optimizers for s in o.state.values() for t in s.values()
               if torch.is_tensor(t) and t.dim() > 0)
    assert kept == memory_plan(g, 1, torch.float32, kind)["moments"]


def test_arithmetic_by_formula():
    """6 N D that forgets attention or counts the tables: an MFU that flatters."""
    g = GPTConfig(block_size=64, vocab_size=65, n_layer=3, n_head=4, n_embd=64)
    x, counter = torch.zeros(2, 64, dtype=torch.long), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the one whose attention the counter sees
        GPT(g)(x, x)[1].backward()
    assert 2 * 64 * flops_per_token(g) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_plan_from_the_command_line(monkeypatch, capsys):
    """--plan that loads the text, trains, or prints a size that the model does not have."""
    monkeypatch.setattr(gpt2.corpus, "load_text", lambda *_, **__: pytest.fail("loaded the text"))
    assert train_gpt2.main(["--preset", "quick", "--plan"]) == 0
    out, size = capsys.readouterr().out, GPT(model_config(TrainConfig.preset_of("quick"), 65)).num_params()
    assert f"parameters: {size:,}" in out and re.search(r"together +[\d,.]+ MB", out)


def test_an_evaluation_stays_small():
    """16,384 tokens at once are 6.5 GB of logits at 50,304 entries, which no plan knew."""
    assert plan.eval_batch(GPTConfig(128, 65)) == 128 and plan.eval_batch(GPTConfig()) == 1
    for context, rows in ((8, 4096), (128, 50304)):
        bytes_at_once = 8 * rows * context * plan.eval_batch(GPTConfig(context, rows))
        assert 0.7 * plan.EVAL_BYTES < bytes_at_once <= plan.EVAL_BYTES


def test_the_trial_of_auto_is_not_measured(monkeypatch):
    """The probe's memory, left in the peak that the run reports as its own."""
    asked = []
    monkeypatch.setattr(plan, "try_micro_batch", lambda model, micro, *_: asked.append(micro))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**12, 10**12))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append("reset"))
    c = TrainConfig.preset_of("quick", batch_size="auto")
    assert plan.pick_micro_batch(c, GPT(model_config(c, 65)), torch.float32, torch.device("cuda")) == 16
    assert asked == [16, "reset"]
