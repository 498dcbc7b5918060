"""Shares of right answers.

n pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import ShapeError


def correct(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return (n,) float64: 1 where ``predicted`` (n,) equals ``truth`` (n,), else 0.

    Raises:
        ShapeError: if the lengths differ.
    """
    if truth.shape != predicted.shape:
        raise ShapeError(f"{truth.shape} labels and {predicted.shape} predictions")
    right: NDArray[np.float64] = np.equal(truth, predicted).astype(np.float64)
    return right


def overall_accuracy(truth: NDArray[np.integer], predicted: NDArray[np.integer]) -> float:
    """Return the share of right answers, in [0, 1], of two integer arrays (n,) with n > 0."""
    return float(correct(truth, predicted).mean())
