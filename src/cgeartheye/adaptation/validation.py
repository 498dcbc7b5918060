"""Judging a head on the validation windows: confusions by group of ground, and one temperature for its confidences.

m sampled pixels, C classes, P side of a window in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.adaptation.legend import IGNORED
from cgeartheye.metrics.segmentation import confusion
from cgeartheye.seeding import stream

PIXELS_A_WINDOW: Final = 400
"""Pixels drawn from each window for the temperature [ours]."""
_BATCH: Final = 8
_BINS: Final = 15

Logits = Callable[[Sequence[int]], Tensor]
"""Window numbers -> (n, C, P, P) float32 logits."""


@dataclass(frozen=True)
class Judged:
    """What validation windows say about one method.

    Attributes:
        confusions: (groups, C, C + 1) int64, groups in order of their names.
        logits: (m, C) float32 of sampled labelled pixels.
        truth: (m,) int64 their classes.
    """

    confusions: NDArray[np.int64]
    logits: Tensor
    truth: Tensor


def judge(logits_of: Logits, labels: NDArray[np.uint8], windows: Sequence[int], groups: Sequence[str], *, seed: int) -> Judged:
    """Predict windows batch by batch.

    Args:
        logits_of: the method.
        labels: (n, P, P) uint8 of all windows.
        windows: numbers of the validation windows.
        groups: their groups.
        seed: of the sampled pixels, which are the same for all methods.
    """
    names = sorted(set(groups))
    confusions, sampled, truths = None, [], []
    for start in range(0, len(windows), _BATCH):
        part = list(windows[start : start + _BATCH])
        logits = logits_of(part)
        classes = logits.shape[1]
        confusions = np.zeros((len(names), classes, classes + 1), np.int64) if confusions is None else confusions
        predicted = logits.argmax(1).to(torch.uint8).numpy()
        for offset, window in enumerate(part):
            confusions[names.index(groups[start + offset])] += confusion(labels[window], predicted[offset], classes)
            known = np.flatnonzero(labels[window].ravel() != IGNORED)
            picks = stream(seed, "calibration pixels", window).permutation(known)[:PIXELS_A_WINDOW]
            sampled.append(logits[offset].flatten(1)[:, torch.from_numpy(picks)].T)
            truths.append(torch.from_numpy(labels[window].ravel()[picks].astype(np.int64)))
    if confusions is None:
        return Judged(np.zeros((0, 0, 0), np.int64), torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64))
    return Judged(confusions, torch.cat(sampled), torch.cat(truths))


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """Return the divisor of the logits with the least cross-entropy, in [0.05, 20], by golden section (Guo et al. 2017).

    Args:
        logits: (m, C) float.
        truth: (m,) int64.
    """
    ratio = (5**0.5 - 1) / 2
    low, high = np.log(0.05), np.log(20.0)
    for _ in range(24):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _entropy(logits, truth, left) < _entropy(logits, truth, right):
            high = right
        else:
            low = left
    return round(float(np.exp((low + high) / 2)), 6)


def calibration_error(logits: Tensor, truth: Tensor, temperature: float = 1.0) -> float:
    """Return the expected calibration error of the largest probability, in 15 bins of equal width.

    Args:
        logits: (m, C) float.
        truth: (m,) int64.
        temperature: divisor of the logits.
    """
    confidence, predicted = torch.softmax(logits.double() / temperature, dim=1).max(1)
    right = (predicted == truth).double()
    bins = (confidence * _BINS).long().clamp_max(_BINS - 1)
    gap = torch.zeros(_BINS, dtype=torch.float64).index_add(0, bins, confidence - right)
    return float(gap.abs().sum() / len(truth))


def _entropy(logits: Tensor, truth: Tensor, log_temperature: float) -> float:
    return float(F.cross_entropy(logits.double() / float(np.exp(log_temperature)), truth))
