"""model_gpt2.py, gpt2/sampling.py, gpt2/fast_cpu.py: GPT-2's arithmetic, causality, sampling, fast copies."""

import math
import runpy
import sys
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import model_gpt2
from gpt2.sampling import KVCache, filter_probs
from model_gpt2 import GPT, GPTConfig
from tests.models import V, ids, small

# ---- first loss


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("n_layer, n_embd", [(1, 32), (6, 384)])
@torch.no_grad()
def test_first_loss(tie, n_layer, n_embd):
    """A head left at N(0, 1) starts at about 107; a wrong scaled init drifts with depth; a head that is not
    tied only starts equal."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(64, V, n_layer, 4, n_embd, tie_weights=tie)).eval()
    loss = model(ids(4, 64), ids(4, 64, seed=2))[1].item()
    expected = math.log(V) + (n_embd * 0.02**2 / 2 if n_embd > 256 else 0)
    assert abs(loss - expected) < 0.1
    assert (model.lm_head.weight is model.transformer.wte.weight) == tie


def test_residual_init_is_scaled_not_replaced():
    """c_proj at 1 / sqrt(2 n_layer) instead of 0.02 / sqrt(2 n_layer): 50 times too large."""
    torch.manual_seed(0)
    block = GPT(GPTConfig(8, V, 8, 4, 128)).transformer.h[3]
    for proj in (block.attn.c_proj, block.mlp.c_proj):
        assert proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.mlp.c_fc.bias.any()


# ---- causality: perturb the future, for every attention path


def logits_in_pieces(model, pieces):
    cache = KVCache(model.config, pieces[0].size(0), model.transformer.wte.weight)
    return torch.cat([model(piece, cache=cache)[0] for piece in pieces], dim=1)


PATHS = {"sdpa": lambda model, idx: model(idx)[0],
         "by hand": lambda model, idx: model(idx, patterns=[])[0],
         "one by one": lambda model, idx: logits_in_pieces(model, idx.split(1, dim=1)),
         "in two pieces": lambda model, idx: logits_in_pieces(model, idx.split([5, idx.size(1) - 5], dim=1))}


@pytest.mark.parametrize("path", PATHS)
@torch.no_grad()
def test_the_future_changes_nothing(path):
    """A mask that leaks: change all ids after t, and the logits up to t must stay.

    All paths are one model: attention scaled by the width (a student project's bug) is another.
    """
    model, idx, logits = small(), ids(2, 16), PATHS[path]
    before = logits(model, idx)
    torch.testing.assert_close(before, model(idx)[0], rtol=0, atol=1e-4)
    for t in range(0, 15, 2):
        other = idx.clone()
        other[:, t + 1:] = (other[:, t + 1:] + 1 + t) % V
        after = logits(model, other)
        torch.testing.assert_close(after[:, :t + 1], before[:, :t + 1], rtol=0, atol=1e-6)
        # and the past does change the future
        assert (after[:, t + 1:] - before[:, t + 1:]).abs().max() > 1e-2


@torch.no_grad()
def test_attention_maps():
    """The pattern drawn in a notebook must be the one that the model uses: causal, rows of sum 1."""
    maps = small().attention_maps(ids(2, 9))
    assert len(maps) == 3 and maps[0].shape == (2, 4, 9, 9)
    for pattern in maps:
        torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 9))
        assert not pattern.triu(1).any()


# ---- sampling


@pytest.mark.parametrize("T, n", [(1, 40), (15, 12), (16, 20), (17, 3), (40, 12)])
def test_greedy_cached_equals_uncached(T, n):
    """A cache that goes wrong at the window's edge, for prompts below, at and above the context (16)."""
    model, prompt = small(), ids(3, T)
    cached = model.generate(prompt, n, temperature=0)
    assert torch.equal(cached, model.generate(prompt, n, temperature=0, use_cache=False))
    assert cached.shape == (3, T + n) and torch.equal(cached[:, :T], prompt)


@torch.no_grad()
def test_window_rule():
    """A window that slides by one; and 1,025 ids that were read as the last 512, where 1,024 would do."""
    # a tied random model repeats itself, and any window gives the same id
    model = small(std=0.4, tie_weights=False)
    out, long = model.generate(ids(20, 16), 2, temperature=0), ids(20, 17)

    def after(window):
        return model(window)[0][:, -1].argmax(-1)

    assert torch.equal(out[:, 16], after(out[:, :16])) and torch.equal(out[:, 17], after(out[:, 9:17]))
    assert not torch.equal(out[:, 17], after(out[:, 1:17]))
    for use_cache in (True, False):
        new = model.generate(long, 1, temperature=0, use_cache=use_cache)[:, -1]
        assert torch.equal(new, after(long[:, -16:]))
    assert small(block_size=1).generate(ids(1, 1), 5).shape == (1, 6)  # block_size // 2 is 0 there


def test_two_streams_at_once():
    """The first stream to end switches dropout on for the second, and the second leaves the model in eval
    mode."""
    model, prompt = small(dropout=0.5).train(), ids(1, 4)
    want = [model.generate(prompt, n, temperature=0)[0, 4:].tolist() for n in (3, 6)]
    short, long = model.stream(prompt, 3, temperature=0), model.stream(prompt, 6, temperature=0)
    got = [[], []]
    for _ in range(3):
        got[0].append(next(short).item())
        got[1].append(next(long).item())
        assert model.training  # between two ids it may be trained
    assert next(short, None) is None
    got[1] += [new.item() for new in long]
    assert got == want and model.training
    model.eval()
    next(model.stream(prompt, 2))
    assert not model.training and not model.generate(prompt, 1).requires_grad
    # without dropout the same, so `want` itself was written without it
    assert model.generate(prompt, 6, temperature=0)[0, 4:].tolist() == want[1]


def test_seed():
    """Same seed, same text; another seed, another text; the global generator is left alone."""
    model, prompt = small(), ids(1, 4)
    torch.manual_seed(0)
    want = torch.rand(1)
    torch.manual_seed(0)
    a, b, c = (model.generate(prompt, 40, seed=s) for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(torch.rand(1), want)
    # greedy draws nothing
    assert torch.equal(*(model.generate(prompt, 30, temperature=0, seed=s) for s in (1, 2)))
    assert torch.equal(a[0, 4:], torch.cat(list(model.stream(prompt, 40, seed=1))))


@pytest.mark.parametrize("settings, want", [
    *((dict(top_k=k), [0.5, 0.3, 0.15, 0.05]) for k in (None, 0, -3, 4, 10_000)),  # all of them
    (dict(temperature=0), [1, 0, 0, 0]), (dict(top_k=2), [0.625, 0.375, 0, 0]),
    (dict(top_p=0.75), [0.625, 0.375, 0, 0]), (dict(top_p=1e-9), [1, 0, 0, 0]),
    (dict(temperature=0.5), [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
    (dict(temperature=1e-34), [1, 0, 0, 0])])
def test_filter_probs(settings, want):
    """Off by one in top-k or top-p, and a temperature that overflows; in whatever order the ids stand."""
    logits, want = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log(), torch.tensor([want], dtype=torch.float32)
    order = [3, 0, 2, 1]
    torch.testing.assert_close(filter_probs(logits, **settings), want)
    torch.testing.assert_close(filter_probs(logits[:, order], **settings), want[:, order])


def test_sampling_follows_the_distribution():
    """Chi-square over 20,000 draws of the first id: a wrong softmax or a stuck generator fails (p < 1e-6
    if right). And 50,257 tokens in 50,304 rows: the tail has no text."""
    model = small(std=0.3, n_tokens=60)
    prompt = ids(1, 5).repeat(20_000, 1) % 60
    with torch.no_grad():
        want = model(prompt[:1])[0][0, -1, :60].softmax(-1) * 20_000
    got = model.generate(prompt, 1, seed=0)[:, -1].bincount(minlength=60)
    assert len(got) == 60
    keep = want > 5
    chi2 = ((got - want)[keep] ** 2 / want[keep]).sum().item()
    assert chi2 < keep.sum() + 6 * math.sqrt(2 * keep.sum())


# ---- fast copies for a CPU


@pytest.mark.parametrize("weights, tolerance", [("bf16", 0.06), ("int8", 0.12)])
@torch.no_grad()
def test_for_inference(weights, tolerance):
    """A copy that shares a weight; a bias or a scale lost in one of its three kernels.

    And a copy of the whole model in fp32 first: 344 MB more at 85.9 M parameters, and a Space has little.
    """
    model, idx = small(std=0.1, n_embd=64, dropout=0.5), ids(2, 16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with CountBytes() as count:
        fast = model.for_inference(weights)
    assert 0 < count.fp32 < 4 * model.num_params() / 3  # a matrix or two at a time
    exact, pieces = model(idx)[0], logits_in_pieces(fast, idx.split([10, 1, 3, 1, 1], dim=1))
    for rough in (fast(idx)[0], pieces):
        assert (exact - rough.float()).abs().max() < tolerance * exact.std()
    assert fast.generate(ids(2, 4), 30, seed=0).shape == (2, 34)
    for p in fast.parameters():
        p.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="bf16"):
        model.for_inference("int3")


class CountBytes(TorchDispatchMode):
    """The largest sum of fp32 bytes alive at once that operations made, on a real device."""

    def __enter__(self):
        self.fp32, self.alive = 0, {}
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.dtype == torch.float32 and out.device.type == "cpu":
            storage = out.untyped_storage()
            self.alive[storage.data_ptr()] = weakref.ref(out), storage.nbytes()
            self.fp32 = max(self.fp32, sum(size for ref, size in self.alive.values() if ref() is not None))
        return out


@pytest.mark.parametrize("tie", [True, False])
@torch.no_grad()
def test_for_inference_without_packing(tie, monkeypatch):
    """On a GPU, a Mac or an old CPU there is no packed form: plain bf16, tied where it was tied."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = small(std=0.1, n_embd=64, tie_weights=tie)
    fast = model.for_inference("bf16")
    assert type(fast.lm_head) is torch.nn.Linear and fast.lm_head.weight.dtype == torch.bfloat16
    assert (fast.lm_head.weight is fast.transformer.wte.weight) == tie
    exact = model(ids(2, 16))[0]
    assert (exact - fast(ids(2, 16))[0].float()).abs().max() < 0.06 * exact.std()


# ---- errors that name the mend


def test_errors_at_the_door():
    """Each of these otherwise surfaces deep inside torch, or on CUDA as an assertion that kills the
    session."""
    model = small()
    with pytest.raises(ValueError, match="context"):
        model(ids(1, 17))
    for bad in (torch.tensor([[0, V]]), torch.tensor([[-1, 3]])):
        for call in (model, lambda x: model.generate(x, 3)):
            with pytest.raises(ValueError, match="not in the vocabulary"):
                call(bad)
    for bad in (torch.zeros(1, 0, dtype=torch.long), torch.zeros(3, dtype=torch.long), torch.zeros(1, 3)):
        with pytest.raises(ValueError, match="whole numbers of shape.*newline"):
            model.stream(bad, 3)  # at once, before the first id is asked for
    for bad in (dict(temperature=-1), dict(temperature=math.nan), dict(top_p=0.0), dict(top_p=1.5)):
        with pytest.raises(ValueError, match="temperature"):
            model.stream(ids(1, 3), 3, **bad)


def test_the_file_stands_alone(monkeypatch):
    """A class that needs the rest of the project to compute and to learn."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("gpt2", "data", "lab", "train_gpt2")]:
        monkeypatch.setitem(sys.modules, name, None)
    made, x = runpy.run_path(model_gpt2.__file__), torch.tensor([[1, 2]])
    model = made["GPT"](made["GPTConfig"](8, 5, 1, 1, 8))
    model(x, x)[1].backward()
    model.attention_maps(x)
