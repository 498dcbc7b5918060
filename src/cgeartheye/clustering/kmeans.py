"""k-means by matrix products: greedy k-means++ seeding, then Lloyd passes over fixed chunks.

A pass compares each row with the neighbours of its centroid alone (``neighbours.py``) and adds to the sums only what
changed cluster. Chunks have a fixed number of rows and their sums are added in order, so that labels, centroids and
inertia come out bit for bit equal with any number of threads. Rows are read chunk by chunk and need not fit into memory.

Source: Lloyd 1982.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.neighbours import CHUNK_ROWS, Groups, Search
from cgeartheye.clustering.rows import Rows, chunks, squared_lengths, squares
from cgeartheye.clustering.seeds import seed_centroids
from cgeartheye.errors import ShapeError

GAIN: Final = 1e-4
"""Passes stop when one lowers the inertia by a smaller share [ours]."""


@dataclass(frozen=True)
class Clustering:
    """A finished k-means.

    Args:
        centroids: (k, d) float32; k is smaller than asked where there are fewer distinct rows.
        labels: (n,) int32 in [0, k), a near centroid of each row: the nearest of the neighbours of the one before, which
            is the nearest of all but for less than one row in a hundred (four where the data have no clusters at all). Below 65 clusters it is the
            nearest; ties to the smaller number.
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
    """Cluster ``rows`` (n, d) float32 or float16 into at most ``k`` clusters, none of them empty.

    Memory is that of k d numbers of float64, 20 k d of float32 while seeding (2**30 at most where k d is large), one chunk,
    and 24 bytes a row.

    Raises:
        ShapeError: if ``rows`` is not (n, d) with n, d >= 1, or k < 1.
        DataError: if a value is not finite; the first such rows are named.
    """
    before, passes = np.inf, 0
    for passes, found in enumerate(lloyd(rows, k, seed=seed)):
        inertia = found.inertia
        settled = before - inertia <= GAIN * before if np.isfinite(before) else inertia == 0
        if passes == max_passes or (settled and not found.empty):
            break
        before = inertia
    return found.clustering(passes)


class Lloyd:
    """The state of a k-means between passes."""

    def __init__(self, rows: Rows, centroids: NDArray[np.float32], lengths: NDArray[np.float32], *, seed: int) -> None:
        self._rows, self._lengths = rows, lengths
        self._groups = Groups(centroids, seed=seed)
        self._centroids = centroids
        self._sums = np.zeros(centroids.shape)
        self._counts = np.zeros(len(centroids), np.int64)
        self._labels = np.full(len(rows), -1, np.int32)
        self._distances = np.empty(len(rows), np.float32)

    @property
    def inertia(self) -> float:
        """Sum of squared distances."""
        return float(self._distances.sum(dtype=np.float64))

    @property
    def empty(self) -> int:
        """Clusters without a row."""
        return int((self._counts == 0).sum())

    def assign(self) -> None:
        """Compare every row with the neighbours of its centroid and keep the sums of clusters up to date."""
        search = Search(self._centroids, self._groups)
        for chunk, x in chunks(self._rows, self._groups.chunk_rows):
            before = self._labels[chunk]
            labels, scores = search.chunk(x, None if before[0] < 0 else before)
            moved = np.flatnonzero(labels != before)
            self._add(x[moved], before[moved], labels[moved])
            self._labels[chunk] = labels
            self._distances[chunk] = np.maximum(scores + self._lengths[chunk], 0)

    def move(self) -> None:
        """Move centroids to the means of their rows, and those without rows to the worst served rows that differ."""
        full = self._counts > 0
        self._centroids = self._centroids.copy()
        self._centroids[full] = (self._sums[full] / self._counts[full, None]).astype(np.float32)
        empty = np.flatnonzero(~full)
        if not empty.size:
            return
        worst = np.argsort(-self._distances, kind="stable")[: 4 * empty.size]
        worst = worst[self._distances[worst] > 0]
        fresh = np.asarray(self._rows[np.sort(worst)], np.float32)[np.argsort(np.argsort(worst))]
        rows = worst[np.sort(np.unique(fresh, axis=0, return_index=True)[1])][: empty.size]
        empty = empty[: len(rows)]
        self._centroids[empty] = np.asarray(self._rows[np.sort(rows)], np.float32)
        self._groups.of[empty] = self._groups.of[self._labels[np.sort(rows)]]

    def clustering(self, passes: int) -> Clustering:
        """Return the state without clusters that have no row."""
        used = np.flatnonzero(self._counts)
        number = np.cumsum(self._counts > 0).astype(np.int32) - 1
        return Clustering(self._centroids[used], number[self._labels], self._distances, passes)

    def _add(self, x: NDArray[np.float32], before: NDArray[np.int32], after: NDArray[np.int32]) -> None:
        if before.size and before[0] >= 0:
            self._change(x, before, -1)
        self._change(x, after, 1)

    def _change(self, x: NDArray[np.float32], labels: NDArray[np.int32], sign: int) -> None:
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        if present.size:
            self._sums[present] += sign * np.add.reduceat(x[order].astype(np.float64), starts, axis=0)
            self._counts[present] += sign * np.diff(np.append(starts, len(order)))


def lloyd(rows: Rows, k: int, *, seed: int) -> Iterator[Lloyd]:
    """Seed, then yield the state after the first assignment and after each pass, without end; errors as ``kmeans``."""
    if len(rows.shape) != 2 or 0 in rows.shape or k < 1:
        message = f"expected (n, d) rows and k >= 1, got {rows.shape} and {k}"
        raise ShapeError(message)
    lengths = squared_lengths(rows)
    state = Lloyd(rows, seed_centroids(rows, k, seed=seed), lengths, seed=seed)
    state.assign()
    yield state
    while True:
        state.move()
        state.assign()
        yield state


def assign(rows: Rows, centroids: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return each row's nearest centroid (n,) int32 and its squared distance (n,) float32 >= 0; ties to the smaller number.

    Every row is compared with every centroid.

    Args:
        rows: (n, d).
        centroids: (k, d).
    """
    labels = np.empty(len(rows), np.int32)
    distances = np.empty(len(rows), np.float32)
    lengths = squares(centroids)
    for chunk, x in chunks(rows, CHUNK_ROWS):
        scores = x @ centroids.T
        scores *= -2
        scores += lengths
        nearest = scores.argmin(axis=1)
        labels[chunk] = nearest
        distances[chunk] = np.maximum(scores[np.arange(len(x)), nearest] + squares(x), 0)
    return labels, distances
