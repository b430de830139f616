"""GPT-2: OpenAI's arithmetic, Hugging Face's names. Needs only torch; read it from top to bottom.

The letters in the comments, with GPT-2 small's numbers:
    B batch, T time (ids so far, at most block_size = 1024), V vocab_size = 50304
    C n_embd = 768, nh n_head = 12, hs head size = 64, so nh * hs = C
Sources: Radford et al. 2019 (GPT-2), Vaswani et al. 2017. The last methods lead into gpt2/.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class GPTConfig:
    """The shape of a GPT-2. By default GPT-2 small, its vocabulary padded to a multiple of 64."""
    block_size: int = 1024  # context: how many ids the model sees at once
    vocab_size: int = 50304  # rows of the embedding table
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768  # width of the residual stream
    dropout: float = 0.0  # share of activations zeroed while training
    bias: bool = True  # biases in Linear and LayerNorm, as in GPT-2
    tie_weights: bool = True  # one table reads ids in and scores ids out
    n_tokens: int | None = None  # ids in use; the rows above them are padding, never sampled

    def __post_init__(self):
        sizes = self.block_size, self.vocab_size, self.n_layer, self.n_head, self.n_embd
        if min(sizes) < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"Sizes must be at least 1, dropout at least 0 and below 1: {self}.")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}: "
                             "heads share it evenly.")


def attention_by_hand(q, k, v, dropout=0.0):
    """What F.scaled_dot_product_attention computes, written out, with the pattern (B, nh, T, S).

    q (B, nh, T, hs): the last T of the S positions in k, v (B, nh, S, hs).
    """
    T, S = q.size(-2), k.size(-2)
    scores = q / math.sqrt(q.size(-1)) @ k.mT  # (B, nh, T, S)
    future = torch.full((T, S), float("-inf"), dtype=scores.dtype, device=q.device).triu(1 + S - T)
    pattern = (scores + future).softmax(dim=-1)  # each row sums to 1
    return F.dropout(pattern, dropout) @ v, pattern


class CausalSelfAttention(nn.Module):
    def __init__(self, config, layer=0):
        super().__init__()
        self.n_head, self.layer, self.dropout = config.n_head, layer, config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)  # q, k and v
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x, cache=None, patterns=None):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)  # (B, T, C) each
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, nh, T, hs)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, nh, S, hs): all positions so far
            q = q.to(k.dtype)
        S, dropout = k.size(2), self.dropout if self.training else 0.0
        # torch's kernel keeps no pattern, and is slow in bf16 on a CPU (results/cpu_kernels.json)
        slow = q.device.type == "cpu" and q.dtype == torch.bfloat16 and T > 1
        if patterns is None and not slow and T in (1, S):
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=T == S)
        else:
            y, pattern = attention_by_hand(q, k, v, dropout)
            if patterns is not None:
                patterns.append(pattern)
        y = y.to(x.dtype).transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
        x = F.gelu(self.c_fc(x), approximate="tanh")  # (B, T, 4 * C); GPT-2's own form of GELU
        return self.dropout(self.c_proj(x))


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
            "wpe": nn.Embedding(config.block_size, config.n_embd),  # where: one for each position
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
            std = 0.02 / math.sqrt(2 * self.config.n_layer)  # so many add into the stream
            nn.init.normal_(module.c_proj.weight, mean=0.0, std=std)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())  # a tied head counts once

    def forward(self, idx, targets=None, cache=None, patterns=None):
        """idx (B, T) int64 -> logits (B, T, V), loss.

        loss: mean cross-entropy in nats, None without targets (B, T). cache: a KVCache; idx is what
        it has not seen. patterns: a list that gets each layer's attention, (B, nh, T, S).
        """
        logits = self.lm_head(self.hidden(idx, cache, patterns))  # (B, T, V)
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss

    def hidden(self, idx, cache=None, patterns=None):
        """idx (B, T) -> (B, T, C): what the head turns into logits."""
        if idx.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check_ids(idx)  # on CUDA it would stall every step
        start = 0 if cache is None else cache.length
        end = start + idx.size(1)
        if end > self.config.block_size:
            raise ValueError(f"{end} ids do not fit the context (block_size "
                             f"{self.config.block_size}): cut them.")
        pos = torch.arange(start, end, device=idx.device)  # (T,)
        t = self.transformer
        x = t.drop(t.wte(idx) + t.wpe(pos))  # (B, T, C)
        for block in t.h:
            x = block(x, cache, patterns)
        if cache is not None:
            cache.length = end
        return t.ln_f(x)

    def check_ids(self, idx):
        """Raise ValueError for an id that the model does not know."""
        low, high = (int(x) for x in idx.aminmax())
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(f"id {low if low < 0 else high} is not in the vocabulary of "
                             f"{self.config.vocab_size}: encode the text with "
                             "the model's own tokenizer.")

    @torch.no_grad()
    def attention_maps(self, idx):
        """idx (B, T) -> a list of n_layer patterns (B, nh, T, T); each row sums to 1."""
        self(idx, patterns=(patterns := []))
        return patterns

    def generate(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=None, **more):
        """Continue idx (B, T): (B, T + max_new_tokens). See gpt2.sampling.stream."""
        from gpt2.sampling import generate
        return generate(self, idx, max_new_tokens, temperature, top_k, top_p, seed, **more)

    def stream(self, idx, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=None, **more):
        """Sample an id a step for each row of idx; yields (B,). See gpt2.sampling.stream."""
        from gpt2.sampling import stream
        return stream(self, idx, max_new_tokens, temperature, top_k, top_p, seed, **more)

    def for_inference(self, weights="bf16"):
        """A copy for fast sampling: "bf16" halves the bytes read, "int8" (CPU only) again."""
        from gpt2.fast_cpu import for_inference
        return for_inference(self, weights)

    def save_pretrained(self, folder, dtype=torch.float32, start_id=0):
        """Write a folder as Hugging Face's GPT-2 has it; see gpt2.weights.save_pretrained."""
        from gpt2.weights import save_pretrained
        save_pretrained(self, folder, dtype, start_id)

    @classmethod
    def from_pretrained(cls, folder_or_repo, revision=None):
        """Load a GPT-2, ours or OpenAI's, in fp32 and eval mode. A bad file is a ValueError."""
        from gpt2.weights import from_pretrained
        return from_pretrained(cls, GPTConfig, folder_or_repo, revision)
