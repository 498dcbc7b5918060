"""AdamW as the loops use it: scheduled by group, clipped, skipped when a gradient is not finite, saved by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def adamw(groups: list[dict[str, Any]], *, betas: tuple[float, float]) -> torch.optim.AdamW:
    """Return a fused AdamW over the groups of :func:`cgeartheye.training.parameters.parameter_groups`, moments at 0."""
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, weight_decay=0.0, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            zeros = {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in MOMENTS[:2]}
            optimizer.state[parameter] = {**zeros, "step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float, freeze_last: bool) -> None:
    """Set this step's learning rate and decay in every group; prototypes stand still while ``freeze_last``."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if freeze_last and group["last"] else lr * group["lr_scale"]
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def step_if_finite(optimizer: torch.optim.Optimizer, *, clip: float) -> tuple[float, bool]:
    """Clip all gradients together and step, unless their norm is not finite; gradients are dropped afterwards.

    Returns:
        the norm before clipping, and whether the step was made.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, clip))
    finite = norm - norm == 0.0
    if finite:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments and step counts by parameter name; the tensors are the optimizer's own, so loading is in place."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for moment in MOMENTS
    }
