"""Learning from other models beside the text: their probabilities are targets too (Hinton et al. 2015)."""

import torch
import torch.nn.functional as F


def soft_loss(model, x, y):
    """Cross-entropy against whole distributions y (B, T, V)."""
    return F.cross_entropy(model(x)[0].flatten(0, 1).float(), y.flatten(0, 1))


@torch.no_grad()
def soft_targets(teachers, x, y, weight):
    """weight * the teachers' mean probabilities + (1 - weight) * the id that comes: (B, T, V)."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16):
        probs = sum(teacher(x)[0].float().softmax(dim=-1) for teacher in teachers) / len(teachers)
    text = torch.full_like(y[..., None], 1 - weight, dtype=probs.dtype)
    return (weight * probs).scatter_add_(-1, y[..., None], text)
