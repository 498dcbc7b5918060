"""Scores of dense class maps, with intervals over blocks of ground.

Pixels of one place resemble each other, so intervals come from drawing whole blocks again, never pixels.
n blocks, C classes, m draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import ShapeError
from cgeartheye.seeding import stream


def confusion(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Count pixels by true class (rows) and predicted class (columns).

    Args:
        truth: class indices of any shape; values of ``classes`` and above are not labelled and are left out.
        predicted: indices of the same shape; a labelled pixel that was not mapped (``classes`` and above) is counted in the
            extra last column, hence as an error.
        classes: C.

    Returns: (C, C + 1) int64.
    """
    if truth.shape != predicted.shape:
        raise ShapeError(f"truth is {truth.shape}, the prediction {predicted.shape}")
    labelled = truth < classes
    true = truth[labelled].astype(np.int64)
    said = np.minimum(predicted[labelled], classes).astype(np.int64)
    return np.bincount(true * (classes + 1) + said, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of each class: (..., C, C + 1) -> (..., C); NaN for classes without true pixels."""
    classes = counts.shape[-2]
    hit = np.diagonal(counts, axis1=-2, axis2=-1)
    true = counts.sum(-1)
    union = true + counts[..., :classes].sum(-2) - hit
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(true > 0, hit / union, np.nan)


def mean_iou(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean IoU over the classes that have true pixels: (..., C, C + 1) -> (...); NaN if none has."""
    values = iou(counts)
    present = ~np.isnan(values)
    total = np.where(present, values, 0).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(present.any(-1), total / present.sum(-1), np.nan)


def overall_accuracy(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of labelled pixels that are right: (..., C, C + 1) -> (...); NaN if none is labelled."""
    hit = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy: NDArray[np.float64] = hit / counts.sum((-2, -1))
    return accuracy


def resampled(blocks: NDArray[np.int64], draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Draw whole blocks with replacement and add up their confusions: (n, C, C + 1) -> (m, C, C + 1) float64.

    Equal generators draw equal blocks, so the results of two methods on the same blocks are paired.
    """
    n = len(blocks)
    times = generator.multinomial(n, np.full(n, 1 / n), size=draws)
    return np.tensordot(times.astype(np.float64), blocks.astype(np.float64), axes=1)


def interval(values: NDArray[np.float64], level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of (m,) bootstrap values; draws in which the score is undefined are left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_table(
    confusions: Mapping[str, NDArray[np.int64]], names: list[str], *, draws: int, seed: int
) -> dict[str, dict[str, Any]]:
    """Return every score of every method with its interval, and what the first method gains over the others.

    Args:
        confusions: method -> (n, C, C + 1) by block; all methods on the same blocks. The first one is compared with the rest.
        names: names of the C classes.
        draws: bootstrap draws, the same for all methods.
        seed: of the draws.

    Returns: JSON values: method -> ``miou``, ``overall_accuracy``, ``iou`` (by class) and, for the other methods, ``gain`` of
        the first one's mIoU, each with ``low`` and ``high``, the 95 % percentile interval; undefined ones are None.
    """
    pooled = {m: blocks.sum(0).astype(np.float64) for m, blocks in confusions.items()}
    drawn = {m: resampled(blocks, draws, stream(seed, "block bootstrap")) for m, blocks in confusions.items()}
    first = next(iter(confusions))
    table: dict[str, dict[str, Any]] = {}
    for method, blocks in confusions.items():
        by_class, by_class_drawn = iou(pooled[method]), iou(drawn[method])
        table[method] = {
            "miou": _scored(mean_iou(pooled[method]), mean_iou(drawn[method])),
            "overall_accuracy": _scored(overall_accuracy(pooled[method]), overall_accuracy(drawn[method])),
            "iou": {name: _scored(by_class[k], by_class_drawn[:, k]) for k, name in enumerate(names)},
            "blocks": len(blocks),
            "pixels": int(pooled[method].sum()),
        }
        if method != first:
            gain = mean_iou(pooled[first]) - mean_iou(pooled[method])
            table[method]["gain"] = _scored(gain, mean_iou(drawn[first]) - mean_iou(drawn[method]))
    return table


def _scored(value: NDArray[np.float64], drawn: NDArray[np.float64]) -> dict[str, float | None]:
    low, high = interval(drawn)
    return {key: None if np.isnan(v) else round(float(v), 6) for key, v in (("value", value), ("low", low), ("high", high))}
