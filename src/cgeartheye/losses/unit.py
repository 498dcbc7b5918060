"""Rows scaled to length one, with the short gradient."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

LEAST: Final = 1e-12
"""Shorter rows are divided by this, as PyTorch's ``normalize`` does by default."""


def unit(rows: Tensor, *, least: float = LEAST) -> Tensor:
    """Return (..., d) float ``rows`` divided by their length, or by ``least`` where they are shorter.

    Equal to ``torch.nn.functional.normalize``, whose gradient autograd puts together from a dozen operations; it is
    (g - u (g . u)) / length, of first order only.
    """
    out: Tensor = _Unit.apply(rows, least)
    return out


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, least: float) -> Tensor:  # noqa: ANN401 - autograd's context
        """Return (R, d) rows of length one."""
        length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True).clamp_(min=least)
        units: Tensor = rows / length
        ctx.save_for_backward(units, length)
        return units

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - autograd's context
        """Return the gradient of (R, d) rows."""
        units, length = ctx.saved_tensors
        along = torch.linalg.vecdot(grad, units)[..., None]
        slope: Tensor = torch.addcmul(grad, units, along, value=-1).div_(length)
        return slope, None
