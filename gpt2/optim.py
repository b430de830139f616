"""The optimizers: AdamW, and Muon for the matrices of the blocks."""

import torch


def orthogonalize(g, dtype, steps=5):
    """Matrices (..., m, n) -> nearly the closest ones with all singular values 1 (they land in 0.7 to 1.2).

    A quintic Newton-Schulz iteration (Jordan et al. 2024, "Muon"). Dividing by the norm first keeps
    every number within fp16's range, so a T4, which has no bf16 units, can run it too.
    """
    x = (g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)).to(dtype)
    tall = x.size(-2) > x.size(-1)
    x = x.mT if tall else x
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal: all directions of a matrix learn at one rate. Matrices only."""

    def __init__(self, params, lr=0.02, momentum=0.95, weight_decay=0.0, dtype=torch.float32):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            by_shape = {}  # the same matrix of every layer in one stack: fewer and larger products
            for p in group["params"]:
                if p.grad is not None:
                    by_shape.setdefault(p.shape, []).append(p)
            for (rows, columns), params in by_shape.items():
                step = self._momentum_step(params, group["momentum"])  # (n, rows, columns)
                if rows == 3 * columns:  # c_attn is three matrices in one: query, key and value
                    rows = columns
                updates = orthogonalize(step.view(-1, rows, columns), self.dtype).view_as(step)
                scale = max(1, rows / columns) ** 0.5
                for p, update in zip(params, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)

    def _momentum_step(self, params, momentum):
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
            self.state[p]["momentum"].lerp_(p.grad, 1 - momentum)
        means = torch.stack([self.state[p]["momentum"] for p in params])
        return torch.stack([p.grad for p in params]).lerp(means, momentum)  # Nesterov: look one step ahead


def make_optimizers(model, config, dtype):
    """[AdamW] or [Muon, AdamW]. Weight decay pulls on matrices, never on biases and LayerNorm."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    muon = [p for n, p in named if ".h." in n and p.dim() == 2] if config.optimizer == "muon" else []
    taken = {id(p) for p in muon}
    rest = [p for _, p in named if id(p) not in taken]
    groups = [{"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay},
              {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0}]
    fused = rest[0].device.type in ("cuda", "cpu")
    groups = [g for g in groups if g["params"]]
    adamw = torch.optim.AdamW(groups, config.lr, (config.beta1, config.beta2), fused=fused)
    if not muon:
        return [adamw]
    return [Muon(muon, config.muon_lr, weight_decay=config.weight_decay, dtype=dtype), adamw]
