"""Weights with which overlapping windows are added up: a centre crop with a feather over half of each overlap.

A centre crop alone leaves a visible line at window borders; weights that fall linearly over the middle half of the
overlap remove it, and the outer quarter, where a model sees least context, is thrown away. Neighbouring weights are
complementary, so they add up to one by construction and no raster of weights is needed.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.geometry.windows import WindowPlan

ONE: Final = 2**24
"""Fixed-point value of the probability 1. Weighted probabilities are added as whole numbers, so their sum depends
neither on the order of addition nor on how windows are grouped; float32 holds every integer up to this one."""


def feather(window_px: int, halo_px: int, *, first: bool, last: bool) -> NDArray[np.float32]:
    """Return the weight of each pixel along one axis of a window.

    Args:
        window_px: side of the window.
        halo_px: its halo, even; the ramp is ``halo_px`` wide and centred on the border of the core.
        first: the window lies at the scene's first edge, which it needs to share with nobody.
        last: likewise at the last edge.

    Returns: (window_px,) in [0, 1]; the falling end of a window and the rising end of the next add up to one.
    """
    margin = halo_px // 2
    rising = ((np.arange(halo_px) + 0.5) / max(halo_px, 1)).astype(np.float32)
    weight = np.ones(window_px, np.float32)
    if not first:
        weight[:margin] = 0
        weight[margin : margin + halo_px] = rising
    if not last:
        end = window_px - margin
        weight[end - halo_px : end] = np.float32(1) - rising
        weight[end:] = 0
    return weight


def window_weight(plan: WindowPlan, i: int, j: int) -> NDArray[np.float32]:
    """Return the (window_px, window_px) weight of window ``(i, j)`` of a plan."""
    rows, cols = plan.counts
    vertical = feather(plan.window_px, plan.halo_px, first=i == 0, last=i == rows - 1)
    horizontal = feather(plan.window_px, plan.halo_px, first=j == 0, last=j == cols - 1)
    return vertical[:, None] * horizontal[None, :]


def decide(sums: NDArray[np.int32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Turn summed fixed-point probabilities into a class number and a confidence.

    Args:
        sums: (C, H, W) int32, weighted probabilities in units of 1 / :data:`ONE`.

    Returns: (H, W) uint8 index of the largest sum (the first of equals), and (H, W) uint8 its probability scaled to
        0 .. 254, because 255 is no-data.
    """
    best = sums.argmax(axis=0)
    top = np.take_along_axis(sums, best[None], axis=0)[0].astype(np.int64)
    confidence = np.clip((top * 254 + ONE // 2) // ONE, 0, 254)
    return best.astype(np.uint8), confidence.astype(np.uint8)
