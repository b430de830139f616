"""Learning from other models: their probabilities are targets beside the text (Hinton et al. 2015)."""

import torch
import torch.nn.functional as F

from gpt2.errors import TrainError

TABLE_BYTES = 4 * 2**30  # the most that a table of probabilities may take


def soft_loss(model, x, y):
    """Cross-entropy against whole distributions y (B, T, V)."""
    return F.cross_entropy(model(x)[0].flatten(0, 1).float(), y.flatten(0, 1))


def soft_targets(probs, y, weight):
    """weight * probs (B, T, V) + (1 - weight) * the id that comes, y (B, T): (B, T, V), fp32."""
    text = torch.full_like(y[..., None], 1 - weight, dtype=torch.float32)
    return (weight * probs.float()).scatter_add_(-1, y[..., None], text)


@torch.no_grad()
def teacher_table(teachers, ids, device):
    """What the teachers expect at each place of ids (N,): (N, V) fp16, the mean of their probabilities.

    Row i is about ids[i], given what stands before it. Windows are those of the teachers' context T,
    each half over the last, so that at least T / 2 ids stand before (at the beginning: what there is;
    row 0 is even).
    """
    T, V, N = teachers[0].config.block_size, teachers[0].config.vocab_size, len(ids)
    check(teachers, N, V)
    half, ids = max(1, T // 2), torch.as_tensor(ids[:]).long()
    padded = torch.cat((ids, ids.new_zeros(T)))  # no place sees what stands after it
    windows = padded.unfold(0, T, half)[: 1 + max(0, -(-(N - 1 - T) // half))]  # (W, T)
    table, end = torch.full((N + T, V), 1 / V, dtype=torch.float16), 1
    for x in windows.split(max(1, 4096 // T)):
        with torch.autocast(device.type, dtype=torch.bfloat16):
            probs = sum(t(x.to(device))[0].float().softmax(dim=-1) for t in teachers)  # (B, T, V)
            probs = probs / len(teachers)
        if end == 1:  # only the first window tells of its own first half
            table[1 : T + 1 - half], end = probs[0, : T - half], T + 1 - half
        new = probs[:, T - half :].flatten(0, 1)
        table[end : end + len(new)] = new
        end += len(new)
    return table[:N]


def check(teachers, n, V):
    if len({(t.config.block_size, t.config.vocab_size) for t in teachers}) > 1:
        raise TrainError("--teacher: the teachers must have one context and one vocabulary.")
    if 2 * n * V > TABLE_BYTES:
        raise TrainError(f"--teacher keeps {V:,} probabilities for each of {n:,} tokens, "
                         f"{2 * n * V / 2**30:.0f} GB: use a shorter text or a smaller vocabulary.")
