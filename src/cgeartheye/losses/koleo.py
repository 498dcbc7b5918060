"""Spread of features over the sphere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST_DISTANCE = 1e-4


def koleo(features: Tensor) -> Tensor:
    """Penalise small distances to the nearest neighbour.

    Args:
        features: (B, D) float of one view a place; normalised to the sphere here.

    Returns:
        scalar, minus the mean logarithm of the distance to the nearest other row; distances are clamped at 1e-4, so equal
        rows give no infinity. 0 if B < 2.

    Source: Sablayrolles et al., arXiv 1806.03198 (Kozachenko-Leonenko estimator).
    """
    if len(features) < 2:
        return features.sum() * 0.0
    rows = F.normalize(features.float(), dim=-1)
    with torch.no_grad():
        similar = rows @ rows.T
        similar.fill_diagonal_(-2.0)
        nearest = similar.argmax(1)
    distance = (rows - rows[nearest]).square().sum(1).clamp(min=_LEAST_DISTANCE**2).sqrt()
    return -distance.log().mean()
