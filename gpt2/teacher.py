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

    Row i is about ids[i], given what stands before it. Windows are those of the teachers' context T, each half
    over the last, so that at least T / 2 ids stand before (at the beginning: what there is; row 0 is even).
    """
    T, V = teachers[0].config.block_size, teachers[0].config.vocab_size
    check(teachers, len(ids), V)
    table = torch.full((len(ids), V), 1 / V, dtype=torch.float16)
    starts = range(0, max(1, len(ids) - 1 - T // 2), T // 2)
    for start in starts:
        x = ids[start : start + T][None].long().to(device)  # (1, T)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            probs = sum(t(x)[0].float().softmax(dim=-1) for t in teachers) / len(teachers)  # (1, T, V)
        new = 0 if start == 0 else T // 2  # the first half was told by the window before
        rows = table[start + 1 + new : start + 1 + T]
        rows.copy_(probs[0, new : new + len(rows)])
    return table


def check(teachers, n, V):
    if len({(t.config.block_size, t.config.vocab_size) for t in teachers}) > 1:
        raise TrainError("--teacher: the teachers must have one context and one vocabulary.")
    if 2 * n * V > TABLE_BYTES:
        raise TrainError(f"--teacher keeps {V:,} probabilities for each of {n:,} tokens, {2 * n * V / 2**30:.0f} GB: "
                         "use a shorter text or a smaller vocabulary.")
