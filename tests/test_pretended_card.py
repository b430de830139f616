"""A GPU reader of gpt2_training.ipynb, on a pretended card: twelve layers of 768, true devices.

Fake tensors have shapes, types and devices, but no numbers, and torch refuses to mix their devices as a card
would. What a cell computes is counted, so that no cell keeps the reader of a T4 waiting.
"""

import contextlib
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
from lab import claims, climb, reading
from lab.ladder import Ladder
from lab.notebook import read
from model_gpt2 import GPT, GPTConfig
from train_gpt2 import TrainConfig, make_optimizers, model_config

CARD = torch.device("meta")  # the one device beside the CPU that every build of torch can name
FP32 = 0.5 * 8.1e12  # FLOP/s: half of a T4's peak in fp32, which is what reading a model uses
CALL = 20e-6  # seconds that a slow processor needs to start one operation on the card
MOST = 120  # seconds for a cell after the run
AFTER = ("five", "long", "twelve-plan", "twelve-run", "maps", "position", "name", "twice", "pack", "keep")


class Calls(TorchDispatchMode):
    """Every operation is counted: a card waits until Python has started it."""

    count = 0

    def __torch_dispatch__(self, func, kinds, args=(), kwargs=None):
        self.count += 1
        if func is torch.ops.aten._local_scalar_dense.default:
            return number(args[0])
        return func(*args, **(kwargs or {}))


def number(tensor):
    """Where Python asks a fake tensor for its number: an id or a count is 0, anything else 1."""
    return 1.0 if tensor.is_floating_point() else int(tensor.dtype == torch.bool)


class Dice:
    """A generator of a card that is not here."""

    def __init__(self, device=None):
        pass

    def manual_seed(self, seed):
        return None


def moved(module, device):
    """Module.to for fake parameters, which torch's own cannot swap; one table for two stays one."""
    new = {}
    for part in module.modules():
        for name, p in part._parameters.items():
            if p is not None:
                new.setdefault(p, torch.nn.Parameter(p.detach().to(device), p.requires_grad))
                part._parameters[name] = new[p]
    return module


@pytest.fixture
def card(monkeypatch):
    """Everything inside is fake and counted: yields (operations, calls so far) as a function."""
    def zeros(tensor):
        assert tensor.device.type == "cpu", "a card's tensor cannot become an array: .cpu() is missing"
        return np.zeros(tensor.shape)

    for name, answer in (("item", number), ("__int__", lambda t: 0), ("__bool__", lambda t: True)):
        monkeypatch.setattr(torch.Tensor, name, answer)
    monkeypatch.setattr(torch.Tensor, "numpy", zeros)
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: np.full(t.shape, number(t)).tolist())
    monkeypatch.setattr(torch, "Generator", Dice)
    monkeypatch.setattr(torch, "autocast", lambda *kind, **more: contextlib.nullcontext())
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    counter, calls = FlopCounterMode(display=False), Calls()
    # without gradients: a torch that has no CUDA dies of a backward on a fake card
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True), counter, calls:
        yield lambda: (counter.get_total_flops(), calls.count)


def shape(vocab_size=65):
    return GPTConfig(1024, vocab_size, n_layer=12, n_head=12, n_embd=768)


# ---- the climb itself, a step of each stage


def climb_configs():
    """The notebook's two stages."""
    presets = {"a small model": "gpt2-seed", "twelve layers": "gpt2-char"}
    made = {stage: TrainConfig.preset_of(preset, precision="fp16") for stage, preset in presets.items()}
    made["twelve layers"].grow_from = "the four"
    return made


@pytest.mark.parametrize("stage", climb_configs())
def test_a_step_of_the_climb(stage, card, shakespeare):
    """Catches a batch or an optimizer's memory left on the processor, a flattering projection."""
    seed, large = climb_configs().values()
    c = climb_configs()[stage]
    run = train_gpt2.Run(c, shakespeare, CARD, rank=0, world=1, began=0.0)
    run.dtype = torch.float16
    run.raw = run.model = GPT(model_config(c, 65)).to(CARD)
    if c.freeze_matrices:
        train_gpt2.freeze_matrices(run.raw, c.grow_from)
        run.expected = torch.full((len(shakespeare.train), 65), 1 / 65, dtype=torch.float16)
    run.micro, run.optimizers = c.batch_size, make_optimizers(run.raw, c, run.dtype)
    run.progress.step, run.progress.window = c.max_steps - 1, c.block_size  # the longest windows
    before = card()[0]
    for x, y in train_gpt2.next_batches(run):
        loss = run.raw(x, y)[1] if y.dim() == 2 else train_gpt2.soft_loss(run.raw, x, y)
    step = 3 * (card()[0] - before)  # backward costs twice what forward does
    learned = [p for p in run.raw.parameters() if p.requires_grad]
    for p in learned:
        p.grad = torch.zeros_like(p)
    norm = torch.nn.utils.clip_grad_norm_(learned, c.grad_clip)
    for optimizer in run.optimizers:
        optimizer.step()
    states = [value for o in run.optimizers for state in o.state.values() for value in state.values()]
    memory = [value for value in states if value.dim()]  # AdamW counts its steps on the processor
    assert {loss.device, norm.device, *(m.device for m in memory)} == {CARD}
    runs = 4 if stage == "a small model" else 1
    assert step * c.max_steps * runs < 1.05 * climb.operations([seed] * 4, large, shakespeare)


# ---- after the run


def spare(monkeypatch, card, spared):
    """Four letters are written for real, a part of the windows and strings is read; the rest is reckoned."""
    real_generate, real_losses = GPT.generate, reading.losses_by_position
    real_shares, real_twice = reading.head_shares, reading.twice_losses

    def reckoned(work, rest, more=1.0):
        flop, calls = card()
        out = work()
        spared[0] += more * rest * (card()[0] - flop)
        spared[1] += rest * (card()[1] - calls)
        return out

    def generate(self, idx, n, *args, **kwargs):
        rest = max(0, n - 4)  # whose past is longer, which costs a little more
        out = reckoned(lambda: real_generate(self, idx, min(n, 4), *args, **kwargs), rest / 4, 1.25)
        return torch.cat([out, out.new_zeros(len(out), rest)], dim=1)

    def losses_by_position(model, ids, windows):
        return reckoned(lambda: real_losses(model, ids, windows // 60), 59)

    monkeypatch.setattr(GPT, "generate", generate)
    monkeypatch.setattr(reading, "losses_by_position", losses_by_position)
    monkeypatch.setattr(reading, "head_shares", lambda *a: reckoned(lambda: real_shares(*a, windows=2), 7))
    monkeypatch.setattr(reading, "twice_losses", lambda *a: reckoned(lambda: real_twice(*a, strings=1), 7))


@pytest.fixture
def kernel(monkeypatch, tmp_path, shakespeare):
    """The names that the notebook's first cells leave, before anything is fake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(claims._corpus, "name", "a pretended card")  # whose zeros nothing is claimed of
    monkeypatch.setattr(climb, "choose_precision", lambda config, device: (torch.float16, True, "a T4"))
    monkeypatch.setattr("gpt2.plan.free_memory", lambda device: 15e9)
    monkeypatch.setattr(reading, "random_string", lambda corpus, n, seed=0: torch.zeros(n, dtype=torch.long))
    space = {"__name__": "notebook", "corpus": shakespeare, "device": CARD, "precision": "fp16",
             "QUICK": False, "out_dir": "small", "small": TrainConfig.preset_of("cpu", out_dir="small"),
             "copy_to": "", "five_gram": types.SimpleNamespace(losses=lambda ids: np.zeros(len(ids) - 1)),
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
    spare(monkeypatch, card, spared)
    monkeypatch.setattr(GPT, "from_pretrained", classmethod(lambda cls, folder: load(folder)))
    monkeypatch.setattr(GPT, "save_pretrained", save)
    sources = {cell.id: cell.source for cell in read(ROOT / "gpt2_training.ipynb").cells}
    for name in AFTER:
        before = [a + b for a, b in zip(card(), spared, strict=True)]
        kernel["device"] = types.SimpleNamespace(type="cuda") if name == "twelve-plan" else CARD
        exec(sources[name], kernel)
        flop, calls = (a + b - c for a, b, c in zip(card(), spared, before, strict=True))
        rows[name] = flop / FP32 + calls * CALL
        with capsys.disabled():
            print(f"{name:>10}: {flop / 1e12:8.2f} TFLOP, {calls:9,.0f} calls, "
                  f"{rows[name]:6.1f} s projected for a T4")
    weight = kernel["best"].lm_head.weight
    assert weight.device == CARD and isinstance(weight, FakeTensor)
    assert len(kernel["best"].transformer.h) == 12 and "12 layers" in kernel["facts"]
    assert 5 < max(rows.values()) < MOST, rows
