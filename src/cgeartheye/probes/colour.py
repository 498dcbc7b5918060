"""Colour alone: the baselines every learnt feature has to be held against, and the embedding used while there are no weights."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import ShapeError

LEVELS: Final = 8
"""Bins a channel of the joint histogram [ours]: 8 x 8 x 8 = 512."""


def joint_histogram(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the square root of the joint 8 x 8 x 8 histogram of R, G and B.

    The shares sum to 1, so the roots have unit length, and a dot product of two of them is the Bhattacharyya coefficient.

    Args:
        image: (H, W, 3) uint8.

    Returns: (512,) float32 >= 0 of unit length; bin (r, g, b) stands at 64 r + 8 g + b.
    Raises: ShapeError: if the image is not (H, W, 3) uint8 or has no pixel.
    """
    _check(image)
    levels = (image >> 5).astype(np.int64)
    codes = (levels[..., 0] * LEVELS + levels[..., 1]) * LEVELS + levels[..., 2]
    counts = np.bincount(codes.ravel(), minlength=LEVELS**3)
    return np.sqrt(counts / codes.size).astype(np.float32)


def mean_std(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return mean and standard deviation of R, G and B.

    Args:
        image: (H, W, 3) uint8.

    Returns: (6,) float32 in [0, 1]: three means, then three deviations (population form), of values scaled to [0, 1].
    Raises: ShapeError: if the image is not (H, W, 3) uint8 or has no pixel.
    """
    _check(image)
    values = image.reshape(-1, 3) / 255.0
    return np.concatenate([values.mean(axis=0), values.std(axis=0)]).astype(np.float32)


def _check(image: NDArray[np.uint8]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        message = f"expected (H, W, 3) uint8 with at least one pixel, got {image.shape} {image.dtype}"
        raise ShapeError(message)
