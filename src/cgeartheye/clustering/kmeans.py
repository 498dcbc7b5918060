"""k-means by matrix products: greedy k-means++ seeding, then Lloyd passes over fixed chunks.

A pass compares each row with the neighbours of its centroid alone (``neighbours.py``) and adds to the sums only what
changed cluster. Centroids move beyond the means of their rows, for the next pass would carry most of them on in the same
direction. When passes gain no more, one from the means themselves compares every row with all centroids, and passes go on
if that gains.
Chunks have a fixed number of rows and their sums are added in order, so that labels, centroids and inertia come out bit
for bit equal with any number of threads. Rows are read chunk by chunk and need not fit into memory.

Source: Lloyd 1982; moving on beyond the means is successive over-relaxation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cgeartheye.clustering.neighbours import ALL_UP_TO, CHUNK_ROWS, Groups, Search
from cgeartheye.clustering.products import PROCESSOR, Products
from cgeartheye.clustering.rows import Rows, chunks, squared_lengths, squares
from cgeartheye.clustering.seeds import seed_centroids, seeding_rows
from cgeartheye.errors import ShapeError

GAIN: Final = 1e-4
"""Passes stop when one lowers the inertia by a smaller share [ours]."""

OVERSHOOT: Final = 0.8
"""How far a centroid moves on beyond its mean, as a share of the way there [ours]: it saves half of the passes. Below 1 the
sum of squared distances to centroids falls in every pass all the same: each ends nearer to its mean than it was."""

FIRST_PASSES: Final = 5
"""Passes over the rows of seeding, a tenth of all or less, before all rows are looked at [ours]: they save three of those."""


@dataclass(frozen=True)
class Clustering:
    """A finished k-means.

    Args:
        centroids: (k, d) float32; k is smaller than asked where there are fewer distinct rows.
        labels: (n,) int32 in [0, k), the nearest centroid of each row, ties to the smaller number; beyond 4,096 clusters the
            nearest among the neighbours of the one before, which is another one for up to one row in a hundred, more where
            the data have no clusters at all.
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


def kmeans(rows: Rows, k: int, *, seed: int, max_passes: int = 50, products: Products = PROCESSOR) -> Clustering:
    """Cluster ``rows`` (n, d) float32 or float16 into at most ``k`` clusters, none of them empty.

    Memory is that of k d numbers of float64, 20 k d of float32 while seeding (2**30 at most where k d is large), one chunk,
    and 24 bytes a row. ``products`` says where products of matrices are made.

    Raises:
        ShapeError: if ``rows`` is not (n, d) with n, d >= 1, or k < 1.
        DataError: if a value is not finite; the first such rows are named.
    """
    *_, (passes, state) = enumerate(lloyd(rows, k, seed=seed, max_passes=max_passes, products=products))
    return state.clustering(passes)


def lloyd(rows: Rows, k: int, *, seed: int, max_passes: int = 50, products: Products = PROCESSOR) -> Iterator[Lloyd]:
    """Yield the state of ``kmeans`` after seeding and after each pass: one object, which goes on."""
    state, before, passes, last, overshoot = _seeded(rows, k, seed, products), np.inf, 0, False, OVERSHOOT
    yield state
    while passes < max_passes:
        inertia = state.inertia
        settled = inertia == 0 or (passes > 0 and before - inertia <= GAIN * before and not state.empty)
        if settled and last:
            return
        last = settled or passes + 1 == max_passes
        overshoot = 0 if last else overshoot  # from here on to the end: otherwise the pass after it always gains
        state.move(overshoot=overshoot)
        state.assign(complete=last and k <= ALL_UP_TO)
        before, passes = inertia, passes + 1
        yield state


class Lloyd:
    """The state of a k-means between passes."""

    def __init__(self, rows: Rows, lengths: NDArray[np.float32], centroids: NDArray[np.float32], groups: Groups) -> None:
        self._rows, self._lengths = rows, lengths
        self._groups = groups
        self.centroids = centroids
        self._sums = np.zeros(centroids.shape)
        self._counts = np.zeros(len(centroids), np.int64)
        self._labels = np.full(len(rows), -1, np.int32)
        self._distances = np.empty(len(rows), np.float32)

    @property
    def inertia(self) -> float:
        """Sum of squared distances to the means of clusters, which is that to the centroids less what moving there gains."""
        full = self._counts > 0
        apart = self._sums[full] / self._counts[full, None] - self.centroids[full]
        gained = np.einsum("kd,kd,k->", apart, apart, self._counts[full])
        return max(0.0, float(self._distances.sum(dtype=np.float64) - gained))

    @property
    def empty(self) -> int:
        """Clusters without a row."""
        return int((self._counts == 0).sum())

    def assign(self, *, complete: bool = False) -> None:
        """Compare every row with the neighbours of its centroid, or with all; keep the sums of clusters up to date."""
        search = Search(self.centroids, self._groups)
        for chunk, x in chunks(self._rows, self._groups.chunk_rows):
            before = self._labels[chunk]
            labels, scores = search.all(x) if complete else search.chunk(x, None if before[0] < 0 else before)
            moved = np.flatnonzero(labels != before)
            self._add(x[moved], before[moved], labels[moved])
            self._labels[chunk] = labels
            self._distances[chunk] = np.maximum(scores + self._lengths[chunk], 0)

    def move(self, *, overshoot: float = 0) -> None:
        """Move centroids to the means of their rows and beyond, and those without rows to the worst served rows that differ."""
        full = self._counts > 0
        means = self._sums[full] / self._counts[full, None]
        means += overshoot * (means - self.centroids[full])
        self.centroids = self.centroids.copy()
        self.centroids[full] = means
        empty = np.flatnonzero(~full)
        if not empty.size:
            return
        worst = np.argsort(-self._distances, kind="stable")[: 4 * empty.size]
        worst = worst[self._distances[worst] > 0]
        fresh = np.asarray(self._rows[np.sort(worst)], np.float32)[np.argsort(np.argsort(worst))]
        rows = worst[np.sort(np.unique(fresh, axis=0, return_index=True)[1])][: empty.size]
        empty = empty[: len(rows)]
        self.centroids[empty] = np.asarray(self._rows[np.sort(rows)], np.float32)
        self._groups.of[empty] = self._groups.of[self._labels[np.sort(rows)]]

    def clustering(self, passes: int) -> Clustering:
        """Return the state without clusters that have no row."""
        used = np.flatnonzero(self._counts)
        number = np.cumsum(self._counts > 0).astype(np.int32) - 1
        return Clustering(self.centroids[used], number[self._labels], self._distances, passes)

    def _add(self, x: NDArray[np.float32], before: NDArray[np.int32], after: NDArray[np.int32]) -> None:
        """Take rows (m, d) out of the sums of the clusters they leave and add them to those they come to."""
        rows = np.arange(len(x))
        leaving = rows[before >= 0]
        clusters, at = np.unique(np.concatenate([after, before[leaving]]), return_inverse=True)
        signs = np.repeat(np.array([1, -1], np.float32), [len(rows), len(leaving)])
        moves = csr_array((signs, (at, np.concatenate([rows, leaving]))), (len(clusters), len(x)))
        self._sums[clusters] += moves @ x
        self._counts += np.bincount(after, minlength=len(self._counts))
        self._counts -= np.bincount(before[leaving], minlength=len(self._counts))


def _seeded(rows: Rows, k: int, seed: int, products: Products) -> Lloyd:
    """Return the state after seeding and the first assignment; errors as ``kmeans``."""
    if len(rows.shape) != 2 or 0 in rows.shape or k < 1:
        message = f"expected (n, d) rows and k >= 1, got {rows.shape} and {k}"
        raise ShapeError(message)
    lengths = squared_lengths(rows)
    some = seeding_rows(rows, k, seed=seed)
    seeds = seed_centroids(some, k, seed=seed, products=products)
    state = Lloyd(some, squares(some), seeds, Groups(seeds, seed=seed, products=products))
    for number in range(FIRST_PASSES):
        state.assign()
        state.move(overshoot=OVERSHOOT if number + 1 < FIRST_PASSES else 0)
    state = Lloyd(rows, lengths, state.centroids, Groups(state.centroids, seed=seed, products=products))
    state.assign()
    return state


def assign(
    rows: Rows, centroids: NDArray[np.float32], *, products: Products = PROCESSOR
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return each row's nearest centroid (n,) int32 and its squared distance (n,) float32 >= 0; ties to the smaller number.

    Every row is compared with every centroid.

    Args:
        rows: (n, d).
        centroids: (k, d).
        products: where products of matrices are made.
    """
    labels = np.empty(len(rows), np.int32)
    distances = np.empty(len(rows), np.float32)
    held = products.centroids(centroids)
    for chunk, x in chunks(rows, CHUNK_ROWS):
        labels[chunk], scores = products.nearest(products.hold(x), held)
        distances[chunk] = np.maximum(scores + squares(x), 0)
    return labels, distances
