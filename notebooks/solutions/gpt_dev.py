"""Solutions of the exercises of gpt_dev.ipynb. Try them first; then compare."""

import torch
import torch.nn.functional as F


# exercise 0
def never_seen(alphabet, text):
    return sorted(set(alphabet) - set(text))


# exercise 1
def surprise_add_k(count, total, k, V):
    p = (count + k) / (total + k * V)
    return -torch.tensor(p).log().item()


# exercise 2
def predict_first_loss(scale):
    logits = scale * torch.randn(10_000, 65)
    targets = torch.randint(0, 65, (10_000,))
    return F.cross_entropy(logits, targets).item()


# exercise 3
def self_and_two_before(T):
    ones = torch.ones(T, T, dtype=torch.bool)
    return ones.tril() & ones.triu(-2)


# exercise 4
def one_head_by_me(x, wq, wk, wv):
    q, k, v = x @ wq, x @ wk, x @ wv
    T, hs = x.size(1), q.size(-1)
    future = torch.ones(T, T, dtype=torch.bool).triu(1)
    scores = q @ k.mT / hs**0.5
    return scores.masked_fill(future, float("-inf")).softmax(-1) @ v


def variance(hs):
    return hs  # hs products are added, each of variance 1


# exercise 5
def is_order_blind(model, idx):
    order = torch.randperm(idx.size(1) - 1)
    shuffled = torch.cat((idx[:, :-1][:, order], idx[:, -1:]), dim=1)
    before, after = model(idx)[0][:, -1], model(shuffled)[0][:, -1]
    return torch.allclose(before, after, atol=1e-4)


# exercise 6
def leaks(mask):
    return mask.triu(1).any().item()


# exercise 7
def heads_without_a_loop(q, k, v, nh):
    B, T, C = q.shape
    q, k, v = (y.view(B, T, nh, C // nh).transpose(1, 2) for y in (q, k, v))
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return y.transpose(1, 2).reshape(B, T, C)


# exercise 8
def diagnosis():
    # A: change a letter, and the guess one place before it changes.
    # B: the stream leaves the last block many times wider than it came in.
    # C: causal and well sized, but the pattern is flatter than the sound model's.
    return {"A": "leak", "B": "init", "C": "scale"}


# exercise 9
def block_parameters(C):
    attention = 3 * C * C + 3 * C + C * C + C
    mlp = 4 * C * C + 4 * C + 4 * C * C + C
    norms = 2 * 2 * C
    return attention + mlp + norms  # 12 C^2 + 13 C


# exercise 10
def top_p(probs, p):
    ordered, order = probs.sort(descending=True)
    before = ordered.cumsum(0) - ordered  # held by the likelier ones
    probs[order[before >= p]] = 0
    return probs / probs.sum()
