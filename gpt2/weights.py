"""GPT-2's file format, as Hugging Face writes it, both ways.

A folder holds config.json, generation_config.json and model.safetensors, or its parts and an index.
Names begin with `transformer.`; three matrices of a block are stored transposed, as OpenAI's Conv1D had
them. What is read may be anybody's: nothing is allocated before config.json and the file's header
agree.
"""

import json
import os
import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from data.files import write_atomic

WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
FIELDS = (("n_positions", "block_size", int), ("vocab_size", "vocab_size", int), ("n_layer", "n_layer", int),
          ("n_head", "n_head", int), ("n_embd", "n_embd", int), ("embd_pdrop", "dropout", float),
          ("attn_pdrop", "dropout", float), ("resid_pdrop", "dropout", float), ("bias", "bias", bool),
          ("tie_word_embeddings", "tie_weights", bool), ("n_tokens", "n_tokens", int))  # theirs, ours
FIXED = {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_inner": None,
         "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}
LARGEST_JSON = 5_000_000  # bytes


# ---- Writing


def save_pretrained(model, folder, dtype=torch.float32, start_id=0):
    """Write config.json, generation_config.json and model.safetensors as Hugging Face's GPT-2 has them.

    dtype: torch.float32, or torch.float16 for half the size. start_id: what an empty prompt begins with. Each
    file is replaced in one step, so a save that is cut off spoils nothing.
    """
    state = to_hugging_face(model, dtype)
    shape = {theirs: getattr(model.config, ours) for theirs, ours, _ in FIELDS}
    config = {**FIXED, **shape, "bos_token_id": None, "eos_token_id": None, "dtype": str(dtype).split(".")[1],
              "architectures": ["GPT2LMHeadModel"]}
    generation = {"bos_token_id": start_id, "eos_token_id": None, "do_sample": True}
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, WEIGHTS)
    save_file(state, path + ".tmp", metadata={"format": "pt"})
    os.chmod(path + ".tmp", 0o644)  # safetensors leaves 0600, which a web server cannot read
    os.replace(path + ".tmp", path)
    write_atomic(os.path.join(folder, "config.json"), json.dumps(config, indent=2))
    write_atomic(os.path.join(folder, "generation_config.json"), json.dumps(generation))


def to_hugging_face(model, dtype):
    """Our state_dict -> the tensors as they are stored."""
    if not isinstance(model.lm_head, torch.nn.Linear):
        raise ValueError("A copy made by for_inference cannot be saved: save the model that it was made "
                         "from.")
    state = {}
    for name, tensor in model.state_dict().items():
        state[name] = (tensor.t() if name.endswith(CONV1D) else tensor).to("cpu", dtype).contiguous()
        if not model.config.bias and name.endswith((*CONV1D, "ln_1.weight", "ln_2.weight", "ln_f.weight")):
            state[name[:-6] + "bias"] = torch.zeros(tensor.size(0), dtype=dtype)  # GPT-2's format wants them
    if model.config.tie_weights:
        del state["lm_head.weight"]  # the same table as wte
    return state


# ---- Reading


def from_pretrained(cls, make_config, source, revision=None):
    """A GPT-2, ours or OpenAI's, from a folder or Hub repo, in fp32 and eval mode.

    cls: GPT; make_config: GPTConfig. Raises ValueError, in one sentence, for what is damaged, of
    another kind or NaN.
    """
    source = str(source)
    fields = read_fields(read_json(find(source, "config.json", revision)), source)
    paths = weight_files(source, revision)
    shapes = read_shapes(paths)
    check_sizes(fields, shapes, source)
    with torch.device("meta"):  # no memory yet
        model = cls(make_config(**fields))
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_shapes(shapes, wanted, model.config, source)
    state = read_tensors(paths)
    check_finite(state, source)
    if model.config.tie_weights:
        state["lm_head.weight"] = state["transformer.wte.weight"]
    for name in state.keys() - wanted.keys():  # what the format wants of a model without biases
        if state.pop(name).any():
            raise ValueError(f"{source}: config.json says that there are no biases, and {name} is one.")
    model.to_empty(device="cpu")
    if model.config.tie_weights:
        model.lm_head.weight = model.transformer.wte.weight
    model.load_state_dict(state)
    return model.eval()


def read_fields(hf, source):
    """config.json as a dict -> what GPTConfig takes, each value of its type."""
    foreign = [name for name in FIXED if not is_gpt2(name, hf)]
    if foreign or "model_type" not in hf:
        raise ValueError(f"{source}: config.json describes another model than GPT-2 {foreign}.")
    fields = {}
    for theirs, ours, kind in FIELDS:
        value = hf.get(theirs)
        if theirs not in hf or theirs == "n_tokens" and value is None:
            continue
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{source}: config.json has {theirs} = {str(value)[:40]!r}, not a "
                             f"{kind.__name__}.")
        fields[ours] = value
    if "n_tokens" in fields and not 0 < fields["n_tokens"] <= fields.get("vocab_size", 0):
        raise ValueError(f"{source}: config.json has n_tokens = {fields['n_tokens']}, which its vocabulary "
                         "lacks.")
    return fields


def is_gpt2(name, hf):
    value = hf.get(name, FIXED[name])
    if name == "activation_function":
        return value in ("gelu_new", "gelu_pytorch_tanh")  # two names of one function
    if name == "n_inner" and type(value) is int and type(hf.get("n_embd")) is int:
        return value == 4 * hf["n_embd"]
    return value == FIXED[name]


def check_sizes(fields, shapes, source):
    """Before anything is built, however large: tables and number of blocks against the file's header."""
    layers = {match[1] for name in shapes if (match := re.match(r"transformer\.h\.(\d+)\.", name))}
    wte, wpe = (shapes.get(f"transformer.{name}.weight") or [None] for name in ("wte", "wpe"))
    found = {"vocab_size": wte[0], "n_embd": wte[-1], "block_size": wpe[0], "n_layer": len(layers)}
    wrong = [name for name, size in found.items() if name in fields and fields[name] != size]
    if wrong:
        raise ValueError(f"{source}: {WEIGHTS} and config.json differ in {', '.join(wrong)}.")


def check_shapes(shapes, wanted, config, source):
    """Every name and shape of the file's header against those of our model."""
    found = dict(shapes)
    if config.tie_weights:
        found["lm_head.weight"] = found.get("transformer.wte.weight")
    if not config.bias:  # the file has zeros where we have nothing
        found = {name: shape for name, shape in found.items() if name in wanted or not name.endswith(".bias")}
    wrong = [name for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]
    if wrong:
        raise ValueError(f"{source}: {WEIGHTS} and config.json differ in {len(wrong)} tensors, as "
                         f"{wrong[0]}.")


def check_finite(state, source):
    """Raise ValueError for weights (name -> tensor) that are no numbers: such a model cannot write."""
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"{source}: {len(bad)} of {len(state)} tensors, as {bad[0]}, hold NaN or infinity, "
                         "and such a model cannot write: its training broke off, take an earlier checkpoint "
                         "or train anew.")


# ---- Files


def weight_files(source, revision):
    """The paths of a model's safetensors: one, or the parts that its index names."""
    if path := find(source, WEIGHTS, revision, required=False):
        return [path]
    if index := find(source, INDEX, revision, required=False):
        names = read_json(index).get("weight_map")
        names = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else [""]
        if not all(re.fullmatch(r"[\w-]+\.safetensors", name) for name in names):
            raise ValueError(f"{index} is damaged: save or download it again.")
        return [find(source, name, revision) for name in names]
    if find(source, PICKLE, revision, required=False):
        raise ValueError(f"{source} has only {PICKLE}, a pickle, which can run code and is not opened here: "
                         "convert it once with transformers, "
                         "AutoModelForCausalLM.from_pretrained(NAME).save_pretrained(FOLDER).")
    return [find(source, WEIGHTS, revision)]


def find(source, name, revision, required=True):
    """The path of a file in a folder or Hub repo; None if it is not there and not required."""
    if os.path.isdir(source):
        path = os.path.join(source, name)
        return path if required or os.path.exists(path) else None
    try:
        from huggingface_hub import file_exists, hf_hub_download
        if name == PICKLE:
            return name if file_exists(source, name, revision=revision) else None
        return hf_hub_download(source, name, revision=revision)  # what is in its cache needs no network
    except Exception as e:  # the client and its HTTP library have a dozen kinds
        if not required:
            return None  # weight_files() asks again for what must be there
        raise ValueError(f"No folder {source}, and no {name} from the Hub: {' '.join(str(e).split())}") from e


def damaged(path, error):
    return ValueError(f"{path} is missing, damaged or cut off ({error}): save or download it again.")


def read_json(path):
    try:
        if os.path.getsize(path) > LARGEST_JSON:
            raise ValueError(f"{os.path.getsize(path):,} bytes are too many")
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise damaged(path, e) from e


def our_name(name):
    """OpenAI's file lacks the prefix, and carries the causal mask: None for that."""
    if name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    return name if name.startswith(("transformer.", "lm_head.")) else "transformer." + name


def read_shapes(paths):
    """{our name: shape of our tensor} from the files' headers alone."""
    shapes = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                for name in filter(our_name, file.keys()):
                    shape = file.get_slice(name).get_shape()
                    shapes[our_name(name)] = torch.Size(shape[::-1] if name.endswith(CONV1D) else shape)
        except Exception as e:  # safetensors has a class of its own for this
            raise damaged(path, e) from e
    return shapes


def read_tensors(paths):
    """{our name: our tensor, fp32}"""
    state = {}
    for path in paths:
        with safe_open(path, framework="pt") as file:
            for name in filter(our_name, file.keys()):
                tensor = file.get_tensor(name)
                state[our_name(name)] = (tensor.t() if name.endswith(CONV1D) else tensor).float()
    return state
