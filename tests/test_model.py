"""model_gpt2.py: GPT-2's arithmetic, its file format, sampling, causality, and errors that name the mend."""

import json
import math
import os
import shutil
import subprocess
import sys
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

import model_gpt2
from gpt2.sampling import KVCache, filter_probs
from model_gpt2 import GPT, GPTConfig, attention_by_hand

V = 65


def small(seed=0, std=0.15, **changes):
    """A tiny model with weights large enough that wrong arithmetic shows."""
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**{**dict(block_size=16, vocab_size=V, n_layer=3, n_head=4, n_embd=32), **changes}))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=std)
    return model.eval()


def ids(B, T, seed=1):
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(seed))


# ---- first loss

@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("n_layer, n_embd", [(1, 32), (4, 64), (6, 384)])
def test_first_loss(tie, n_layer, n_embd):
    """A head left at N(0, 1) starts at about 107; a wrong scaled init drifts with depth."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(64, V, n_layer, 4, n_embd, tie_weights=tie)).eval()
    with torch.no_grad():
        loss = model(ids(4, 64), ids(4, 64, seed=2))[1].item()
    expected = math.log(V) + (n_embd * 0.02**2 / 2 if n_embd > 256 else 0)
    assert abs(loss - expected) < 0.1


def test_residual_init_is_scaled_not_replaced():
    """c_proj at 1 / sqrt(2 n_layer) instead of 0.02 / sqrt(2 n_layer): 50 times too large."""
    torch.manual_seed(0)
    block = GPT(GPTConfig(8, V, 8, 4, 128)).transformer.h[3]
    for proj in (block.attn.c_proj, block.mlp.c_proj):
        assert proj.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.mlp.c_fc.bias.any()


@pytest.mark.parametrize("tie", [True, False])
def test_a_tied_head_is_one_tensor(tie):
    """A head that only starts equal to wte, and then drifts, is not tied."""
    model = small(tie_weights=tie)
    assert (model.lm_head.weight is model.transformer.wte.weight) == tie


# ---- causality: perturb the future, for every attention path

def logits_sdpa(model, idx):
    return model(idx)[0]


def logits_by_hand(model, idx):
    return model(idx, patterns=[])[0]


def logits_in_pieces(model, pieces):
    cache = KVCache(model.config, pieces[0].size(0), model.transformer.wte.weight)
    return torch.cat([model(piece, cache=cache)[0] for piece in pieces], dim=1)


def logits_one_by_one(model, idx):
    return logits_in_pieces(model, idx.split(1, dim=1))


def logits_in_two_pieces(model, idx):
    return logits_in_pieces(model, idx.split([5, idx.size(1) - 5], dim=1))


PATHS = [logits_sdpa, logits_by_hand, logits_one_by_one, logits_in_two_pieces]


@pytest.mark.parametrize("path", PATHS)
@torch.no_grad()
def test_the_future_changes_nothing(path):
    """A mask that leaks: change every id after t, and the logits up to t must stay bit for bit."""
    model, idx = small(), ids(2, 16)
    before = path(model, idx)
    for t in range(15):
        other = idx.clone()
        other[:, t + 1:] = (other[:, t + 1:] + 1 + t) % V
        after = path(model, other)
        torch.testing.assert_close(after[:, :t + 1], before[:, :t + 1], rtol=0, atol=1e-6)
        # and the past does change the future
        assert (after[:, t + 1:] - before[:, t + 1:]).abs().max() > 1e-2


@pytest.mark.parametrize("path", PATHS[1:])
@torch.no_grad()
def test_every_path_gives_the_same_logits(path):
    """Cached, by hand or fast: one model."""
    model, idx = small(), ids(3, 16)
    torch.testing.assert_close(path(model, idx), logits_sdpa(model, idx), rtol=0, atol=1e-4)


@torch.no_grad()
def test_attention_maps():
    """The pattern drawn in a notebook must be the one that the model uses: causal, rows of sum 1."""
    model, idx = small(), ids(2, 9)
    maps = model.attention_maps(idx)
    assert len(maps) == 3 and maps[0].shape == (2, 4, 9, 9)
    for pattern in maps:
        torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 9))
        assert not pattern.triu(1).any()


@torch.no_grad()
def test_attention_is_scaled_by_the_head_size():
    """Scaling by the width (a student project's bug) flattens the pattern."""
    q, k, v = torch.randn(3, 2, 4, 6, 8, generator=torch.Generator().manual_seed(0))
    out, pattern = attention_by_hand(q, k, v)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(out, want)
    first = ((q[..., 1, :] * k[..., 0, :]).sum(-1) - (q[..., 1, :] * k[..., 1, :]).sum(-1)) / math.sqrt(8)
    torch.testing.assert_close(pattern[..., 1, 0], first.sigmoid())


# ---- sampling

@pytest.mark.parametrize("T, n", [(1, 60), (15, 20), (16, 20), (17, 3), (40, 30)])
def test_greedy_cached_equals_uncached(T, n):
    """A cache that goes wrong at the window's edge, for prompts below, at and above the context (16)."""
    model, prompt = small(), ids(3, T)
    cached = model.generate(prompt, n, temperature=0)
    assert torch.equal(cached, model.generate(prompt, n, temperature=0, use_cache=False))
    assert cached.shape == (3, T + n) and torch.equal(cached[:, :T], prompt)


def test_window_rule():
    """A window that slides by one; and 1,025 ids that were read as the last 512, where 1,024 would do."""
    # a tied random model repeats itself, and any window gives the same id
    model = small(std=0.4, tie_weights=False)
    out, long = model.generate(ids(20, 16), 2, temperature=0), ids(20, 17)

    @torch.no_grad()
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


def test_filter_probs():
    """Off by one in top-k or top-p, and a temperature that overflows."""
    probs = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    logits = probs.log()
    for k in (None, 0, -3, 4, 10_000):  # all of them
        torch.testing.assert_close(filter_probs(logits, top_k=k), probs)
    assert torch.equal(filter_probs(logits, 0), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(filter_probs(logits, top_k=2), torch.tensor([[0.625, 0.375, 0, 0]]))
    torch.testing.assert_close(filter_probs(logits, top_p=0.75), torch.tensor([[0.625, 0.375, 0, 0]]))
    torch.testing.assert_close(filter_probs(logits, top_p=1e-9), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(filter_probs(logits, 0.5), (probs**2 / (probs**2).sum()))
    assert torch.equal(filter_probs(logits * 1e4, 1e-30), torch.tensor([[1.0, 0, 0, 0]]))
    unsorted = torch.tensor([[0.05, 0.5, 0.15, 0.3]])
    torch.testing.assert_close(filter_probs(unsorted.log(), top_p=0.6), torch.tensor([[0, 0.625, 0, 0.375]]))


def test_sampling_follows_the_distribution():
    """Chi-square over 20,000 draws of the first id: a wrong softmax or a stuck generator fails (p < 1e-6
    if right)."""
    model = small(std=0.3)
    prompt = ids(1, 5).repeat(20_000, 1)
    with torch.no_grad():
        want = model(prompt[:1])[0][0, -1].softmax(-1) * 20_000
    got = model.generate(prompt, 1, seed=0)[:, -1].bincount(minlength=V)
    keep = want > 5
    chi2 = ((got - want)[keep] ** 2 / want[keep]).sum().item()
    assert chi2 < keep.sum() + 6 * math.sqrt(2 * keep.sum())


def test_padding_rows_are_never_sampled():
    """50,257 tokens in 50,304 rows: the tail has no text."""
    model = small(n_tokens=10)
    assert model.generate(ids(8, 3) % 10, 50, temperature=5.0, seed=0).max() < 10


@pytest.mark.parametrize("weights, tolerance", [("bf16", 0.06), ("int8", 0.12)])
@torch.no_grad()
def test_for_inference(weights, tolerance):
    """A copy that shares a weight; a bias or a scale lost in one of its three kernels."""
    model, idx = small(n_embd=64, dropout=0.5), ids(2, 16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fast, exact = model.for_inference(weights), model(idx)[0]
    pieces = logits_in_pieces(fast, idx.split([10, 1, 3, 1, 1], dim=1))
    for rough in (fast(idx)[0], pieces):
        assert (exact - rough.float()).abs().max() < tolerance * exact.std()
    assert fast.generate(ids(2, 4), 30, seed=0).shape == (2, 34)
    for p in fast.parameters():
        p.zero_()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_an_inference_copy_is_not_saved(tmp_path):
    """Its linear weights are packed: the file would lack them, and only the visitor would find out."""
    with pytest.raises(ValueError, match="save the model that it was made from"):
        small().for_inference("int8").save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="bf16"):
        small().for_inference("int3")


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_for_inference_makes_no_copy_in_fp32(weights):
    """A copy of the whole model first would take 344 MB more at 85.9 M parameters, and a Space has little."""
    model = small()
    with CountBytes() as count:
        model.for_inference(weights)
    assert 0 < count.fp32 < 4 * model.num_params() / 3  # a matrix or two at a time


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
    model = small(n_embd=64, tie_weights=tie)
    fast = model.for_inference("bf16")
    assert type(fast.lm_head) is torch.nn.Linear and fast.lm_head.weight.dtype == torch.bfloat16
    assert (fast.lm_head.weight is fast.transformer.wte.weight) == tie
    exact = model(ids(2, 16))[0]
    assert (exact - fast(ids(2, 16))[0].float()).abs().max() < 0.06 * exact.std()


# ---- file format

def hugging_face(**changes):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=V, n_positions=16, n_embd=32, n_layer=3, n_head=4,
                                     bos_token_id=None, eos_token_id=None, **changes)
    model = transformers.GPT2LMHeadModel(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.15)
    return model


@pytest.mark.parametrize("tie", [True, False])
@torch.no_grad()
def test_transformers_and_we_read_one_another(tie, tmp_path):
    """Erf GELU, a wrong epsilon or an untransposed matrix shows as a difference; measured: 1e-7."""
    model, theirs = small(tie_weights=tie), hugging_face(tie_word_embeddings=tie)
    model.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    read = type(theirs).from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    ours = GPT.from_pretrained(tmp_path / "theirs")
    assert ours.config.tie_weights == tie and not ours.training
    for a, b in ((read, model), (theirs, ours)):
        torch.testing.assert_close(a(ids(2, 16)).logits, b(ids(2, 16))[0], rtol=0, atol=5e-6)
    assert read.config.bos_token_id is None and read.config.eos_token_id is None
    assert read.generation_config.bos_token_id == 0


@torch.no_grad()
def test_openai_form(tmp_path):
    """OpenAI's own file has no `transformer.` prefix and carries causal masks; its config lacks our keys."""
    theirs = hugging_face()
    state = {k.removeprefix("transformer."): v.clone() for k, v in theirs.state_dict().items()}
    del state["lm_head.weight"]
    for layer in range(3):
        state[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 16, 16).tril()
    save_file(state, tmp_path / "model.safetensors")
    keys = ("activation_function", "layer_norm_epsilon", "model_type", "n_ctx", "n_embd", "n_head", "n_layer",
            "n_positions", "vocab_size", "resid_pdrop")
    config = {**theirs.config.to_dict(), "n_ctx": 16}
    (tmp_path / "config.json").write_text(json.dumps({k: config[k] for k in keys}))
    model = GPT.from_pretrained(tmp_path)
    torch.testing.assert_close(model(ids(2, 16))[0], theirs(ids(2, 16)).logits, rtol=0, atol=5e-6)


@torch.no_grad()
def test_half_precision_file_is_upcast(tmp_path):
    """A float16 file must load as float32, and be half the size."""
    model = small()
    model.save_pretrained(tmp_path / "full")
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    again = GPT.from_pretrained(tmp_path / "half")
    assert again.lm_head.weight.dtype == torch.float32
    torch.testing.assert_close(again(ids(1, 9))[0], model(ids(1, 9))[0], rtol=0, atol=2e-2)
    full, half = (len((tmp_path / d / "model.safetensors").read_bytes()) for d in ("full", "half"))
    assert half < 0.6 * full


@torch.no_grad()
def test_no_bias_saves_zero_biases_and_says_so(tmp_path):
    """transformers has no GPT-2 without biases: it must find zeros, and we must know that they are none."""
    transformers = pytest.importorskip("transformers")
    model = small(bias=False)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["bias"] is False
    assert not load_file(tmp_path / "model.safetensors")["transformer.h.0.attn.c_attn.bias"].any()
    again = GPT.from_pretrained(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    for other in (again(ids(1, 9))[0], theirs(ids(1, 9)).logits):
        torch.testing.assert_close(other, model(ids(1, 9))[0], rtol=0, atol=1e-4)


def changed_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@torch.no_grad()
def test_gpt2s_own_values_under_other_names_load(tmp_path):
    """n_inner written out and the newer name of the same GELU, refused as "another model"."""
    model = small()
    model.save_pretrained(tmp_path)
    changed_config(tmp_path, n_inner=128, activation_function="gelu_pytorch_tanh")
    assert torch.equal(GPT.from_pretrained(tmp_path)(ids(1, 9))[0], model(ids(1, 9))[0])
    changed_config(tmp_path, n_inner=64)
    with pytest.raises(ValueError, match="another model"):
        GPT.from_pretrained(tmp_path)


@torch.no_grad()
def test_a_model_in_parts_loads(tmp_path):
    """transformers cuts what is large: an index and parts, and no model.safetensors."""
    model = small()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, tmp_path / file)
    where = {name: file for file, part in parts.items() for name in part}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert torch.equal(GPT.from_pretrained(tmp_path)(ids(1, 9))[0], model(ids(1, 9))[0])
    for bad in ("../model.safetensors", "/etc/passwd", 7):
        index.write_text(json.dumps({"weight_map": {"wte.weight": bad}}))
        with pytest.raises(ValueError, match="index.json is damaged"):
            GPT.from_pretrained(tmp_path)


def test_only_a_pickle_says_how_to_convert_it(tmp_path):
    """Called "damaged", a repo of three years ago cannot be mended."""
    small().save_pretrained(tmp_path)
    os.replace(tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="only pytorch_model.bin.*save_pretrained"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers(tmp_path, value):
    """A run that diverged, loaded without a word: the app starts and shows "0 tokens" for ever."""
    model = small()
    model.transformer.h[1].mlp.c_fc.weight.data[3, 3] = value
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="NaN or infinity"):
        GPT.from_pretrained(tmp_path)


HOSTILE = [dict(n_positions=4_000_000), dict(n_layer=10**9), dict(vocab_size=10**12), dict(n_embd=2**40),
           dict(n_layer="6"), dict(n_head=True), dict(n_head=0), dict(n_embd=None), dict(n_head=[4]),
           dict(resid_pdrop="0"), dict(tie_word_embeddings="yes"), dict(n_tokens=-3), dict(n_tokens=66),
           dict(n_tokens=1.5)]


@pytest.mark.parametrize("changes", HOSTILE)
def test_a_config_that_lies_costs_nothing(changes, tmp_path, monkeypatch):
    """4 million positions took 2.6 GB before they were refused; "6" was a TypeError from deep inside."""
    small().save_pretrained(tmp_path)
    changed_config(tmp_path, **changes)
    monkeypatch.setattr(GPT, "__init__", lambda *_: pytest.fail("built a model"))
    with pytest.raises(ValueError) as error:
        GPT.from_pretrained(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, " " * 6_000_000, "<html>", "[1, 2]"])
def test_a_config_that_is_none(text, tmp_path):
    """RecursionError, which no caller expects."""
    small().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="config.json is missing, damaged"):
        GPT.from_pretrained(tmp_path)


def without(weights, name):
    save_file({k: v for k, v in load_file(weights).items() if k != name}, weights)


DAMAGE = {
    "cut off": lambda weights, config: weights.write_bytes(weights.read_bytes()[:-1000]),
    "no weights": lambda weights, config: weights.unlink(),
    "no config": lambda weights, config: config.unlink(),
    "a bias where none should be": lambda weights, config: changed_config(weights.parent, bias=False),
    "one tensor lacks": lambda weights, config: without(weights, "transformer.h.1.mlp.c_fc.weight"),
    "embedding lacks": lambda weights, config: without(weights, "transformer.wte.weight"),
    "other shape": lambda weights, config: save_file(
        {**load_file(weights), "transformer.ln_f.weight": torch.zeros(8)}, weights),
    "one too many": lambda weights, config: save_file(
        {**load_file(weights), "transformer.h.2.ln_9.bias": torch.zeros(32)}, weights),
    "other model": lambda weights, config: changed_config(weights.parent, model_type="llama"),
    "no model type": lambda weights, config: config.write_text('{"n_embd": 32}'),
    "other activation": lambda weights, config: changed_config(weights.parent, activation_function="relu"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_bad_files(how, tmp_path):
    """A damaged or foreign folder is one sentence that names the place, never a model with random weights."""
    model = small()
    model.save_pretrained(tmp_path)
    DAMAGE[how](tmp_path / "model.safetensors", tmp_path / "config.json")
    with pytest.raises(ValueError, match=str(tmp_path)):
        GPT.from_pretrained(tmp_path)


def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    """A full disk in the middle of a save must not cost the good model."""
    model = small()
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full_disk(state, path, metadata):
        with open(path, "wb") as f:
            f.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt2.weights.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        small(seed=9).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    monkeypatch.undo()
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o644
    GPT.from_pretrained(tmp_path)


# ---- errors that name the mend

@pytest.mark.parametrize("how", ["offline", "unreachable"])
def test_a_model_in_the_hubs_cache_needs_no_network(how, tmp_path):
    """A cached model that is asked of the Hub, and a stack of HTTP errors for one that is not there."""
    commit = tmp_path / "models--you--m" / "snapshots" / ("a" * 40)
    small(seed=9).save_pretrained(commit)
    (tmp_path / "models--you--m" / "refs").mkdir()
    (tmp_path / "models--you--m" / "refs" / "main").write_text("a" * 40)
    code = ("from model_gpt2 import GPT\nGPT.from_pretrained('you/m')\n"
            "try: GPT.from_pretrained('you/other')\nexcept ValueError as error: print(error)")
    env = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9",
           "HF_HUB_OFFLINE": str(int(how == "offline"))}
    here = os.path.dirname(model_gpt2.__file__)
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=here, capture_output=True, text=True)
    assert done.stdout.startswith("No folder you/other, and no config.json from the Hub"), done.stderr[-500:]


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
        with pytest.raises(ValueError, match="whole numbers of shape"):
            model.generate(bad, 3)
    with pytest.raises(ValueError, match="newline"):
        model.stream(torch.zeros(1, 0, dtype=torch.long), 3)  # at once, before the first id is asked for
    for bad in (dict(temperature=-1), dict(temperature=math.nan), dict(top_p=0.0), dict(top_p=1.5)):
        with pytest.raises(ValueError, match="temperature"):
            model.stream(ids(1, 3), 3, **bad)


def test_impossible_shapes():
    """A width that the heads cannot share, sizes below 1, dropout of 1."""
    with pytest.raises(ValueError, match="multiple of n_head 5"):
        GPTConfig(n_embd=64, n_head=5)
    for bad in (dict(n_layer=0), dict(block_size=-1), dict(dropout=1.0), dict(vocab_size=0)):
        with pytest.raises(ValueError, match="at least"):
            GPTConfig(**bad)


def test_the_file_stands_alone(tmp_path):
    """A class that needs the rest of the project to compute and to learn."""
    shutil.copy(model_gpt2.__file__, tmp_path)
    code = ("from model_gpt2 import *; x = torch.tensor([[1, 2]]); model = GPT(GPTConfig(8, 5, 1, 1, 8)); "
            "model(x, x)[1].backward(); model.attention_maps(x)")
    env = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True)
