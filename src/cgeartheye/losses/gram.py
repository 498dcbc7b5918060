"""Likeness of patches within a picture, held to what an earlier network said."""

from __future__ import annotations

import torch
from torch import Tensor

from cgeartheye.errors import ShapeError
from cgeartheye.losses.unit import unit


def gram_loss(student: Tensor, anchor: Tensor) -> Tensor:
    """Compute the mean squared difference of the cosines of every two patches of a picture.

    Only how alike patches are is compared, not what they are, so features may go on to change together.

    Args:
        student: (V, N, D) float, N patches of each of V pictures, of any length.
        anchor: (V, N, E) float of the same patches; gets no gradient. E may differ from D.

    Returns:
        scalar in [0, 4], in float32 at least: the mean over pictures and pairs of patches, of a patch with itself too; 0 if the
        cosines are equal. Gradients are of first order only.

    Raises:
        ShapeError: if pictures or patches differ in number.

    Source: DINOv3 (arXiv 2508.10104), the Gram objective, each picture by itself.
    """
    if student.ndim != 3 or student.shape[:2] != anchor.shape[:2]:
        raise ShapeError(f"patches are (V, N, D) and (V, N, E), got {tuple(student.shape)} and {tuple(anchor.shape)}")
    working = torch.promote_types(student.dtype, torch.float32)  # cosines of neighbours differ by less than bfloat16 can tell
    with torch.autocast(student.device.type, enabled=False):
        own, fixed = unit(student.to(working)), unit(anchor.detach().to(working))
        apart = own @ own.transpose(1, 2) - fixed @ fixed.transpose(1, 2)  # (V, N, N)
        return apart.square().mean()
