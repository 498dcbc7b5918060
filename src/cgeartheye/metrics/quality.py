"""Measures of a chip's quality. Only the certain ones become limits elsewhere; all are worth storing beside the chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cgeartheye.errors import ShapeError

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G, B in grey (ITU-R BT.601)."""
REBLUR_SIGMA_PX: Final = 1.5
"""Width of the further blur [ours]: sharp pictures keep 0.2 to 0.5 of their gradient, ones blurred by 2 px over 0.7."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of one chip.

    Args:
        nodata: share of pixels without data, [0, 1].
        saturated: share of the valid pixels' R, G, B values that are 255, [0, 1].
        std: standard deviation of grey over valid pixels, [0, 127.5].
        entropy: of the 256-bin grey histogram of valid pixels, bits in [0, 8].
        reblur: share of the absolute gradient that a further blur leaves, [0, 1]; 0 for a picture without gradient.
    """

    nodata: float
    saturated: float
    std: float
    entropy: float
    reblur: float


def measure_quality(image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> Quality:
    """Measure one chip.

    Args:
        image: (H, W, 3) uint8, RGB.
        valid: (H, W) bool, False where there is no data.

    Raises: ShapeError: if the two do not fit or have no pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != valid.shape or valid.size == 0:
        message = f"expected an image (H, W, 3) and a mask (H, W), got {image.shape} and {valid.shape}"
        raise ShapeError(message)
    if not valid.any():
        return Quality(1.0, 0.0, 0.0, 0.0, 0.0)
    grey = image @ LUMA
    counts = np.bincount(np.rint(grey[valid]).astype(np.int64), minlength=256)
    return Quality(
        nodata=float(1 - valid.mean()),
        saturated=float((image[valid] == 255).mean()),
        std=float(grey[valid].std(dtype=np.float64)),
        entropy=_entropy(counts),
        reblur=_reblur(grey, valid),
    )


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


def _reblur(grey: NDArray[np.float32], valid: NDArray[np.bool_]) -> float:
    """Compare absolute gradients before and after a blur, where neither touches a pixel without data (Crete et al. 2007)."""
    filled = np.where(valid, grey, grey[valid].mean())
    inside = valid if valid.all() else ndimage.binary_erosion(valid, iterations=int(4 * REBLUR_SIGMA_PX), border_value=1)
    before = _gradient(filled, inside)
    if before == 0:
        return 0.0
    return min(1.0, _gradient(ndimage.gaussian_filter(filled, REBLUR_SIGMA_PX), inside) / before)


def _gradient(grey: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    down = np.abs(np.diff(grey, axis=0))[inside[1:] & inside[:-1]]
    across = np.abs(np.diff(grey, axis=1))[inside[:, 1:] & inside[:, :-1]]
    return float(down.sum(dtype=np.float64) + across.sum(dtype=np.float64))
