"""k-means by matrix products: greedy k-means++ seeding, then Lloyd passes over fixed chunks.

Chunks have a fixed number of rows and their sums are added in order, so that labels, centroids and inertia come out
bit for bit equal with any number of threads.

Source: Lloyd 1982; Arthur and Vassilvitskii 2007 for k-means++ and its greedy form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError, ShapeError
from cgeartheye.seeding import derive, splitmix64, stream

CHUNK_ROWS: Final = 16_384
"""Rows of one matrix product [ours]; part of the result's definition, because it fixes the order of sums."""
ROWS_PER_SEED: Final = 20
"""Rows a cluster that seeding looks at [ours]: more cost five times as much for 0.1 % of inertia."""
GAIN: Final = 2e-4
"""Passes stop when one lowers the inertia by a smaller share [ours]."""

_ROUNDING: Final = 1e-6
"""Squared distances below this share of the largest squared length are rounding of equal rows."""

Rows = NDArray[np.float32] | NDArray[np.float16]


@dataclass(frozen=True)
class Clustering:
    """A finished k-means.

    Args:
        centroids: (k, d) float32; k is smaller than asked where there are fewer distinct rows.
        labels: (n,) int32 in [0, k), the nearest centroid of each row, ties to the smaller number.
        distances: (n,) float32 >= 0, squared distance to it.
        passes: Lloyd passes made.
    """

    centroids: NDArray[np.float32]
    labels: NDArray[np.int32]
    distances: NDArray[np.float32]
    passes: int

    @property
    def inertia(self) -> float:
        """Sum of squared distances."""
        return float(self.distances.sum(dtype=np.float64))


def kmeans(rows: Rows, k: int, *, seed: int, max_passes: int = 50) -> Clustering:
    """Cluster ``rows`` (n, d) float32 or float16 into at most ``k`` clusters.

    Raises:
        ShapeError: if ``rows`` is not (n, d) with n, d >= 1, or k < 1.
        DataError: if a value is not finite; the first such rows are named.
    """
    if rows.ndim != 2 or 0 in rows.shape or k < 1:
        message = f"expected (n, d) rows and k >= 1, got {rows.shape} and {k}"
        raise ShapeError(message)
    _refuse_infinite(rows)
    centroids = seed_centroids(rows, k, seed=seed)
    labels, distances = assign(rows, centroids)
    inertia, passes = distances.sum(dtype=np.float64), 0
    while passes < max_passes:
        passes += 1
        centroids = _means(rows, labels, distances, centroids)
        labels, distances = assign(rows, centroids)
        before, inertia = inertia, distances.sum(dtype=np.float64)
        if before - inertia <= GAIN * before:
            break
    return Clustering(centroids, labels, distances, passes)


def assign(rows: Rows, centroids: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return each row's nearest centroid (n,) int32 and its squared distance (n,) float32 >= 0; ties to the smaller number.

    Args:
        rows: (n, d).
        centroids: (k, d).
    """
    labels = np.empty(len(rows), np.int32)
    distances = np.empty(len(rows), np.float32)
    squares = np.einsum("kd,kd->k", centroids, centroids)
    for chunk, x in _chunks(rows):
        scores = x @ centroids.T
        scores *= -2
        scores += squares
        nearest = scores.argmin(axis=1)
        labels[chunk] = nearest
        lengths = np.einsum("nd,nd->n", x, x)
        distances[chunk] = np.maximum(scores[np.arange(len(x)), nearest] + lengths, 0)
    return labels, distances


def seed_centroids(rows: Rows, k: int, *, seed: int) -> NDArray[np.float32]:
    """Choose at most ``k`` distinct rows by greedy k-means++ on a subset of 20 k of them.

    Each step draws 2 + ln k candidates with a chance proportional to their squared distance from what is chosen, and
    takes the one that lowers the sum most.

    Returns: (k', d) float32, k' <= min(k, number of distinct rows).
    """
    subset = _subset(len(rows), ROWS_PER_SEED * k, seed)
    x = np.asarray(rows[subset], np.float32)
    lengths = np.einsum("nd,nd->n", x, x)
    random, tries = stream(seed, "k-means++", len(rows), k), 2 + int(math.log(k))
    chosen = [int(random.integers(len(x)))]
    nearest = _squared(x, lengths, chosen)[0]
    while len(chosen) < k:
        total = nearest.cumsum(dtype=np.float64)
        if not total[-1] > _ROUNDING * float(lengths.max(initial=0)):
            break
        found = np.minimum(np.searchsorted(total, random.random(tries) * total[-1], side="right"), len(x) - 1)
        tried = np.minimum(_squared(x, lengths, found), nearest)
        best = int(tried.sum(axis=1, dtype=np.float64).argmin())
        chosen.append(int(found[best]))
        nearest = tried[best]
        nearest[chosen[-1]] = 0
    return _distinct(x[chosen])


def _squared(x: NDArray[np.float32], lengths: NDArray[np.float32], chosen: NDArray[np.int64] | list[int]) -> NDArray[np.float32]:
    """Return squared distances (m, n) of the chosen rows to all rows, with rounding cut to 0."""
    far = lengths[chosen][:, None] + lengths[None] - 2 * (x[chosen] @ x.T)
    far[far <= _ROUNDING * lengths.max(initial=0)] = 0
    return np.asarray(far, np.float32)


def _distinct(x: NDArray[np.float32]) -> NDArray[np.float32]:
    _, first = np.unique(x, axis=0, return_index=True)
    return np.ascontiguousarray(x[np.sort(first)])


def _subset(n: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of ``wanted`` of ``n`` rows with the smallest hash, in order of position."""
    if wanted >= n:
        return np.arange(n)
    with np.errstate(over="ignore"):
        hashes = splitmix64(np.arange(n, dtype=np.uint64) ^ np.uint64(derive(seed, "k-means subset")))
    return np.sort(np.argpartition(hashes, wanted)[:wanted])


def _means(
    rows: Rows, labels: NDArray[np.int32], distances: NDArray[np.float32], centroids: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the mean of each cluster's rows; an empty cluster restarts at the worst served row that differs from others."""
    k, d = centroids.shape
    sums, counts = np.zeros((k, d)), np.bincount(labels, minlength=k)
    for chunk, x in _chunks(rows):
        order = np.argsort(labels[chunk], kind="stable")
        present, starts = np.unique(labels[chunk][order], return_index=True)
        sums[present] += np.add.reduceat(x[order].astype(np.float64), starts, axis=0)
    means = (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    if (empty := np.flatnonzero(counts == 0)).size:
        worst = np.lexsort((np.arange(len(distances)), -distances))[: 4 * empty.size]
        fresh = _distinct(np.asarray(rows[worst[distances[worst] > 0]], np.float32))[: empty.size]
        means[empty] = centroids[empty]
        means[empty[: len(fresh)]] = fresh
    return means


def _chunks(rows: Rows) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = slice(start, min(start + CHUNK_ROWS, len(rows)))
        yield chunk, np.asarray(rows[chunk], np.float32)


def _refuse_infinite(rows: Rows) -> None:
    bad = [chunk.start + int(i) for chunk, x in _chunks(rows) for i in np.flatnonzero(~np.isfinite(x).all(axis=1))]
    if bad:
        raise DataError(f"{len(bad)} rows have values that are not finite, the first are {bad[:5]}")
