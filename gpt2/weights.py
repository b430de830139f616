"""GPT-2's file format, as Hugging Face writes it, both ways.

config.json, generation_config.json, model.safetensors with `transformer.*` names. Three matrices of a block are stored
transposed, as OpenAI's Conv1D had them.
"""

import json
import os
from pathlib import Path

import torch

CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
FIELDS = (("n_positions", "block_size"), ("vocab_size", "vocab_size"), ("n_layer", "n_layer"), ("n_head", "n_head"),
          ("n_embd", "n_embd"), ("embd_pdrop", "dropout"), ("attn_pdrop", "dropout"), ("resid_pdrop", "dropout"),
          ("tie_word_embeddings", "tie_weights"), ("bias", "bias"), ("n_tokens", "n_tokens"))  # theirs, ours
FIXED = {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_inner": None,
         "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}


def save_pretrained(model, folder, dtype=torch.float32, start_id=0):
    """See GPT.save_pretrained."""
    from safetensors.torch import save_file
    state = to_hugging_face(model, dtype)
    config = {**FIXED, **{theirs: getattr(model.config, ours) for theirs, ours in FIELDS}, "bos_token_id": None,
              "eos_token_id": None, "dtype": str(dtype).split(".")[1], "architectures": ["GPT2LMHeadModel"]}
    generation = {"bos_token_id": start_id, "eos_token_id": None, "do_sample": True}
    os.makedirs(folder, exist_ok=True)
    for name, write in (("model.safetensors", lambda path: save_file(state, path, metadata={"format": "pt"})),
                        ("config.json", lambda path: Path(path).write_text(json.dumps(config, indent=2))),
                        ("generation_config.json", lambda path: Path(path).write_text(json.dumps(generation)))):
        write(path := os.path.join(folder, name + ".tmp"))
        os.chmod(path, 0o644)  # safetensors leaves 0600, which a web server cannot read
        os.replace(path, path.removesuffix(".tmp"))


def to_hugging_face(model, dtype):
    """Our state_dict -> the tensors as they are stored."""
    if not isinstance(model.lm_head, torch.nn.Linear):
        raise ValueError("A copy made by for_inference cannot be saved: save the model that it was made from.")
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = (tensor.t() if name.endswith(CONV1D) else tensor).to("cpu", dtype).contiguous()
        if not model.config.bias and name.endswith((*CONV1D, "ln_1.weight", "ln_2.weight", "ln_f.weight")):
            state[name[:-6] + "bias"] = torch.zeros(tensor.size(0), dtype=dtype)  # GPT-2's format wants them
    if model.config.tie_weights:
        del state["lm_head.weight"]  # the same table as wte
    return state


def from_pretrained(cls, make_config, folder_or_repo, revision=None):
    """See GPT.from_pretrained. cls: GPT; make_config: GPTConfig."""
    hf, state = (read(str(folder_or_repo), name, revision) for name in ("config.json", "model.safetensors"))
    foreign = [name for name in FIXED if hf.get(name, FIXED[name]) != FIXED[name]]
    if foreign or "model_type" not in hf:
        raise ValueError(f"{folder_or_repo}: config.json describes another model than GPT-2 {foreign}.")
    model = cls(make_config(**{ours: hf[theirs] for theirs, ours in FIELDS if theirs in hf}))
    model.load_state_dict(from_hugging_face(state, model, folder_or_repo))
    return model.eval()


def read(folder_or_repo, name, revision):
    from safetensors.torch import load_file
    path = os.path.join(folder_or_repo, name)
    try:
        if not os.path.isdir(folder_or_repo):
            from huggingface_hub import hf_hub_download
            path = hf_hub_download(folder_or_repo, name, revision=revision)
    except (OSError, ValueError, ImportError) as e:
        raise ValueError(f"No folder {folder_or_repo}, and no {name} from the Hub: {' '.join(str(e).split())}") from e
    try:
        return load_file(path) if path.endswith(".safetensors") else dict(json.loads(Path(path).read_text()))
    except Exception as e:  # safetensors has a class of its own for this
        raise ValueError(f"{path} is missing, damaged or cut off ({e}): save or download it again.") from e


def from_hugging_face(state, model, source):
    """Tensors as stored -> a state_dict of our model, every name and shape checked."""
    ours, want = {}, model.state_dict()
    for name, tensor in state.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # OpenAI's file carries the causal mask
        name = name if name.startswith(("transformer.", "lm_head.")) else "transformer." + name  # and lacks the prefix
        if model.config.bias or not name.endswith(".bias") or tensor.any():
            ours[name] = (tensor.t() if name.endswith(CONV1D) else tensor).float()
    if model.config.tie_weights:
        ours["lm_head.weight"] = ours.get("transformer.wte.weight")
    shapes = [{name: t.shape for name, t in tensors.items() if t is not None} for tensors in (ours, want)]
    wrong = [name for name in sorted(ours.keys() | want.keys()) if shapes[0].get(name) != shapes[1].get(name)]
    if wrong:
        raise ValueError(f"{source}: model.safetensors and config.json differ in {len(wrong)} tensors, as {wrong[0]}.")
    return ours
