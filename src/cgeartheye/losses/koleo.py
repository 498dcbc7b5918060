"""Spread of features over the sphere."""

from __future__ import annotations

import torch
from torch import Tensor

from cgeartheye.losses.unit import unit

_LEAST_DISTANCE = 1e-4


def koleo(features: Tensor) -> Tensor:
    """Penalise small distances to the nearest neighbour.

    Args:
        features: (V, B, D) float, V views of B places; normalised to the sphere here. Views are not compared with one another.

    Returns:
        scalar, the sum over views of minus the mean logarithm of the distance to the nearest other row; distances are clamped at
        1e-4, so equal rows give no infinity. 0 if B < 2.

    Source: Sablayrolles et al., arXiv 1806.03198 (Kozachenko-Leonenko estimator).
    """
    V, B, D = features.shape
    if B < 2:
        return features.sum() * 0.0
    rows = unit(features.to(torch.promote_types(features.dtype, torch.float32)))
    with torch.no_grad():
        similar = rows @ rows.transpose(1, 2)  # (V, B, B)
        similar.diagonal(dim1=1, dim2=2).fill_(-2.0)
        nearest = similar.argmax(2)  # (V, B)
    others = rows.gather(1, nearest[:, :, None].expand(V, B, D))
    distance = (rows - others).square().sum(2).clamp(min=_LEAST_DISTANCE**2).sqrt()
    return -distance.log().sum() / B
