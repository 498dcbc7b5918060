"""AdamW as the loops use it: scheduled by group, clipped and skipped on the device, saved by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

MOMENTS: Final = ("exp_avg", "exp_avg_sq")
EPS: Final = 1e-8


class AdamW(torch.optim.Optimizer):
    """AdamW by PyTorch's fused kernel, one call a group.

    ``torch.optim.AdamW(fused=True)`` counts steps parameter by parameter and takes the count back where a step is skipped: three
    calls a group. With layer-wise decay there are some thirty groups, so here a group has one count, which grows by the number
    1 or 0 that says whether the step is made.

    Args:
        groups: as :func:`cgeartheye.training.parameters.parameter_groups` makes them; rates are set by :func:`set_rates`.
        betas: decay of the first and the second moment.

    Source: Loshchilov and Hutter, arXiv 1711.05101.
    """

    def __init__(self, groups: list[dict[str, Any]], *, betas: tuple[float, float]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})
        self.betas = betas
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {name: torch.zeros_like(parameter) for name in MOMENTS}
        device = self.param_groups[0]["params"][0].device
        self.counts = torch.zeros(len(self.param_groups), dtype=torch.float32, device=device)
        """(groups,) steps made."""

    @torch.no_grad()
    def step(  # type: ignore[override] # what it takes and returns is its own
        self, closure: Callable[[], Any] | None = None, *, scale: Tensor | None = None, made: Tensor | None = None
    ) -> None:
        """Update every parameter that has a gradient; ``scale`` and ``made`` are () tensors on the device.

        Args:
            closure: not used.
            scale: () float32 that gradients are divided by; None is 1.
            made: () float32, 1 where the step is made and 0 where it is skipped; None is 1.
        """
        del closure
        active = [k for k, group in enumerate(self.param_groups) if any(p.grad is not None for p in group["params"])]
        made = torch.ones((), device=self.counts.device) if made is None else made
        if len(active) == len(self.counts):
            self.counts.add_(made)
        else:
            torch._foreach_add_([self.counts[k] for k in active], made)
        skipped = 1 - made
        for k in active:
            self._update(self.param_groups[k], self.counts[k], scale, skipped)

    def _update(self, group: dict[str, Any], count: Tensor, scale: Tensor | None, skipped: Tensor) -> None:
        parameters = [p for p in group["params"] if p.grad is not None]
        first, second = ([_own(self.state[p][name]) for p in parameters] for name in MOMENTS)
        torch._fused_adamw_(
            [_own(p) for p in parameters],
            [_own(p.grad) for p in parameters],
            first,
            second,
            [],
            [count] * len(parameters),
            lr=group["lr"],
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=group["weight_decay"],
            eps=EPS,
            amsgrad=False,
            maximize=False,
            grad_scale=scale,
            found_inf=skipped,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return moments by parameter name and the counts; they are the optimizer's own, so loading is in place."""
        moments = {
            f"{moment}.{name}": self.state[parameter][moment]
            for group in self.param_groups
            for name, parameter in zip(group["names"], group["params"], strict=True)
            for moment in MOMENTS
        }
        return {**moments, "counts": self.counts}


def set_rates(optimizer: AdamW, *, lr: float, weight_decay: float, backbone: float = 1.0) -> None:
    """Set this step's learning rate and decay in every group; ``backbone`` is a factor on the rate of the backbone's groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"] * (backbone if group["backbone"] else 1.0)
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def clip_and_step(optimizer: AdamW, *, clip: float) -> tuple[Tensor, Tensor]:
    """Clip all gradients together and step, unless their norm is not finite; gradients are dropped afterwards.

    Everything is decided on the device: the fused kernel divides by the clipping factor and leaves parameters, moments and step
    counts alone where the norm is infinite or undefined, so no number travels to the host.

    Returns:
        the norm before clipping, and whether the step was made: () float and () bool tensors on the parameters' device.
    """
    norm = gradient_norm(optimizer)
    finite = norm.isfinite()
    optimizer.step(scale=(norm / clip).clamp(min=1.0).float(), made=finite.float())
    optimizer.zero_grad(set_to_none=True)
    return norm, finite


def gradient_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return the () norm of all gradients together, over all shards."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _own(value: Tensor | None) -> Tensor:
    if value is None:
        message = "a parameter without gradient was to be updated"
        raise ValueError(message)
    return value.to_local() if isinstance(value, DTensor) else value
