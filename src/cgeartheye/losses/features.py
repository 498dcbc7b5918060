"""Distances between a student's features, mapped to the teacher's width, and the teacher's.

Source: AM-RADIO, arXiv 2312.06709, section 3.3.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from cgeartheye.losses.unit import unit

COSINE_SHARE: Final = 0.9
"""Share of the cosine in the distance of patches, the rest is of the values themselves [radio]."""


def cosine_distance(mapped: Tensor, taught: Tensor) -> Tensor:
    """Return 1 - cos of (..., D) float ``mapped`` and ``taught``, in 0 .. 2, (...) in float32 at least."""
    working = torch.promote_types(mapped.dtype, torch.float32)
    return 1 - (unit(mapped.to(working)) * unit(taught.to(working))).sum(-1)


def patch_distance(mapped: Tensor, taught: Tensor) -> Tensor:
    """Return 0.9 (1 - cos) + 0.1 smooth L1, the latter a mean over features, of (..., D) float tokens: (...) float32 at least.

    The cosine matches directions, the rest also their lengths.
    """
    working = torch.promote_types(mapped.dtype, torch.float32)
    lengths = F.smooth_l1_loss(mapped.to(working), taught.to(working), reduction="none").mean(-1)
    return COSINE_SHARE * cosine_distance(mapped, taught) + (1 - COSINE_SHARE) * lengths
