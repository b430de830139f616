"""A GPU reader of gpt2_training.ipynb, on a pretended card: twelve layers of 768, true devices.

Fake tensors have shapes, types and devices, but no numbers, and torch refuses to mix their devices as a card
would. What a cell computes is counted, so that no cell keeps the reader of a T4 waiting.
"""

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import train_gpt2
from gpt2.teacher import teacher_table
from lab import claims, climb, reading
from lab.ladder import Ladder
from lab.notebook import read
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import TrainConfig, make_optimizers, model_config, optimizer_step

CARD = torch.device("cuda")
FP32 = 0.5 * 8.1e12  # FLOP/s: half of a T4's peak in fp32, which is what reading a model uses
FP16 = climb.SHARE * climb.T4
CALL = 20e-6  # seconds that a slow processor needs to start one operation on the card
MOST = 120  # seconds for a cell after the run
AFTER = ("five", "long", "twelve-plan", "twelve-run", "maps", "position", "name", "twice", "pack", "keep")


class Answers(TorchDispatchMode):
    """Where Python asks a fake tensor for its number, it gets 1; every operation is counted."""

    calls = 0

    def __torch_dispatch__(self, func, kinds, args=(), kwargs=None):
        self.calls += 1
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
            whole = func is torch.ops.aten._local_scalar_dense.default and not args[0].dtype.is_floating_point
            return 0 if whole and args[0].dtype != torch.bool else 1.0
        return func(*args, **(kwargs or {}))


@pytest.fixture
def card(monkeypatch):
    """Everything inside is fake and counted: yields (operations, calls so far) as a function."""
    def zeros(tensor):
        assert tensor.device.type == "cpu", "a card's tensor cannot become an array: .cpu() is missing"
        return np.zeros(tensor.shape)

    monkeypatch.setattr(torch.Tensor, "numpy", zeros)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: np.zeros(tensor.shape).tolist())
    dice = types.SimpleNamespace(manual_seed=lambda seed: None)
    monkeypatch.setattr(torch, "Generator", lambda device=None: dice)
    counter, answers = FlopCounterMode(display=False), Answers()
    with FakeTensorMode(allow_non_fake_inputs=True), counter, answers:
        yield lambda: (counter.get_total_flops(), answers.calls)


def shape(vocab_size=65):
    return GPTConfig(1024, vocab_size, n_layer=12, n_head=12, n_embd=768)


def test_the_card_refuses_what_a_card_refuses(card):
    """A pretended card on which everything works would prove nothing."""
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device=CARD) + torch.ones(3)
    with pytest.raises(AssertionError, match="cpu"):
        torch.ones(3, device=CARD).numpy()


# ---- the climb itself, a step of each stage


def climb_configs():
    """The notebook's two stages, as its own cell makes them."""
    seed = TrainConfig.preset_of("gpt2-seed", precision="fp16")
    return {"a small model": seed, "twelve layers": TrainConfig.preset_of("gpt2-char", precision="fp16")}


@pytest.mark.parametrize("stage", climb_configs())
def test_a_step_of_the_climb(stage, card, monkeypatch, shakespeare):
    """Catches a batch, a teacher or an optimizer's memory left on the processor, a flattering projection."""
    c = climb_configs()[stage]
    small = model_config(climb_configs()["a small model"], 65)
    run = train_gpt2.Run(c, shakespeare, CARD, dtype=torch.float16)
    run.scaler = torch.amp.GradScaler("cuda", enabled=False)
    run.raw = run.model = GPT(model_config(c, 65)).to(CARD)
    if c.freeze_matrices:
        for p in run.raw.parameters():
            p.requires_grad_(p.dim() < 2)
        run.expected = torch.full((len(shakespeare.train), 65), 1 / 65, dtype=torch.float16)
        part = teacher_table([GPT(small).to(CARD) for _ in range(4)], shakespeare.train[:3000], CARD)
        assert part.shape == (3000, 65) and part.device.type == "cpu"
    run.micro, run.optimizers = c.batch_size, make_optimizers(run.raw, c, run.dtype)
    run.progress.step, run.progress.window = c.max_steps - 1, c.block_size  # the longest windows
    before = card()[0]
    batches = train_gpt2.next_batches(run)
    loss, norm, moved = optimizer_step(run.model, run.optimizers, run.scaler, batches, run.dtype)
    flop = card()[0] - before
    assert moved and loss.device == norm.device == CARD
    seeds = [climb_configs()["a small model"]] * 4
    whole = climb.operations(seeds, climb_configs()["twelve layers"], shakespeare)
    steps = {"a small model": 4 * c.max_steps, "twelve layers": c.max_steps}[stage]
    assert 0.3 * flop * steps < whole  # a stage alone is not far more than what is projected for all


# ---- after the run


def few_letters(monkeypatch, card, spared):
    """Let generate write eight letters for real and reckon the rest, which costs as much a letter."""
    real = GPT.generate

    def generate(self, idx, n, *args, **more):
        flop, calls = card()
        out = real(self, idx, min(n, 8), *args, **more)
        rest = max(0, n - 8) / 8
        spared[0] += 1.25 * rest * (card()[0] - flop)  # a longer past costs a little more
        spared[1] += rest * (card()[1] - calls)
        return torch.cat([out, out.new_zeros(len(out), max(0, n - 8))], dim=1)

    monkeypatch.setattr(GPT, "generate", generate)


@pytest.fixture
def kernel(monkeypatch, tmp_path, shakespeare):
    """The names that the notebook's first cells leave, before anything is fake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(claims._corpus, "name", "a pretended card")  # whose zeros nothing is claimed of
    monkeypatch.setattr(climb, "choose_precision", lambda config, device: (torch.float16, True, "a T4"))
    monkeypatch.setattr("gpt2.plan.free_memory", lambda device: 15e9)
    monkeypatch.setattr(reading, "random_string", lambda corpus, n, seed=0: torch.zeros(n, dtype=torch.long))
    space = {"__name__": "notebook", "corpus": shakespeare, "device": CARD, "precision": "fp16", "QUICK": False,
             "out_dir": "small", "small": TrainConfig.preset_of("cpu", out_dir="small"), "copy_to": "",
             "five_gram": types.SimpleNamespace(losses=lambda ids: np.zeros(len(ids) - 1)),
             "marks": [2.0] * 5, "ladder": Ladder([2.0])}
    cell = next(c for c in read(ROOT / "gpt2_training.ipynb").cells if c.id == "imports")
    exec("\n".join(line for line in cell.source.splitlines() if line.startswith(("import", "from"))), space)
    space.update(show=lambda *a: None, budget=lambda full, quick: full, train=trained, QUICK=False)
    return space


def trained(config, corpus, callback=None):
    """What a run leaves, without the run."""
    best = Path(config.out_dir, "best")
    best.mkdir(parents=True)
    for path in (best / "model.safetensors", best / "config.json", best.with_name("last.pt")):
        path.touch()
    return types.SimpleNamespace(progress=types.SimpleNamespace(best_loss=1.0))


def load(folder):
    """What from_pretrained would find: the twelve layers, or the small model of the CPU run."""
    small = GPTConfig(128, 65, n_layer=3, n_head=4, n_embd=128)
    return GPT(small if "small" in str(folder) else shape()).eval()


def save(model, folder, **more):
    Path(folder, "model.safetensors").touch()


def test_no_cell_after_the_run_keeps_a_t4_waiting(kernel, card, monkeypatch, capsys):
    """Catches a model left on the processor, an array made of a card's tensor, a cell that takes minutes."""
    spared, rows = [0, 0], {}
    few_letters(monkeypatch, card, spared)
    monkeypatch.setattr(GPT, "from_pretrained", classmethod(lambda cls, folder: load(folder)))
    monkeypatch.setattr(GPT, "save_pretrained", save)
    sources = {cell.id: cell.source for cell in read(ROOT / "gpt2_training.ipynb").cells}
    for name in AFTER:
        before = [a + b for a, b in zip(card(), spared, strict=True)]
        exec(sources[name], kernel)
        flop, calls = (a + b - c for a, b, c in zip(card(), spared, before, strict=True))
        rows[name] = flop / FP32 + calls * CALL
        with capsys.disabled():
            print(f"{name:>10}: {flop / 1e12:8.2f} TFLOP, {calls:9,.0f} calls, "
                  f"{rows[name]:6.1f} s projected for a T4")
    weight = kernel["best"].lm_head.weight
    assert weight.device.type == "cuda" and isinstance(weight, FakeTensor)
    assert len(kernel["best"].transformer.h) == 12 and "12 layers" in kernel["facts"]
    assert 5 < max(rows.values()) < MOST, rows
