"""gpt2/plan.py: the formulas against what torch really builds and keeps."""

import re
import sys

import pytest
import torch

import gpt2.corpus
import train_gpt2
from gpt2 import plan
from gpt2.plan import card_peak, count_params, flops_per_token, memory_plan, model_config
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import TrainConfig, make_optimizers


@pytest.mark.parametrize("changes", [{}, {"tie_weights": False}, {"bias": False},
                                     {"bias": False, "tie_weights": False}])
def test_parameters_by_formula(changes):
    """A forgotten bias, or a tied head counted twice."""
    g = GPTConfig(block_size=24, vocab_size=31, n_layer=3, n_head=2, n_embd=16, **changes)
    model = GPT(g)
    matrices = sum(p.numel() for n, p in model.named_parameters() if ".h." in n and p.dim() == 2)
    assert count_params(g) == (model.num_params(), matrices)


def test_the_presets_have_the_sizes_they_promise():
    """A preset that is no longer GPT-2's shape."""
    char, bpe = TrainConfig.preset_of("gpt2-char"), TrainConfig.preset_of("gpt2-bpe")
    assert count_params(model_config(char, 65))[0] == 85_892_352
    assert count_params(model_config(TrainConfig.preset_of("gpt2-char", tie_weights=False),
                                     65))[0] == 85_942_272
    assert count_params(model_config(bpe, 50257))[0] == 124_475_904
    assert model_config(bpe, 50257).vocab_size == 50304 and model_config(char, 65).vocab_size == 65


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
@pytest.mark.parametrize("shape", [dict(n_layer=2, vocab_size=65), dict(n_layer=6, vocab_size=65),
                                   dict(n_layer=2, vocab_size=4096)])
def test_memory_by_formula(dtype, shape):
    """A plan that is wrong by a third: a batch that 'fits' and dies, or a card half used."""
    g = GPTConfig(block_size=64, n_head=4, n_embd=64, **shape)
    model = GPT(g)
    x = torch.zeros(8, 64, dtype=torch.long)
    plan, scores = memory_plan(g, 8, dtype), x.numel() * g.vocab_size * 4
    # on a CPU; see memory_plan
    patterns = 2 * g.n_layer * 8 * g.n_head * 64 * 64 if dtype == torch.bfloat16 else 0
    assert plan["activations"] + scores + patterns == pytest.approx(kept_for_backward(model, x, dtype),
                                                                    rel=0.1)
    assert plan["logits"] >= 2 * scores  # at its peak, the backward pass holds them and their gradient


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_moments_by_formula(kind):
    """Muon keeps one number a weight where AdamW keeps two."""
    g = GPTConfig(block_size=16, vocab_size=65, n_layer=2, n_head=2, n_embd=32)
    model = GPT(g)
    x = torch.zeros(1, 16, dtype=torch.long)
    model(x, x)[1].backward()
    optimizers = make_optimizers(model, TrainConfig.preset_of("quick", optimizer=kind), torch.float32)
    for optimizer in optimizers:
        optimizer.step()
    kept = sum(t.numel() * 4 for o in optimizers for s in o.state.values() for t in s.values()
               if torch.is_tensor(t) and t.dim() > 0)
    assert kept == memory_plan(g, 1, torch.float32, kind)["moments"]


def test_arithmetic_by_formula():
    """6 N D that forgets attention or counts the tables: an MFU that flatters."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode
    g = GPTConfig(block_size=64, vocab_size=65, n_layer=3, n_head=4, n_embd=64)
    model = GPT(g)
    x = torch.zeros(2, 64, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # the one whose attention the counter sees
        model(x, x)[1].backward()
    assert 2 * 64 * flops_per_token(g) == pytest.approx(counter.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("name, half", [("Tesla T4", 65), ("NVIDIA A100-SXM4-40GB", 312),
                                        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756),
                                        ("NVIDIA L4", 121),
                                        ("NVIDIA L40S", 362),
                                        ("Tesla P100-PCIE-16GB", 18.7), ("NVIDIA T400", None),
                                        ("GeForce 256", None)])
def test_peak_is_the_cards_own(monkeypatch, name, half):
    """MFU against the wrong card: an L40S taken for an L4, or a number for a card nobody has looked up."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: name)
    assert card_peak(torch.device("cuda"), torch.float16) == (half and half * 1e12)
    assert card_peak(torch.device("cpu"), torch.float32) is None


def test_plan_and_summary_from_the_command_line(monkeypatch, capsys):
    """--plan that loads the text, trains, or prints a size that the model does not have."""
    monkeypatch.setattr(gpt2.corpus, "load_text", lambda *_, **__: pytest.fail("loaded the text"))
    assert train_gpt2.main(["--preset", "quick", "--plan", "--summary"]) == 0
    out, size = capsys.readouterr().out, GPT(model_config(TrainConfig.preset_of("quick"), 65)).num_params()
    assert f"parameters: {size:,}" in out and re.search(r"together +[\d,.]+ MB", out)
    pytest.importorskip("torchinfo")
    assert "CausalSelfAttention" in out


def test_an_evaluation_stays_small(monkeypatch):
    """16,384 tokens at once are 6.5 GB of logits at 50,304 entries, which no plan knew."""
    assert plan.eval_batch(GPTConfig(128, 65)) == 128 and plan.eval_batch(GPTConfig()) == 1
    model = GPT(GPTConfig(8, 4096, 1, 1, 8))
    rows = []
    model.lm_head.register_forward_hook(lambda module, args, logits: rows.append(logits.numel()))
    train_gpt2.evaluate(model, torch.zeros(20_000, dtype=torch.long))
    assert 0.9 * plan.EVAL_BYTES < 8 * max(rows) <= plan.EVAL_BYTES


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


def test_summary_without_torchinfo(monkeypatch):
    """An ImportError where a package is only for show."""
    monkeypatch.setitem(sys.modules, "torchinfo", None)
    assert "pip install torchinfo" in plan.summary_text(None)
