"""train_gpt2: precision, schedule, the step, exact loss, the loop."""

import json
import math
import os
import re
import types

import numpy as np
import pytest
import torch

import train_gpt2
from data.batches import get_batch, shuffled_batch
from data.corpus import corpus_from_text
from data.ngram import NGram
from data.tokenizer import BPETokenizer
from gpt2 import device, plan
from gpt2.best import accuracy, ngram_accuracy
from model_gpt2 import GPT, GPTConfig
from tests import runs
from tests.runs import CORPUS, raising, words
from train_gpt2 import TrainConfig, TrainError, evaluate, lr_at, micro_batches, optimizer_step

CPU = torch.device("cpu")


def run(callback=None, corpus=CORPUS, **changes):
    """Without a folder, without dropout."""
    settings = dict(folder=changes.pop("out_dir", ""), optimizer="adamw", lr=1e-2, dropout=0.0, resume="no")
    return runs.run(callback=callback, corpus=corpus, **{**settings, **changes})


def small_model(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(GPTConfig(**{**dict(block_size=16, vocab_size=11, n_layer=2, n_head=2, n_embd=16), **changes}))


def batch(n=8, T=16, V=11, seed=0):
    ids = torch.randint(V, (n, T + 1), generator=torch.Generator().manual_seed(seed))
    return ids[:, :-1], ids[:, 1:]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


# ---- precision


@pytest.fixture
def card(monkeypatch):
    """Pretend that a card of some compute capability is there."""
    def pretend(major, minor, kernels=True):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (major, minor))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "some card")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(device, "matmul_works", lambda device: kernels)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a: pytest.fail("it says True on a T4"))
        device.best_device.cache_clear()
    yield pretend
    device.best_device.cache_clear()


@pytest.mark.parametrize("capability, dtype, scaler", [
    ((6, 0), torch.float32, False), ((7, 0), torch.float16, True), ((7, 5), torch.float16, True),
    ((8, 0), torch.bfloat16, False), ((9, 0), torch.bfloat16, False)])
def test_precision_by_capability(card, capability, dtype, scaler):
    """A T4 that is given emulated bf16 (ten times slower), or fp16 without a scaler (gradients of zero)."""
    card(*capability)
    got, use_scaler, reason = train_gpt2.pick_precision("cuda")
    assert (got, use_scaler) == (dtype, scaler)
    assert f"{capability[0]}.{capability[1]}" in reason
    assert train_gpt2.pick_device() == torch.device("cuda", 0)


def test_a_card_without_kernels_is_passed_over(card, capsys):
    """Kaggle's P100 is there, and the first operation dies: going on by CPU. Asked for by name, an error."""
    card(6, 0, kernels=False)
    assert train_gpt2.pick_device() == train_gpt2.pick_device("auto") == CPU
    assert capsys.readouterr().out.count("no kernels for the card (some card): going on by CPU") == 1
    assert train_gpt2.pick_device("cuda") == torch.device("cuda", 0)
    with pytest.raises(TrainError, match="T4 x2"):
        train_gpt2.pick_precision("cuda")


@pytest.mark.parametrize("has_units, fp32, bf16, dtype", [
    (False, 2.0, 1.0, torch.float32), (True, 2.0, 1.0, torch.bfloat16), (True, 1.0, 2.0, torch.float32)])
def test_precision_without_a_card(monkeypatch, has_units, fp32, bf16, dtype):
    """bf16 without units for it, or units that lose against fp32; half precision on MPS, never checked."""
    seconds = {torch.float32: fp32, torch.bfloat16: bf16}
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: has_units)
    monkeypatch.setattr(device, "matmul_seconds", lambda dtype: seconds[dtype])
    assert train_gpt2.pick_precision("cpu")[:2] == (dtype, False)
    assert train_gpt2.pick_precision("mps")[:2] == (torch.float32, False)


def test_a_resumed_cpu_run_keeps_its_precision(monkeypatch):
    """A timed choice that falls the other way after a restart, so that the resumed run is another one."""
    monkeypatch.setattr(device, "pick_precision", lambda device: pytest.fail("asked again"))
    assert train_gpt2.choose_precision(TrainConfig(), CPU, "bf16")[0] == torch.bfloat16


# ---- schedule


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedule_rises_then_falls(schedule):
    """Off by one in the warm-up (a first step at rate 0), a jump at its end, an end above min_lr."""
    c = TrainConfig.preset_of("quick", schedule=schedule, lr=1.0, min_lr=0.1, warmup_steps=10, max_steps=100)
    lrs = [lr_at(c, step) for step in range(101)]
    assert lrs[0] == pytest.approx(0.1) and lrs[9] == lrs[10] == max(lrs) == 1.0
    assert lrs[100] == pytest.approx(0.1) and all(a >= b for a, b in zip(lrs[10:], lrs[11:], strict=False))
    assert lr_at(TrainConfig.preset_of("quick", schedule="constant", lr=1.0, min_lr=0.1), 199) == 1.0
    # cut short by --max-steps, the rate is still that of the long run
    long, cut = (TrainConfig.preset_of("quick", max_steps=n, decay_steps=200) for n in (200, 50))
    assert [lr_at(long, s) for s in range(50)] == [lr_at(cut, s) for s in range(50)]


# ---- the step


@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_clipping_comes_after_unscaling(scale):
    """Clip before unscale: the norm is 65,536 times too long, and every gradient is cut to nothing."""
    model = small_model()
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)  # its step is the gradient, as long as the clip lets it
    before, scaler = weights(model), torch.amp.GradScaler("cpu", init_scale=scale)
    _, norm, moved = optimizer_step(model, [sgd], scaler, [batch()], grad_clip=0.05)
    assert moved and 0.1 < norm.item() < 10
    assert (weights(model) - before).norm().item() == pytest.approx(0.05, rel=1e-2)


def test_each_optimizer_has_its_own_rate():
    """Muon at AdamW's rate, or one of them that stays at its first."""
    c = TrainConfig.preset_of("quick", lr=0.01, muon_lr=0.04)
    muon, adamw = train_gpt2.make_optimizers(small_model(), c, torch.float32)
    train_gpt2.set_lr([muon, adamw], c, 0.005)
    assert {g["lr"] for g in muon.param_groups} == {0.02} and {g["lr"] for g in adamw.param_groups} == {0.005}


@pytest.mark.parametrize("kind, scale", [("adamw", 2.0**16), ("muon", 2.0**16), ("muon", None)])
@pytest.mark.parametrize("where", ["transformer.h.0.mlp.c_fc.weight", "transformer.wte.weight"])
def test_overflow_moves_nothing(kind, scale, where):
    """The scaler lets that optimizer step whose own gradients are finite; bf16 and fp32 have no scaler."""
    model = small_model()
    before = weights(model)
    hook = dict(model.named_parameters())[where].register_hook(lambda g: g * math.inf)
    config = TrainConfig.preset_of("quick", optimizer=kind)
    optimizers = train_gpt2.make_optimizers(model, config, torch.float32)
    scaler = torch.amp.GradScaler("cpu", enabled=scale is not None, init_scale=scale or 1.0)
    _, norm, moved = optimizer_step(model, optimizers, scaler, [batch()])
    assert not moved and not math.isfinite(norm) and torch.equal(weights(model), before)
    assert scaler.get_scale() == (2.0**15 if scale else 1.0) and len(optimizers) == 1 + (kind == "muon")
    assert all(p.grad is None for p in model.parameters())
    hook.remove()
    assert optimizer_step(model, optimizers, scaler, [batch()])[2]
    assert not torch.equal(weights(model), before)


@pytest.mark.parametrize("order, draw", [("random", get_batch), ("shuffled", shuffled_batch)])
def test_ranks_and_micro_batches_share_one_batch(order, draw):
    """Two processes that see the same sequences, a batch that depends on how it is cut, another order."""
    c = runs.tiny(batch_size=2, order=order)
    (x, y), = micro_batches(CORPUS, c, 3, 8, CPU)
    assert torch.equal(x, draw(CORPUS.train, 8, 8, c.seed, 3)[0])
    for world, micro in ((1, 2), (2, 4), (2, 1), (4, 2)):
        parts = [p for rank in range(world) for p in micro_batches(CORPUS, c, 3, micro, CPU, rank, world)]
        xs, ys = zip(*parts, strict=True)
        assert all(len(a) == micro for a in xs)
        assert torch.equal(torch.cat(xs), x) and torch.equal(torch.cat(ys), y)


# ---- exact loss


class Counted:
    """Ids that count how many of them are asked for at once, as shards read them from the disk."""

    def __init__(self, ids):
        self.ids, self.most = ids, 0

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, where):
        piece = self.ids[where]
        self.most = max(self.most, piece.numel())
        return piece


@pytest.mark.parametrize("n", [2, 10, 17, 16 * 50 + 9])
def test_evaluate_scores_every_target_once(n, monkeypatch):
    """A short last window dropped, or as heavy as a whole one; dropout live; the mode not put back; the
    whole split in memory; bf16 of an autocast region; a window that two processes score, or none."""
    monkeypatch.setattr(plan, "EVAL_BYTES", 8 * 11 * 16 * 6)  # six windows at once
    model, ids = small_model(dropout=0.5, n_tokens=7).eval(), torch.randint(7, (n,))
    windows = [ids[start : start + 17] for start in range(0, n - 1, 16)]
    logits = torch.cat([model(window[None, :-1])[0][0] for window in windows])
    want = torch.nn.functional.cross_entropy(logits, ids[1:]).item()
    right = (logits[:, :7].argmax(-1) == ids[1:]).sum().item()
    model.train()
    counted, scored = Counted(ids), []
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert evaluate(model, counted) == pytest.approx(want, rel=1e-5)
        assert accuracy(model, counted) == right / (n - 1)
    assert model.training and counted.most <= 6 * 16 + 1
    model.register_forward_pre_hook(lambda module, args: scored.append(args[0].numel()))
    parts = [evaluate(model, ids, rank, 3) for rank in range(3)]
    assert sum(parts) == pytest.approx(want, rel=1e-5) and sum(scored) == n - 1


# ---- the loop


def test_it_learns():
    """Anything that stops learning: a rate of zero, targets not shifted, gradients thrown away."""
    config = TrainConfig.preset_of("quick", max_steps=100, device="cpu", log_every=0, sample_chars=0)
    result = train_gpt2.train(config, corpus_from_text(words(12_000), "words"))
    first = math.log(result.model.config.vocab_size)
    assert result.history[0]["loss"] == pytest.approx(first, abs=0.2)
    assert result.progress.val_loss < 1.0  # letters alone give 2.6


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_faked_t4_trains_in_fp16_with_a_scaler(kind):
    """fp16 with GradScaler for real, on the CPU: a scale that overflows must cost steps and nothing else."""
    result = run(precision="fp16", optimizer=kind, max_steps=40)
    losses = result.train_losses
    assert all("scale" in r for r in result.history if "loss" in r)
    assert result.progress.step == 40 and losses[-1] < losses[0] - 0.1


def test_skips_are_counted_and_many_stop_the_run(monkeypatch, tmp_path):
    """A run that goes on for hours with a gradient that is not finite."""
    real, calls = train_gpt2.optimizer_step, []

    def overflows_after_7(*args):
        loss, norm, moved = real(*args)
        calls.append(1)
        return (loss, torch.tensor(math.inf), False) if len(calls) > 7 else (loss, norm, moved)

    monkeypatch.setattr(train_gpt2, "optimizer_step", overflows_after_7)
    with pytest.raises(TrainError, match=r"not finite 25 times in a row.*step 6") as error:
        run(max_steps=100, out_dir=str(tmp_path))
    assert "\n" not in str(error.value)
    records = [json.loads(line) for line in open(tmp_path / "history.jsonl")]
    assert [r["skipped"] for r in records if "skipped" in r][:3] == [1, 2, 3]
    assert records[-1]["norm"] is None  # JSON has no Infinity


def test_reasons_to_stop(monkeypatch):
    """Patience that counts steps instead of validations, or all of them; a target that is never looked at."""
    losses = iter([2.0, 2.1, 1.5, 1.6, 1.7, 1.8])
    with monkeypatch.context() as patched:
        patched.setattr(train_gpt2, "evaluate", lambda *_: next(losses))
        result = run(eval_every=2, patience=2)
    assert (result.stopped, result.progress.step) == ("patience", 10)
    assert run(runs.until(7)).progress.step == 7


@pytest.mark.parametrize("stopped, changes", [
    ("target_loss", dict(target_loss=3.0, max_steps=400)), ("callback", dict(callback=runs.until(7)))])
def test_every_end_is_validated(tmp_path, stopped, changes):
    """A run of hours to --target-loss that left no best/, no sample and no word of what it is worth."""
    result = run(eval_every=400, out_dir=str(tmp_path), sample_chars=5, **changes)
    end = result.progress.step
    assert result.stopped == stopped and end < 400
    assert [step for step, _ in result.val_losses] == [end] and result.samples
    assert json.load(open(tmp_path / "best" / "metrics.json"))["step"] == end


def test_what_a_run_leaves(tmp_path, capsys):
    """A history with holes, a best/ that cannot be loaded again or has another loss than it says."""
    result = run(out_dir=str(tmp_path), log_every=5, sample_chars=20)
    records = [json.loads(line) for line in open(tmp_path / "history.jsonl")]
    steps = [r for r in records if "loss" in r]
    assert [r["step"] for r in steps] == list(range(1, 13))
    c = runs.tiny(lr=1e-2)
    assert [r["lr"] for r in steps] == [lr_at(c, step) for step in range(12)]
    assert all({"step", "loss", "lr", "norm", "dt_ms", "tok_s"} <= r.keys() for r in steps)
    assert [r["step"] for r in records if "val_loss" in r] == [6, 12] and records == result.history
    assert len(re.findall(r"^step \d+ \| loss .*tok/s \d+$", capsys.readouterr().out, re.M)) == 2
    (log,) = tmp_path.glob("log-*.txt")
    assert len(re.findall(r"^\d\d:\d\d:\d\d step \d+ \| loss", log.read_text(), re.M)) == 12
    saved = torch.load(tmp_path / "last.pt", weights_only=True)
    assert {"model", "optimizer", "scaler", "rng", "step", "best", "config"} <= saved.keys()
    assert saved["step"] == 12


def test_what_best_says_is_so(tmp_path):
    """A loss, a count or a share in metrics.json that the files beside it do not have."""
    result = run(out_dir=str(tmp_path))
    model = GPT.from_pretrained(tmp_path / "best")
    metrics = json.load(open(tmp_path / "best" / "metrics.json"))
    assert evaluate(model, CORPUS.val) == metrics["val_loss"] == result.progress.best_loss
    assert {"name": "words", "sha256": CORPUS.sha256, "floor": None}.items() <= metrics["corpus"].items()
    assert metrics["parameters"] == model.num_params() and metrics["ngram5_val_loss"] > 0
    assert {"tokenizer.json", "config.json", "model.safetensors"} <= set(os.listdir(tmp_path / "best"))
    table, ids = NGram.load(tmp_path / "best" / "ngram5.npz"), CORPUS.val.numpy()
    right = (table.probs(ids[:-1]).argmax(1) == ids[1:]).mean()
    assert metrics["accuracy"] == accuracy(model, CORPUS.val)
    assert metrics["ngram_accuracy"] == right == ngram_accuracy(table, ids, size=7)
    assert "heldout" not in metrics  # a reader's own text stays with the reader
    run(out_dir=str(tmp_path / "half"), best_dtype="fp16")
    full, half = (tmp_path / name / "model.safetensors" for name in ("best", "half/best"))
    assert half.stat().st_size < 0.8 * full.stat().st_size


@pytest.mark.parametrize("schedule, pace", [("linear", 0.8), ("cosine", 3.0)])
def test_minutes_are_minutes(monkeypatch, schedule, pace, tmp_path):
    """A preset "of five minutes" that is 4,200 steps: on a slower machine it stood at 2,592, its rate high.

    The clock is made: each step takes `pace` seconds, a validation 6; half way the machine becomes half as
    fast.
    """
    clock, real_step, real_eval = [0.0], train_gpt2.optimizer_step, train_gpt2.evaluate
    made = types.SimpleNamespace(monotonic=lambda: clock[0], perf_counter=lambda: clock[0])
    monkeypatch.setattr(train_gpt2, "time", made)

    def step(*args):
        clock[0] += pace * (1 if clock[0] < 60 else 2)
        return real_step(*args)

    def validation(model, ids, *ranks):
        clock[0] += 6 * len(ids) / len(CORPUS.val)
        return real_eval(model, ids, *ranks)

    monkeypatch.setattr(train_gpt2, "optimizer_step", step)
    monkeypatch.setattr(train_gpt2, "evaluate", validation)
    settings = dict(minutes=2, max_steps=10**6, schedule=schedule, eval_every=30, out_dir=str(tmp_path),
                    resume="auto")
    # the session dies; the next begins much later
    first = run(lambda record, model: clock[0] > 40, **settings)
    clock[0] += 1000
    result = run(**settings)
    lrs = [r["lr"] for r in result.history if "lr" in r]
    assert first.stopped == "callback" and result.stopped == "minutes"
    assert 120 - 5 * pace < result.progress.clock <= 120  # the last validation included
    assert result.progress.clock == pytest.approx(clock[0] - 1000)  # of both sessions
    assert max(lrs) == 1e-2 and lrs[-1] < (0.14 if pace < 1 else 0.4) * max(lrs)
    assert all(a >= 0.97 * b for a, b in zip(lrs[3:], lrs[4:], strict=False))  # it falls, whatever the pace


def test_the_clock_and_the_steps_together():
    """A fast machine that reaches max_steps with the rate still high, since the clock has not run out."""
    clock, steps = run(minutes=60), run()
    assert clock.stopped == "max_steps" and clock.history[-2]["lr"] == steps.history[-2]["lr"]


def test_compile_falls_back(monkeypatch, capsys, tmp_path):
    """A machine without a compiler that kills the run; weights that are saved as _orig_mod.*."""
    monkeypatch.setattr(torch, "compile", raising(RuntimeError("no compiler")))
    plain = run()
    assert run(compile=True).train_losses == plain.train_losses
    assert len(re.findall("torch.compile does not work here", capsys.readouterr().out)) == 1

    class Wrapped(torch.nn.Module):  # as torch.compile wraps, without its minute
        def __init__(self, model):
            super().__init__()
            self._orig_mod, self.config = model, model.config

        def forward(self, x, y):
            shapes.append(tuple(x.shape))
            return self._orig_mod(x, y)

    shapes = []
    monkeypatch.setattr(torch, "compile", Wrapped)
    assert run(compile=True, out_dir=str(tmp_path)).train_losses == plain.train_losses
    assert not any("_orig_mod" in k for k in torch.load(tmp_path / "last.pt", weights_only=True)["model"])
    assert set(shapes) == {(4, 8)}  # another batch would be compiled for nothing
    shapes.clear()
    run(compile=True, windows="4:0.5,8:0.5", eval_every=99)
    assert shapes == [(8, 4)] * 13 + [(4, 8)] * 12  # one trial, in the shape of the first steps


def test_auto_batch_size_keeps_tokens_a_step(monkeypatch):
    """auto that changes the run: a smaller micro-batch must mean more of them."""
    real = plan.try_micro_batch

    def fits_up_to_two(model, micro, *rest):
        if micro > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(model, micro, *rest)

    monkeypatch.setattr(plan, "try_micro_batch", fits_up_to_two)
    seen = []
    monkeypatch.setattr(train_gpt2, "micro_batches", lambda *a: seen.append(micro_batches(*a)) or seen[-1])
    auto = run(batch_size="auto", max_steps=5)
    assert [len(x) for x, _ in seen[0]] == [2, 2, 2, 2]
    assert np.allclose(auto.train_losses, run(max_steps=5).train_losses, atol=1e-5)


def test_out_of_memory_names_the_mend(monkeypatch):
    """A traceback of forty lines where one flag would do."""
    monkeypatch.setattr(train_gpt2, "optimizer_step", raising(torch.OutOfMemoryError("x")))
    with pytest.raises(TrainError, match="4 sequences at once: --batch-size 2"):
        run()
    with pytest.raises(TrainError, match="one sequence at once: lower --block-size"):
        run(batch_size=1)


def test_bpe_trains(monkeypatch, gpt2_vocabulary):
    """50,257 ids in a table of 65; a loss per token reported as if it were per character."""
    monkeypatch.setattr("gpt2.corpus.load_text", lambda quiet: CORPUS)
    result = run(corpus=None, tokenizer="bpe", max_steps=2, eval_every=2)
    assert result.model.config.vocab_size == 50304 and result.model.config.n_tokens == 50257
    last = result.history[-1]
    in_pieces = corpus_from_text(CORPUS.text, "words", BPETokenizer())
    assert last["val_loss_char"] == pytest.approx(last["val_loss"] / in_pieces.chars_per_token)
    assert last["val_loss_char"] < last["val_loss"] / 2


def test_a_text_that_is_too_short():
    """No window fits, and numpy says so with a negative dimension."""
    with pytest.raises(TrainError, match="train split has 270 tokens, not 1025: lower --block-size"):
        run(corpus=corpus_from_text("ab " * 100, "short"), block_size=1024, tokens_per_step=1024,
            batch_size=1)


def test_the_same_seed_is_the_same_run():
    """Anything random that does not hang on the seed."""
    losses = [run(dropout=0.1, seed=s).train_losses for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
