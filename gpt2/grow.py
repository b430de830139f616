"""Build a larger GPT-2 out of smaller ones: it begins where they stand, and is trained on from there.

grow(models, config) puts n small models side by side in one wide model. With C the width of a small one:
    stream      n * C features: those of the first model, then those of the second, and so on
    matrices    block diagonal: each model reads and writes its own features; the zeros between may learn
    logits      the mean of the models' logits, by the tied table and a gain of 1 / n in the last LayerNorm
    depth       blocks between the old ones whose c_proj is zero: they add nothing until they learn
    positions   rows of wpe beyond the small context are copies of its second half, in turn
One thing is shared from the start: LayerNorm takes mean and variance over all features. Gains make up
for the mean difference in size; what differs from letter to letter stays, and training mends it. A
single model (n = 1) grows
exactly: only depth and context are added.
"""

import copy
import os

import torch

from gpt2.errors import TrainError
from model_gpt2 import GPT


def load_models(folders, flag):
    """The models of several folders (or of the Hub), commas between them."""
    names = [name for name in folders.split(",") if name]
    for name in names:
        check_folder(name, flag)
    try:
        return [GPT.from_pretrained(name) for name in names]
    except ValueError as error:
        raise TrainError(f"{flag}: {error}") from error


def check_folder(name, flag):
    """Refuse at once a run's folder in place of its best/, and a folder that is not there."""
    best, parent = os.path.join(name, "best"), os.path.dirname(name)
    if os.path.isdir(best) and not os.path.exists(os.path.join(name, "config.json")):
        raise TrainError(f"{flag}: {name} is the folder of a run, not of a model (did you mean {best}?).")
    on_hub = name.count("/") == 1 and not name.startswith((".", "~", "out/")) and not os.path.isdir(parent)
    if not os.path.isdir(name) and not on_hub:
        raise TrainError(f"{flag}: there is no folder {name}: check the path (a model of the Hub is named "
                         "OWNER/NAME).")


def grown(folders, config, ids):
    """The model of shape `config` that the folders of --grow-from make together; ids (N,): their text."""
    models = load_models(folders, "--grow-from")
    T = models[0].config.block_size
    try:
        return grow(models, config, ids[: 16 * T].view(16, T)).train()
    except ValueError as error:
        raise TrainError(f"--grow-from: {error}") from error


def freeze_matrices(model, grow_from):
    if not grow_from:
        raise TrainError("--freeze-matrices (part of gpt2-char) trains on what --grow-from puts together: "
                         "name its folders, or train all with --no-freeze-matrices.")
    for p in model.parameters():
        p.requires_grad_(p.dim() < 2)


@torch.no_grad()
def grow(models, config, sample=None):
    """n GPTs of one shape -> a GPT of `config`, whose n_embd and n_head are n times theirs.

    sample: ids (B, T) on which the sizes of the models' streams are compared; None leaves the gains as
    they are. Raises ValueError where the shapes do not fit.
    """
    n, small = len(models), models[0].config
    check(models, config)
    big, models = GPT(config), [centred(m) for m in models]
    t, parts = big.transformer, [m.transformer for m in models]
    t.wte.weight.copy_(torch.cat([p.wte.weight for p in parts], dim=1))
    t.wpe.weight[: small.block_size] = torch.cat([p.wpe.weight for p in parts], dim=1)
    extend_positions(big, small.block_size, config.block_size)
    for block in t.h:
        silence(block)
    for new, *old in zip(places(t.h, small.n_layer), *(p.h for p in parts), strict=True):
        fill_block(new, old)
    norm_side_by_side(t.ln_f, [p.ln_f for p in parts], 1 / n)
    if not config.tie_weights:
        big.lm_head.weight.copy_(torch.cat([m.lm_head.weight for m in models], dim=1))
    if sample is not None and n > 1:
        match_sizes(big, models, sample)
    return big.eval()


def check(models, config):
    """Raise ValueError where the models do not make this shape."""
    small, n = models[0].config, len(models)
    shapes = {(m.config.n_layer, m.config.n_head, m.config.n_embd, m.config.block_size) for m in models}
    if len(shapes) > 1:
        raise ValueError(f"models that grow together must have one shape, not {sorted(shapes)}.")
    wanted = n * small.n_head, n * small.n_embd
    if (config.n_head, config.n_embd) != wanted:
        raise ValueError(f"{n} models side by side make {wanted[0]} heads and width {wanted[1]}, "
                         f"not {config.n_head} and {config.n_embd}.")
    if config.n_layer < small.n_layer or config.block_size < small.block_size:
        raise ValueError(f"{small.n_layer} layers and context {small.block_size} do not fit in "
                         f"{config.n_layer} and {config.block_size}.")


def places(blocks, n):
    """n of the blocks, spread evenly: the others are added."""
    return [blocks[i * len(blocks) // n] for i in range(n)]


def silence(block):
    """Make a block add nothing to the stream."""
    for linear in (block.attn.c_proj, block.mlp.c_proj):
        torch.nn.init.zeros_(linear.weight)
        if linear.bias is not None:
            torch.nn.init.zeros_(linear.bias)


def fill_block(new, old):
    norm_side_by_side(new.ln_1, [b.ln_1 for b in old])
    norm_side_by_side(new.ln_2, [b.ln_2 for b in old])
    side_by_side(new.attn.c_attn, [b.attn.c_attn for b in old], parts=3)  # query, key and value in one
    side_by_side(new.attn.c_proj, [b.attn.c_proj for b in old])
    side_by_side(new.mlp.c_fc, [b.mlp.c_fc for b in old])
    side_by_side(new.mlp.c_proj, [b.mlp.c_proj for b in old])


def side_by_side(new, old, parts=1):
    """Linears (out, in) -> one (n * out, n * in), block diagonal; each of `parts` stacked matrices apart."""
    weights = zip(*(linear.weight.chunk(parts) for linear in old), strict=True)
    new.weight.copy_(torch.cat([torch.block_diag(*ws) for ws in weights]))
    if new.bias is not None:
        biases = zip(*(linear.bias.chunk(parts) for linear in old), strict=True)
        new.bias.copy_(torch.cat([b for bs in biases for b in bs]))


def norm_side_by_side(new, old, gain=1.0):
    new.weight.copy_(torch.cat([norm.weight for norm in old]) * gain)
    if new.bias is not None:
        new.bias.copy_(torch.cat([norm.bias for norm in old]) * gain)


def centred(model):
    """A copy whose blocks and positions write vectors of mean zero. LayerNorm does not see the difference."""
    model = copy.deepcopy(model).eval()
    t = model.transformer
    t.wpe.weight -= t.wpe.weight.mean(dim=1, keepdim=True)
    for linear in (part.c_proj for block in t.h for part in (block.attn, block.mlp)):
        linear.weight -= linear.weight.mean(dim=0)
        if linear.bias is not None:
            linear.bias -= linear.bias.mean()
    return model


def match_sizes(big, models, sample):
    """Scale the gain of each model's features, norm by norm: the common spread over the model's own."""
    layers = places(range(big.config.n_layer), models[0].config.n_layer)
    spreads = [norm_spreads(m, sample) for m in models]  # for each model, for each norm: (B, T)
    norms = [norm for i in layers for norm in (big.transformer.h[i].ln_1, big.transformer.h[i].ln_2)]
    C = models[0].config.n_embd
    for norm, *own in zip([*norms, big.transformer.ln_f], *spreads, strict=True):
        common = torch.stack(own).square().mean(dim=0).sqrt()
        for i, spread in enumerate(own):
            norm.weight[i * C : (i + 1) * C] *= (common / spread).mean()


def norm_spreads(model, sample):
    """The standard deviation over the features at the input of each LayerNorm, in order: a list of (B, T)."""
    t, seen = model.transformer, []
    norms = [norm for block in t.h for norm in (block.ln_1, block.ln_2)] + [t.ln_f]
    hooks = [n.register_forward_hook(lambda m, args, out: seen.append(args[0].std(dim=-1))) for n in norms]
    model(sample)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def extend_positions(model, old, new):
    """Rows old..new of wpe become copies of rows old/2..old, in turn: a start for untrained positions."""
    wpe, half = model.transformer.wpe.weight, max(1, old // 2)
    for first in range(old, new, half):
        end = min(first + half, new)
        wpe[first:end] = wpe[half : half + end - first]
