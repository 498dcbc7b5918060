"""Intervals over pictures (or whole places) and training seeds at once.

R replicates, S training seeds, n pictures, G groups of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import ShapeError
from cgeartheye.seeding import stream

_CHUNK = 64


class Estimate(NamedTuple):
    """A mean with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resamples:
    """Which groups and seeds each replicate holds; one set serves all rows of a data set, so that they are paired."""

    group_of: NDArray[np.int64]
    """(n,): number of each picture's group."""
    group_counts: NDArray[np.uint16]
    """(R, G): how often each replicate holds each group."""
    seed_counts: NDArray[np.uint16]
    """(R, S): how often each replicate holds each seed."""


def draw_resamples(groups: Sequence[str], *, seeds: int, replicates: int, seed: int) -> Resamples:
    """Draw bootstrap replicates of groups and, crossed with them, of training seeds.

    Args:
        groups: (n,) key of each picture's group; pictures of one group are drawn together. Unique keys give the plain bootstrap.
        seeds: number S of training seeds.
        replicates: number R of replicates.
        seed: start of the random stream.

    Raises:
        ShapeError: if there is no picture.

    Source: Efron and Tibshirani 1993, chapter 8 (resampling the independent units); crossing seeds and pictures as in
    Bouthillier et al. 2021 (arXiv 2103.03098) is our choice of both sources of variance.
    """
    if not groups:
        raise ShapeError("there is no picture to resample")
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    count = int(group_of.max()) + 1
    random = stream(seed, "bootstrap groups")
    group_counts = np.zeros((replicates, count), np.uint16)
    for row in group_counts:
        row[:] = np.bincount(random.integers(0, count, count), minlength=count)
    drawn = stream(seed, "bootstrap seeds").integers(0, seeds, (replicates, seeds))
    seed_counts = (drawn[:, :, None] == np.arange(seeds)).sum(axis=1).astype(np.uint16)
    return Resamples(group_of.astype(np.int64), group_counts, seed_counts)


def estimate(scores: NDArray[np.float64], resamples: Resamples, *, level: float = 0.95) -> Estimate:
    """Return the mean of scores, or of paired differences of scores, with its percentile interval.

    Args:
        scores: (S, n) float64; one row serves every seed.
        resamples: made for these n pictures and S seeds.
        level: coverage of the interval, in (0, 1).

    Raises:
        ShapeError: if the shapes do not fit.
    """
    S, n = resamples.seed_counts.shape[1], len(resamples.group_of)
    if scores.ndim != 2 or scores.shape[0] not in {1, S} or scores.shape[1] != n:
        raise ShapeError(f"scores are ({S}, {n}) or (1, {n}), got {scores.shape}")
    scores = np.broadcast_to(scores, (S, n))
    G = resamples.group_counts.shape[1]
    sums = np.stack([np.bincount(resamples.group_of, weights=row, minlength=G) for row in scores])  # (S, G)
    sizes = np.bincount(resamples.group_of, minlength=G).astype(np.float64)  # (G,)
    means = []
    for start in range(0, len(resamples.group_counts), _CHUNK):
        groups = resamples.group_counts[start : start + _CHUNK].astype(np.float64)  # (chunk, G)
        seeds = resamples.seed_counts[start : start + _CHUNK].astype(np.float64)  # (chunk, S)
        means.append(((groups @ sums.T) * seeds).sum(axis=1) / (S * (groups @ sizes)))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return Estimate(float(scores.mean()), float(low), float(high))
