"""Greedy k-means++ seeding, whose steps look only at the neighbourhood of the candidates where there are many clusters.

Plain greedy k-means++ compares every candidate with every row, so that k seeds cost k^2. Far rows do not come nearer by a
candidate; here rows are grouped first, a step draws a group and then candidates in it, each in proportion to squared
distances, and compares them with the rows of the nearest groups alone.

Source: Arthur and Vassilvitskii 2007 for k-means++ and its greedy form; the neighbourhoods are ours.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.rows import Rows, distinct, squares
from cgeartheye.seeding import derive, splitmix64, stream

ROWS_PER_SEED: Final = 20
"""Rows a cluster that seeding looks at [ours]: more cost five times as much for 0.1 % of inertia."""
MOST_VALUES: Final = 2**30
"""Numbers that seeding holds at most (4 GB), with at least four rows a cluster [ours]."""
LOCAL_FROM: Final = 65
"""Clusters from which steps are local [ours]; with fewer a group would hold almost nothing."""

_GROUPS_SEEN: Final = 4
_ROUNDING: Final = 1e-6
"""Squared distances below this share of the largest squared length are rounding of equal rows."""

Array = NDArray[np.float32]


def seeding_rows(rows: Rows, k: int, *, seed: int) -> Array:
    """Return the rows that seeding looks at, 20 k of (n, d) float32, fewer where ``k`` d is large: those of smallest hash."""
    each = min(ROWS_PER_SEED, max(4, MOST_VALUES // (k * rows.shape[1])))
    return np.asarray(rows[_subset(len(rows), each * k, seed)], np.float32)


def seed_centroids(x: Array, k: int, *, seed: int) -> Array:
    """Choose at most ``k`` distinct rows of ``x`` (n, d) by greedy k-means++.

    Each step draws 2 + ln k candidates with a chance proportional to their squared distance from what is chosen, and
    takes the one that lowers the sum most.

    Returns: (k', d) float32, k' <= min(k, number of distinct rows).
    """
    random = stream(seed, "k-means++", len(x), k)
    chosen = _greedy(x, k, random) if k < LOCAL_FROM else _Local(x, k, random).choose()
    return distinct(x[chosen])


def small_kmeans(x: Array, k: int, random: np.random.Generator, passes: int = 5) -> Array:
    """Return the centres of at most ``k`` rough groups of ``x`` (n, d), by a few passes over 20 k of the rows."""
    some = np.sort(random.permutation(len(x))[: ROWS_PER_SEED * k])
    part = x[some]
    centres = part[_greedy(part, k, random)]
    for _ in range(passes):
        labels = nearest_centre(part, centres)
        order = np.argsort(labels, kind="stable")
        starts = np.unique(labels[order], return_index=True)[1]
        counts = np.diff(np.append(starts, len(order)))
        centres = np.asarray(np.add.reduceat(part[order], starts, axis=0) / counts[:, None], np.float32)
    return centres


def nearest_centre(x: Array, centres: Array) -> NDArray[np.int64]:
    """Return the nearest of ``centres`` (m, d) for each row of ``x`` (n, d)."""
    scores = x @ centres.T
    scores *= -2
    scores += squares(centres)
    return np.asarray(scores.argmin(axis=1))


def _subset(n: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of ``wanted`` of ``n`` rows with the smallest hash, in order of position."""
    if wanted >= n:
        return np.arange(n)
    hashes = splitmix64(np.arange(n, dtype=np.uint64) ^ np.uint64(derive(seed, "k-means subset")))
    return np.sort(np.argpartition(hashes, wanted)[:wanted])


def _greedy(x: Array, k: int, random: np.random.Generator) -> list[int]:
    lengths, tries = squares(x), 2 + int(math.log(k))
    chosen = [int(random.integers(len(x)))]
    nearest = _squared(x, lengths, chosen * 2)[0]
    while len(chosen) < k:
        total = nearest.cumsum(dtype=np.float64)
        if not total[-1] > _ROUNDING * float(lengths.max(initial=0)):
            break
        found = _draw(total, random.random(tries))
        tried = np.minimum(_squared(x, lengths, found), nearest)
        best = int(tried.sum(axis=1, dtype=np.float64).argmin())
        chosen.append(int(found[best]))
        nearest = tried[best]
        nearest[chosen[-1]] = 0
    return chosen


def _draw(total: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    found = np.searchsorted(total, shares * total[-1], side="right")
    return np.asarray(np.minimum(found, len(total) - 1))


def _squared(x: Array, lengths: Array, chosen: NDArray[np.int64] | list[int]) -> Array:
    """Return squared distances (m, n) of the chosen rows to all rows, with rounding cut to 0."""
    far = lengths[chosen][:, None] + lengths[None] - 2 * (x[chosen] @ x.T)
    far[far <= _ROUNDING * lengths.max(initial=0)] = 0
    return np.asarray(far, np.float32)


class _Local:
    """Greedy k-means++ in which a step sees the groups of rows around its candidates."""

    def __init__(self, x: Array, k: int, random: np.random.Generator) -> None:
        self._random, self._k = random, k
        centres = small_kmeans(x, round(math.sqrt(k)), random, passes=3)
        groups = nearest_centre(x, centres)
        self._order = np.argsort(groups, kind="stable")
        self._bounds = np.searchsorted(groups[self._order], np.arange(len(centres) + 1))
        self._x = x[self._order]
        self._lengths = squares(self._x)
        self._zero = _ROUNDING * float(self._lengths.max(initial=0))
        apart = squares(centres)[None] - 2 * (centres @ centres.T)
        self._around = np.argsort(apart, axis=1, kind="stable")[:, :_GROUPS_SEEN]

    def choose(self) -> NDArray[np.int64]:
        """Return positions of at most k rows."""
        chosen = [int(self._random.integers(len(self._x)))]
        self._nearest = _squared(self._x, self._lengths, chosen * 2)[0]
        ends = zip(self._bounds, self._bounds[1:], strict=False)
        self._left = np.array([self._nearest[a:b].sum(dtype=np.float64) for a, b in ends])
        tries = 2 + int(math.log(self._k))
        while len(chosen) < self._k and self._left.sum() > self._zero:
            shares = self._random.random(tries + 1)
            group = int(_draw(self._left.cumsum(), shares[:1])[0])
            chosen.append(self._step(group, shares[1:]))
        found: NDArray[np.int64] = self._order[chosen]
        return found

    def _step(self, group: int, shares: NDArray[np.float64]) -> int:
        start, end = self._bounds[group], self._bounds[group + 1]
        tried = start + _draw(self._nearest[start:end].cumsum(dtype=np.float64), shares)
        found = [(other, *self._nearer(other, tried)) for other in self._around[group]]
        gains = sum(self._left[other] - sums for other, _, sums in found)
        best = int(np.argmax(gains))
        for other, nearest, sums in found:
            self._nearest[self._bounds[other] : self._bounds[other + 1]] = nearest[:, best]
            self._left[other] = sums[best]
        row = int(tried[best])
        self._left[group] -= self._nearest[row]
        self._nearest[row] = 0
        return row

    def _nearer(self, group: int, tried: NDArray[np.int64]) -> tuple[Array, NDArray[np.float64]]:
        """Return squared distances (m, t) of the group's rows to what is chosen and each candidate, and their sums (t,)."""
        rows = slice(self._bounds[group], self._bounds[group + 1])
        far = self._x[rows] @ self._x[tried].T
        far *= -2
        far += self._lengths[rows, None]
        far += self._lengths[tried]
        far[far <= self._zero] = 0
        np.minimum(far, self._nearest[rows, None], out=far)
        return far, far.sum(axis=0, dtype=np.float64)
