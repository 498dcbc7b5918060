"""Which classes are taken for which.

n pictures, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import ShapeError


def confusion_matrix(truth: NDArray[np.integer], predicted: NDArray[np.integer], *, classes: int) -> NDArray[np.int64]:
    """Count pictures by true class (rows) and predicted class (columns).

    Args:
        truth: (n,) labels in [0, classes).
        predicted: (n,) labels in [0, classes).
        classes: number of classes C.

    Returns:
        (C, C) int64.

    Raises:
        ShapeError: if the lengths differ or a label is out of range.
    """
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ShapeError(f"{truth.shape} labels and {predicted.shape} predictions")
    both = np.concatenate([truth, predicted])
    if both.size and (both.min() < 0 or both.max() >= classes):
        raise ShapeError(f"labels are in [0, {classes}), got {both.min()} to {both.max()}")
    flat = np.bincount(truth.astype(np.int64) * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(np.int64)
