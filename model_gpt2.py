"""GPT-2 in one file: the same arithmetic, names and file format as OpenAI's model.

Read it from top to bottom. Shapes in the comments, with GPT-2 small's numbers:
    B batch, T time (letters so far, at most block_size = 1024), V vocab_size
    C n_embd = 768, nh n_head = 12, hs head size = 64, so nh * hs = C
Needs only torch (safetensors for files). Sources: Radford et al. 2019, Vaswani et al. 2017. Names: Hugging Face's.
"""

import copy
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class GPTConfig:
    """The shape of a GPT-2. The defaults are GPT-2 small with its vocabulary padded to a multiple of 64."""

    block_size: int = 1024  # context: how many ids the model sees at once
    vocab_size: int = 50304  # rows of the embedding table
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768  # width of the residual stream
    dropout: float = 0.0  # share of activations zeroed while training
    bias: bool = True  # biases in Linear and LayerNorm, as in GPT-2
    tie_weights: bool = True  # one table reads ids in and scores ids out
    n_tokens: int | None = None  # ids in use; the rows from there to vocab_size are padding, never sampled

    def __post_init__(self):
        sizes = self.block_size, self.vocab_size, self.n_layer, self.n_head, self.n_embd
        if min(sizes) < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"Every size must be at least 1, and dropout at least 0 and below 1: {self}.")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}: heads share it evenly.")


class KVCache:
    """The keys and values of every position seen so far, in buffers allocated once: no work is done twice."""
    def __init__(self, config, B, like):  # like: a tensor of the wanted device and dtype
        shape = 2, config.n_layer, B, config.n_head, config.block_size, config.n_embd // config.n_head
        # fp32 beside bf16 weights: twice the memory, but one position looks back over 1,000 in a third of the time
        self.k, self.v = like.new_empty(shape, dtype=torch.float32 if bf16_on_cpu(like) else None)
        self.length = 0  # positions filled

    def append(self, layer, k, v):  # each (B, nh, T, hs) -> all so far, (B, nh, S, hs)
        old, end = (self.k[layer], self.v[layer]), self.length + k.size(2)
        for buffer, new in zip(old, (k, v), strict=True):
            buffer.narrow(2, self.length, k.size(2)).copy_(new)
        return [buffer.narrow(2, 0, end) for buffer in old] if self.length else (k, v)


def bf16_on_cpu(x):  # where some of torch's kernels are slow (results/cpu_kernels.json); evaluation is in fp32
    return x.device.type == "cpu" and x.dtype == torch.bfloat16

def attention_by_hand(q, k, v, dropout=0.0):
    """Causal attention written out; F.scaled_dot_product_attention gives the same output.
    q (B, nh, T, hs): the last T of the S positions in k, v (B, nh, S, hs). Returns output, pattern (B, nh, T, S)."""
    T, S = q.size(-2), k.size(-2)
    scores = q / math.sqrt(q.size(-1)) @ k.mT  # (B, nh, T, S)
    future = torch.full((T, S), float("-inf"), dtype=scores.dtype, device=q.device).triu(1 + S - T)
    pattern = (scores + future).softmax(dim=-1)
    return F.dropout(pattern, dropout) @ v, pattern


class CausalSelfAttention(nn.Module):
    def __init__(self, config, layer=0):
        super().__init__()
        self.n_head, self.layer, self.dropout = config.n_head, layer, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # query, key, value in one
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x, cache=None, patterns=None):
        B, T, C = x.size()
        q, k, v = (y.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
                   for y in self.c_attn(x).split(C, dim=2))
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, nh, S, hs), S >= T
        S, dropout = k.size(2), self.dropout if self.training else 0.0
        if patterns is not None or 1 < T < S or 1 < T and bf16_on_cpu(q):  # a picture, a cache before several, or speed
            y, pattern = attention_by_hand(q.to(k.dtype), k, v, dropout)
            patterns is None or patterns.append(pattern)
        else:  # one new position may look at all: it needs no mask
            y = F.scaled_dot_product_attention(q.to(k.dtype), k, v, dropout_p=dropout, is_causal=T == S)
        y = y.to(q.dtype).transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        x = self.c_fc(x)
        form = "none" if bf16_on_cpu(x) and x.size(1) > 1 else "tanh"  # GPT-2's; erf, 5e-4 away, is faster on a batch
        return self.dropout(self.c_proj(F.gelu(x, approximate=form)))


class Block(nn.Module):
    def __init__(self, config, layer=0):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = CausalSelfAttention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x, cache=None, patterns=None):
        x = x + self.attn(self.ln_1(x), cache, patterns)  # look back
        return x + self.mlp(self.ln_2(x))  # think


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(config.vocab_size, config.n_embd),  # what: a vector for each id
            "wpe": nn.Embedding(config.block_size, config.n_embd),  # where: a vector for each position
            "drop": nn.Dropout(config.dropout),
            "h": nn.ModuleList(Block(config, layer) for layer in range(config.n_layer)),
            "ln_f": nn.LayerNorm(config.n_embd, bias=config.bias),
        })
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_weights:
            self.lm_head.weight = self.transformer.wte.weight
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, (CausalSelfAttention, MLP)):
            # 2 * n_layer of these add into the stream; scaled so that their sum keeps its size (GPT-2 paper, 2.3)
            nn.init.normal_(module.c_proj.weight, mean=0.0, std=0.02 / math.sqrt(2 * self.config.n_layer))

    def num_params(self):
        return sum(p.numel() for p in self.parameters())  # a tied head counts once

    def forward(self, idx, targets=None):
        """idx (B, T) int64 -> logits (B, T, V), loss: mean cross-entropy in nats, or None without targets (B, T)."""
        logits = self.lm_head(self._trunk(idx))  # (B, T, V)
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def _trunk(self, idx, cache=None, patterns=None):
        start = cache.length if cache is not None else 0
        if idx.device.type == "cpu" and not torch.compiler.is_compiling():  # on CUDA it would stall every step
            self._check_ids(idx)
        end = start + idx.size(1)
        if end > self.config.block_size:
            raise ValueError(f"{end} ids do not fit the context (block_size {self.config.block_size}): cut them.")
        where = self.transformer.wpe(torch.arange(start, end, device=idx.device))  # (T, C)
        x = self.transformer.drop(self.transformer.wte(idx) + where)  # (B, T, C)
        for block in self.transformer.h:
            x = block(x, cache, patterns)
        if cache is not None:
            cache.length = end
        return self.transformer.ln_f(x)

    def _check_ids(self, idx):
        if idx.dim() != 2 or idx.is_floating_point() or idx.numel() == 0:
            raise ValueError(f"idx must be whole numbers of shape (B, T), not {idx.dtype} of shape {tuple(idx.shape)}; "
                             "an empty prompt may begin with a newline.")
        low, high = (int(x) for x in idx.aminmax())
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(f"id {low if low < 0 else high} is not in the vocabulary of {self.config.vocab_size}: "
                             "encode the text with the model's own tokenizer.")

    @torch.no_grad()
    def attention_maps(self, idx):
        """idx (B, T) -> a list of n_layer attention patterns (B, nh, T, T), each row sums to 1 (with dropout off)."""
        self._trunk(idx, patterns=(patterns := []))
        return patterns

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=None, use_cache=True):
        """Continue idx (B, T) by max_new_tokens ids: (B, T + max_new_tokens). The arguments are those of stream."""
        steps = self.stream(idx, max_new_tokens, temperature, top_k, top_p, seed, use_cache)
        return torch.cat([idx, *(new[:, None] for new in steps)], dim=1)

    def stream(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=None, use_cache=True):
        """Sample one id a step for each row of idx (B, T); yields (B,) int64.
        temperature: 0 is greedy, 1 the model's own distribution. top_k: only the k likeliest; None, 0 or negative: all.
        top_p: only the fewest that together hold this probability. seed: same seed, same text. use_cache=False: a slow
        reference. Raises ValueError at once for an empty prompt, ids out of range or impossible settings."""
        self._check_ids(idx)  # here, not in _sample: a generator's body runs only when the first id is asked for
        filter_probs(torch.zeros(1, 2), temperature or 1.0, top_k, top_p)  # refuses what cannot be
        generator = None if seed is None else torch.Generator(idx.device).manual_seed(seed)
        return self._sample(idx, max_new_tokens, temperature, top_k, top_p, generator, use_cache)

    @torch.no_grad()
    def _sample(self, idx, max_new_tokens, temperature, top_k, top_p, generator, use_cache):
        was_training, block_size = self.training, self.config.block_size
        self.eval()
        try:
            window, cache = idx, KVCache(self.config, idx.size(0), self.transformer.wte.weight) if use_cache else None
            for _ in range(max_new_tokens):
                if window.size(1) > block_size:  # positions are learned: a window that moves starts afresh
                    window = window[:, -max(1, block_size // 2):]
                    if use_cache:
                        cache.length = 0
                x = self._trunk(window[:, cache.length:] if use_cache else window, cache)
                logits = self.lm_head(x[:, -1])[:, :self.config.n_tokens].float()  # (B, ids in use)
                new = (logits.argmax(dim=-1, keepdim=True) if temperature == 0 else  # (B, 1)
                       torch.multinomial(filter_probs(logits, temperature, top_k, top_p), 1, generator=generator))
                yield new[:, 0]
                window = torch.cat((window, new), dim=1)
        finally:
            self.train(was_training)

    def for_inference(self, weights="bf16"):
        """A copy in eval mode for fast sampling: "bf16" halves the bytes read a step, "int8" (CPU only) again."""
        if weights not in ("bf16", "int8"):
            raise ValueError(f"weights must be 'bf16' or 'int8', not {weights!r}.")
        mkldnn = self.lm_head.weight.device.type == "cpu" and torch.backends.mkldnn.is_available()
        fast = weights == "int8" or mkldnn and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        swap = {}  # id -> what deepcopy takes in its place: no copy in fp32 is ever made
        for module in self.modules():
            if isinstance(module, nn.Dropout) or fast and isinstance(module, nn.Linear):
                swap[id(module)] = nn.Identity() if isinstance(module, nn.Dropout) else FastLinear(module, weights)
            else:
                for p in module.parameters(recurse=False):
                    swap[id(p)] = nn.Parameter(p.detach().to(torch.bfloat16, copy=True), requires_grad=False)
        return copy.deepcopy(self, swap).eval()

    def save_pretrained(self, folder, dtype=torch.float32, start_id=0):
        """Write config.json, generation_config.json and model.safetensors in the form of Hugging Face's GPT-2.
        dtype: torch.float32, or torch.float16 for half the size. start_id: what an empty prompt begins with, by default
        the newline of our 65 symbols. Each file is replaced in one step, so a save that is cut off spoils nothing."""
        from safetensors.torch import save_file
        if isinstance(self.lm_head, FastLinear):
            raise ValueError("A copy made by for_inference cannot be saved: save the model that it was made from.")
        state = {}
        for name, tensor in self.state_dict().items():
            state[name] = (tensor.t() if name.endswith(_CONV1D) else tensor).to("cpu", dtype).contiguous()
            if not self.config.bias and name.endswith((*_CONV1D, "ln_1.weight", "ln_2.weight", "ln_f.weight")):
                state[name[:-6] + "bias"] = torch.zeros(tensor.size(0), dtype=dtype)  # GPT-2's format wants them
        if self.config.tie_weights:
            del state["lm_head.weight"]  # the same table as wte
        config = {**_FIXED, **{hf: getattr(self.config, ours) for hf, ours in _FIELDS}, "bos_token_id": None,
                  "eos_token_id": None, "dtype": str(dtype).split(".")[1], "architectures": ["GPT2LMHeadModel"]}
        generation = {"bos_token_id": start_id, "eos_token_id": None, "do_sample": True}
        os.makedirs(folder, exist_ok=True)
        for name, write in (("model.safetensors", lambda path: save_file(state, path, metadata={"format": "pt"})),
                            ("config.json", lambda path: Path(path).write_text(json.dumps(config, indent=2))),
                            ("generation_config.json", lambda path: Path(path).write_text(json.dumps(generation)))):
            write(path := os.path.join(folder, name + ".tmp"))
            os.chmod(path, 0o644)  # safetensors leaves 0600, which a web server cannot read
            os.replace(path, path.removesuffix(".tmp"))

    @classmethod
    def from_pretrained(cls, folder_or_repo, revision=None):
        """Load a GPT-2, ours or OpenAI's, from a folder or Hub repo, in fp32 and eval mode. A bad file: ValueError."""
        hf, state = (_read(str(folder_or_repo), name, revision) for name in ("config.json", "model.safetensors"))
        foreign = [name for name in _FIXED if hf.get(name, _FIXED[name]) != _FIXED[name]]
        if foreign or "model_type" not in hf:
            raise ValueError(f"{folder_or_repo}: config.json describes another model than GPT-2 {foreign}.")
        model = cls(GPTConfig(**{ours: hf[name] for name, ours in _FIELDS if name in hf}))
        model.load_state_dict(_from_hugging_face(state, model, folder_or_repo))
        return model.eval()


def filter_probs(logits, temperature=1.0, top_k=None, top_p=None):
    """logits (B, V) -> the probabilities (B, V) that sampling draws from. temperature > 0; see GPT.stream."""
    if not 0 < temperature < math.inf or top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"temperature ({temperature}) must be 0 or more, and top_p ({top_p}) above 0 and at most 1.")
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / temperature
    if top_k is not None and 0 < top_k < logits.size(-1):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[:, -1:], float("-inf"))
    probs = logits.softmax(dim=-1)
    if top_p is not None and top_p < 1:
        ordered, order = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # what the likelier ones hold; 0 for the first, so one always stays
        probs = probs.masked_fill((before >= top_p).scatter(-1, order, before >= top_p), 0.0)
        probs = probs / probs.sum(dim=-1, keepdim=True)
    return probs


class FastLinear(nn.Module):
    """A Linear for sampling. bf16: packed in the order in which oneDNN's kernel reads it, 1.6 times as fast as in rows.
    int8: row i of the weight is round(w / scale[i]), scale[i] = max|w| / 127, half the bytes again."""
    def __init__(self, linear, weights):
        super().__init__()
        weight = linear.weight.detach().float()
        self.bias = None if linear.bias is None else linear.bias.detach().to(torch.bfloat16, copy=True)
        if weights == "bf16":
            self.weight, self.scale = torch.ops.mkldnn._reorder_linear_weight(weight.bfloat16(), 1), None
            return
        self.scale = (weight.abs().amax(dim=1).clamp(min=1e-8) / 127).bfloat16()  # (out,)
        self.weight = (weight / self.scale[:, None]).round_().clamp_(-127, 127).to(torch.int8)

    def forward(self, x):  # (..., in) bfloat16
        if self.scale is None:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        if x.numel() > 16 * x.size(-1):  # a prompt: bf16 is faster then, and holds whole numbers up to 127 exactly
            y = F.linear(x, self.weight.bfloat16()) * self.scale
        else:
            y = torch._weight_int8pack_mm(x.flatten(0, -2), self.weight, self.scale).view(*x.shape[:-1], -1)
        return y if self.bias is None else y + self.bias


# ---- GPT-2's file format. These three matrices of a block are stored transposed, as OpenAI's Conv1D had them.
_CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
_FIELDS = (("n_positions", "block_size"), ("vocab_size", "vocab_size"), ("n_layer", "n_layer"), ("n_head", "n_head"),
           ("n_embd", "n_embd"), ("embd_pdrop", "dropout"), ("attn_pdrop", "dropout"), ("resid_pdrop", "dropout"),
           ("tie_word_embeddings", "tie_weights"), ("bias", "bias"), ("n_tokens", "n_tokens"))
_FIXED = {"model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_inner": None,
          "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}


def _read(folder_or_repo, name, revision):
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


def _from_hugging_face(state, model, source):
    """Tensors as stored -> a state_dict of our model, every name and shape checked."""
    ours, want = {}, model.state_dict()
    for name, tensor in state.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue  # OpenAI's file carries the causal mask
        name = name if name.startswith(("transformer.", "lm_head.")) else "transformer." + name  # and lacks the prefix
        if model.config.bias or not name.endswith(".bias") or tensor.any():
            ours[name] = (tensor.t() if name.endswith(_CONV1D) else tensor).float()
    if model.config.tie_weights:
        ours["lm_head.weight"] = ours.get("transformer.wte.weight")
    shapes = [{name: t.shape for name, t in tensors.items() if t is not None} for tensors in (ours, want)]
    wrong = [name for name in sorted(ours.keys() | want.keys()) if shapes[0].get(name) != shapes[1].get(name)]
    if wrong:
        raise ValueError(f"{source}: model.safetensors and config.json differ in {len(wrong)} tensors, as {wrong[0]}.")
    return ours
