"""Learned positions brought to any number of patches.

s side of the learned square table in patches, h w patches of an image, D width.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_positions(table: Tensor, h: int, w: int) -> Tensor:
    """Resize a learned table of positions bicubically, without antialias or offset.

    The resampling is linear and separable, so it is two small matrices, made once per size; gradients flow to the table.

    Args:
        table: (s, s, D) float.
        h: rows wanted.
        w: columns wanted.

    Returns:
        (h, w, D) float; the table itself if it has that size.
    """
    if table.shape[:2] == (h, w):
        return table
    rows = resampling_matrix(table.shape[0], h).to(table)  # (h, s)
    columns = resampling_matrix(table.shape[1], w).to(table)  # (w, s)
    return torch.einsum("hs,wt,std->hwd", rows, columns, table)


@lru_cache(maxsize=256)
def resampling_matrix(source: int, target: int) -> Tensor:
    """Return the (target, source) float64 matrix of one-dimensional bicubic resampling (a = -0.75, edges replicated)."""
    identity = torch.eye(source, dtype=torch.float64)[None, None]  # (1, 1, source, source): column j is the unit vector j
    return F.interpolate(identity, size=(target, source), mode="bicubic", align_corners=False)[0, 0]
