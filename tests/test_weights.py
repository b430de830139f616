"""gpt2/weights.py: GPT-2's file format, both ways; files that are damaged, foreign or hostile."""

import functools
import json
import math
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from model_gpt2 import GPT
from tests.models import V, ids, small


def changed_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def assert_same(a, b, atol=5e-6):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


@pytest.fixture
def saved(tmp_path):
    small().save_pretrained(tmp_path)
    return tmp_path


# ---- both ways


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
        assert_same(a(ids(2, 16)).logits, b(ids(2, 16))[0])
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
    assert_same(GPT.from_pretrained(tmp_path)(ids(2, 16))[0], theirs(ids(2, 16)).logits)


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
        assert_same(other, model(ids(1, 9))[0], atol=1e-4)


@torch.no_grad()
def test_gpt2s_own_values_under_other_names_load(saved):
    """n_inner written out and the newer name of the same GELU, refused as "another model"."""
    changed_config(saved, n_inner=128, activation_function="gelu_pytorch_tanh")
    assert torch.equal(GPT.from_pretrained(saved)(ids(1, 9))[0], small()(ids(1, 9))[0])


@torch.no_grad()
def test_a_model_in_parts_loads(saved):
    """transformers cuts what is large: an index and parts, and no model.safetensors."""
    state = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: state[name] for name in part}, saved / file)
    index = saved / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: f for f, part in parts.items() for name in part}}))
    assert torch.equal(GPT.from_pretrained(saved)(ids(1, 9))[0], small()(ids(1, 9))[0])
    for bad in ("../model.safetensors", "/etc/passwd", 7):
        index.write_text(json.dumps({"weight_map": {"wte.weight": bad}}))
        with pytest.raises(ValueError, match="index.json is damaged"):
            GPT.from_pretrained(saved)


def test_a_save_that_fails_leaves_the_old_file(saved, monkeypatch):
    """A full disk in the middle of a save must not cost the good model; a copy for sampling is no model."""
    before = (saved / "model.safetensors").read_bytes()
    assert (saved / "model.safetensors").stat().st_mode & 0o777 == 0o644

    def full_disk(state, path, metadata):
        with open(path, "wb") as f:
            f.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match="save the model that it was made from"):
        small(seed=9).for_inference("int8").save_pretrained(saved)
    monkeypatch.setattr("gpt2.weights.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        small(seed=9).save_pretrained(saved)
    assert (saved / "model.safetensors").read_bytes() == before
    GPT.from_pretrained(saved)


# ---- what is damaged, foreign or hostile: one sentence


def change_weights(drop="", **tensors):
    """A change of the weights' file: without one tensor, with others."""
    def change(weights, config):
        kept = {name: tensor for name, tensor in load_file(weights).items() if name != drop}
        save_file({**kept, **tensors}, weights)
    return change


def with_config(**changes):
    return lambda weights, config: changed_config(weights.parent, **changes)


def with_text(text):
    return lambda weights, config: config.write_text(text)


DAMAGE = {
    "cut off": (lambda weights, config: weights.write_bytes(weights.read_bytes()[:-999]), "save or download"),
    "no weights": (lambda weights, config: weights.unlink(), "missing"),
    "only a pickle": (lambda weights, config: os.replace(weights, weights.with_name("pytorch_model.bin")),
                      "only pytorch_model.bin.*save_pretrained"),
    "NaN": (change_weights(**{"transformer.ln_f.weight": torch.full((32,), math.nan)}), "NaN or inf"),
    "a bias where none should be": (with_config(bias=False), "no biases"),
    "one tensor lacks": (change_weights("transformer.h.1.mlp.c_fc.weight"), "differ"),
    "embedding lacks": (change_weights("transformer.wte.weight"), "differ"),
    "one too many": (change_weights(**{"transformer.h.2.ln_9.bias": torch.zeros(32)}), "differ"),
    "other model": (with_config(model_type="llama"), "another model"),
    "no model type": (with_text('{"n_embd": 32}'), "another model"),
    "other width": (with_config(n_inner=64), "another model"),
    **{text[:9]: (with_text(text), "config.json is missing, damaged")
       for text in ("[" * 100_000, " " * 6_000_000, "[1, 2]")},
}


@pytest.mark.parametrize("how", DAMAGE)
def test_bad_files(how, saved):
    """A damaged or foreign folder is one sentence that names the place, never a model with random weights."""
    change, says = DAMAGE[how]
    change(saved / "model.safetensors", saved / "config.json")
    with pytest.raises(ValueError, match=says) as error:
        GPT.from_pretrained(saved)
    assert str(saved) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("changes", [
    dict(n_positions=4_000_000), dict(n_layer=10**9), dict(vocab_size=10**12), dict(n_embd=2**40),
    dict(n_layer="6"), dict(n_head=True), dict(n_embd=None), dict(n_head=[4]), dict(resid_pdrop="0"),
    dict(tie_word_embeddings="yes"), dict(n_tokens=-3), dict(n_tokens=66), dict(n_tokens=1.5)])
def test_a_config_that_lies_costs_nothing(changes, saved, monkeypatch):
    """4 million positions took 2.6 GB before they were refused; "6" was a TypeError from deep inside."""
    changed_config(saved, **changes)
    monkeypatch.setattr(GPT, "__init__", lambda *_: pytest.fail("built a model"))
    with pytest.raises(ValueError) as error:
        GPT.from_pretrained(saved)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("offline", [True, False])
def test_a_model_in_the_hubs_cache_needs_no_network(offline, tmp_path, monkeypatch):
    """A cached model that is asked of the Hub, and a stack of HTTP errors for one that is not there."""
    hub = pytest.importorskip("huggingface_hub")
    commit = tmp_path / "models--you--m" / "snapshots" / ("a" * 40)
    small().save_pretrained(commit)
    (tmp_path / "models--you--m" / "refs").mkdir()
    (tmp_path / "models--you--m" / "refs" / "main").write_text("a" * 40)
    nobody = functools.partial(hub.hf_hub_download, cache_dir=tmp_path, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(hub, "hf_hub_download", nobody)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its tries
    assert GPT.from_pretrained("you/m").num_params() == small().num_params()
    with pytest.raises(ValueError, match="^No folder you/other, and no config.json from the Hub"):
        GPT.from_pretrained("you/other")
