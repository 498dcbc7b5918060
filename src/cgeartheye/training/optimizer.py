"""AdamW as the loops use it: scheduled by group, clipped and skipped on the device, saved by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def adamw(groups: list[dict[str, Any]], *, betas: tuple[float, float]) -> torch.optim.AdamW:
    """Return a fused AdamW over the groups of :func:`cgeartheye.training.parameters.parameter_groups`, moments at 0."""
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, weight_decay=0.0, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            zeros = {name: torch.zeros_like(parameter, memory_format=torch.preserve_format) for name in MOMENTS[:2]}
            optimizer.state[parameter] = {**zeros, "step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float, backbone: float = 1.0) -> None:
    """Set this step's learning rate and decay in every group; ``backbone`` is a factor on the rate of the backbone's groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"] * (backbone if group["backbone"] else 1.0)
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def clip_and_step(optimizer: torch.optim.AdamW, *, clip: float) -> tuple[Tensor, Tensor]:
    """Clip all gradients together and step, unless their norm is not finite; gradients are dropped afterwards.

    Everything is decided on the device: the fused kernel divides by the clipping factor and leaves parameters, moments and step
    counts alone where the norm is infinite or undefined, so no number travels to the host.

    Returns:
        the norm before clipping, and whether the step was made: () float and () bool tensors on the parameters' device.
    """
    norm = gradient_norm(optimizer)
    finite = norm.isfinite()
    optimizer.grad_scale = (norm / clip).clamp(min=1.0).float()  # type: ignore[attr-defined] # read by the fused kernel, as the GradScaler's
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the () norm of all gradients together, over all shards."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments and step counts by parameter name; the tensors are the optimizer's own, so loading is in place."""
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment]
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for moment in MOMENTS
    }
