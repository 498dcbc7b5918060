"""Learned positions brought to any number of patches, the way the weights were trained to be.

s side of the learned square table in patches, h w patches of an image, D width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import torch
from torch import Tensor

Interpolation = Literal["plain", "dinov2", "antialias"]
"""``plain``: bicubic (MMPretrain, Hugging Face's ``Dinov2Model``); ``dinov2``: bicubic, its coordinates scaled by
(target + 0.1) / source (DINOv2's hub models without registers); ``antialias``: bicubic with antialias (timm, register models)."""

OFFSET: Final = 0.1
"""Added to the target's side by DINOv2 before it computes the scale."""
_SHARPNESS: Final = {"plain": -0.75, "dinov2": -0.75, "antialias": -0.5}
"""Keys' parameter a of the cubic kernel, as PyTorch has it without and with antialias."""


def resize_positions(table: Tensor, h: int, w: int, method: Interpolation = "plain") -> Tensor:
    """Resize a learned table of positions.

    The resampling is linear and separable, so it is two small matrices, made once per size; gradients flow to the table. It is
    computed in float32 at least, whatever the table's type, because half precision moves the positions.

    Args:
        table: (s, s, D) float.
        h: rows wanted.
        w: columns wanted.
        method: see :data:`Interpolation`.

    Returns:
        (h, w, D) in the table's type; the table itself if it has that size.
    """
    source = table.shape[0]
    traced = torch.compiler.is_compiling()
    if not traced and h == w == source:
        return table
    working = torch.promote_types(table.dtype, torch.float32)
    if traced:
        # the size may be symbolic: nothing is kept, and the offset of `dinov2` goes away by arithmetic, not by a branch
        same = (torch.scalar_tensor(h) == source) & (torch.scalar_tensor(w) == source)
        rows, columns = (resampling_matrix(source, side, method, same=same).to(table.device, working) for side in (h, w))
    else:
        rows, columns = (_kept_matrix(source, side, method, table.device, working) for side in (h, w))
    D = table.shape[2]
    tall = (rows @ table.to(working).reshape(source, source * D)).view(h, source, D)  # one direction, then the other
    return torch.matmul(columns, tall).to(table.dtype)


@lru_cache(maxsize=256)
def _kept_matrix(source: int, target: int, method: Interpolation, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(mode=False):  # kept for training too, wherever it was first asked for
        return resampling_matrix(source, target, method).to(device, dtype)


def resampling_matrix(source: int, target: int, method: Interpolation, *, same: Tensor | None = None) -> Tensor:
    """Return the (target, source) float64 matrix of one-dimensional bicubic resampling, as PyTorch computes it.

    Args:
        source: numbers given.
        target: numbers wanted; may be symbolic while a program is exported.
        method: see :data:`Interpolation`.
        same: () bool, True where ``dinov2`` adds no offset because the size does not change; None says it changes.

    Source: Keys 1981, doi 10.1109/TASSP.1981.1163711, equation 15; support and weights with antialias as in Pillow.
    """
    given = torch.arange(source, dtype=torch.float64)  # (source,)
    wanted = torch.arange(target, dtype=torch.float64)[:, None]  # (target, 1)
    offset: Tensor | float = 0.0
    if method == "dinov2":
        offset = OFFSET if same is None else OFFSET * (1 - same.to(torch.float64))
    scale = source / (torch.scalar_tensor(target, dtype=torch.float64) + offset)
    a = _SHARPNESS[method]
    if method == "antialias":
        wider = torch.clamp(scale, min=1.0)
        weights = _cubic((given + 0.5 - (wanted + 0.5) * scale) / wider, a)  # (target, source)
        return weights / weights.sum(dim=1, keepdim=True)
    centre = (wanted + 0.5) * scale - 0.5
    first = torch.floor(centre)
    matrix = torch.zeros((), dtype=torch.float64)
    for tap in (-1, 0, 1, 2):  # taps beyond the edge count for the edge
        place = torch.clamp(first + tap, min=0, max=source - 1)
        matrix = matrix + _cubic(centre - first - tap, a) * (place == given)
    return matrix


def _cubic(x: Tensor, a: float) -> Tensor:
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
