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

from cgeartheye.clustering.products import PROCESSOR, Products
from cgeartheye.clustering.rows import Rows, distinct, squares
from cgeartheye.seeding import derive, splitmix64, stream

ROWS_PER_SEED: Final = 20
"""Rows a cluster that seeding looks at [ours]: more cost five times as much for 0.1 % of inertia."""
MOST_VALUES: Final = 2**30
"""Numbers that seeding holds at most (4 GB), with at least four rows a cluster [ours]."""
LOCAL_FROM: Final = 65
"""Clusters from which steps are local [ours]; with fewer a group would hold almost nothing."""

ROWS_PER_GROUP: Final = 640
"""Rows of a group, where more than a thousand clusters would make larger ones [ours]: the cost of a step does not grow with k."""
SEEDS_AT_ONCE: Final = 2
"""Seeds that a step chooses at most, and no more than its group is due of those that are missing [ours]."""

_GROUPS_SEEN: Final = 4
_SPLITS: Final = 6
"""Times that large groups are grouped again at most: rows that are all alike stay together."""
_COMPARED_ROWS: Final = 16_384
_ROUNDING: Final = 1e-6
"""Squared distances below this share of the largest squared length are rounding of equal rows."""

Array = NDArray[np.float32]


def seeding_rows(rows: Rows, k: int, *, seed: int) -> Array:
    """Return the rows that seeding looks at, 20 k of (n, d) float32, fewer where ``k`` d is large: those of smallest hash."""
    each = min(ROWS_PER_SEED, max(4, MOST_VALUES // (k * rows.shape[1])))
    return np.asarray(rows[_subset(len(rows), each * k, seed)], np.float32)


def seed_centroids(x: Array, k: int, *, seed: int, products: Products = PROCESSOR) -> Array:
    """Choose at most ``k`` distinct rows of ``x`` (n, d) by greedy k-means++.

    Each step draws 2 + ln k candidates with a chance proportional to their squared distance from what is chosen, and
    takes the one that lowers the sum most.

    Returns: (k', d) float32, k' <= min(k, number of distinct rows).
    """
    return distinct(x[_chosen(x, k, stream(seed, "k-means++", len(x), k), products)])


def small_kmeans(x: Array, k: int, random: np.random.Generator, products: Products, *, passes: int = 5) -> Array:
    """Return the centres of at most ``k`` rough groups of ``x`` (n, d), by a few passes over 20 k of the rows."""
    some = np.sort(random.permutation(len(x))[: ROWS_PER_SEED * k])
    part = x[some]
    centres = part[_chosen(part, k, random, products)]
    for _ in range(passes):
        labels = nearest_centre(part, centres, products)
        order = np.argsort(labels, kind="stable")
        starts = np.unique(labels[order], return_index=True)[1]
        counts = np.diff(np.append(starts, len(order)))
        centres = np.asarray(np.add.reduceat(part[order], starts, axis=0) / counts[:, None], np.float32)
    return centres


def even_groups(
    x: Array, count: int, random: np.random.Generator, products: Products, *, passes: int = 5
) -> tuple[Array, NDArray[np.int64]]:
    """Gather the rows ``x`` (n, d) into about ``count`` groups of near rows, hardly any of more than twice their mean size.

    In many dimensions a mean of rows of many kinds is short, and so lies nearer to every row that has no group of its own than
    the mean of another kind: with fewer groups than kinds one group gets a third of all rows. Such groups are grouped again.

    Returns: centres (g, d), and the group (n,) of each row; no group is empty.
    """
    centres = small_kmeans(x, count, random, products, passes=passes)
    of = nearest_centre(x, centres, products)
    share = len(x) / count
    for _ in range(_SPLITS):
        large = np.flatnonzero(np.bincount(of) > 2 * share)
        for group in large.tolist():
            rows = np.flatnonzero(of == group)
            parts = small_kmeans(x[rows], math.ceil(len(rows) / share), random, products, passes=passes)
            inner = nearest_centre(x[rows], parts, products)
            of[rows] = np.where(inner == 0, group, len(centres) + inner - 1)
            centres = np.concatenate([centres, parts[1:]])
            centres[group] = parts[0]
        if not large.size:
            break
        of = nearest_centre(x, centres, products)
    present, of = np.unique(of, return_inverse=True)
    return centres[present], of


def nearest_centre(x: Array, centres: Array, products: Products) -> NDArray[np.int64]:
    """Return the nearest of ``centres`` (m, d) for each row of ``x`` (n, d)."""
    nearest, held = np.empty(len(x), np.int64), products.centroids(centres)
    for start in range(0, len(x), _COMPARED_ROWS):
        some = slice(start, start + _COMPARED_ROWS)
        nearest[some] = products.nearest(products.hold(x[some]), held)[0]
    return nearest


def nearest_two_centres(x: Array, centres: Array, products: Products) -> NDArray[np.int64]:
    """Return the two nearest of at least two ``centres`` (m, d) for each row of ``x`` (n, d), (n, 2), the nearest first."""
    nearest, held = np.empty((len(x), 2), np.int64), products.centroids(centres)
    for start in range(0, len(x), _COMPARED_ROWS):
        some = slice(start, start + _COMPARED_ROWS)
        nearest[some] = products.nearest_two(products.hold(x[some]), held)
    return nearest


def _subset(n: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of ``wanted`` of ``n`` rows with the smallest hash, in order of position."""
    if wanted >= n:
        return np.arange(n)
    hashes = splitmix64(np.arange(n, dtype=np.uint64) ^ np.uint64(derive(seed, "k-means subset")))
    return np.sort(np.argpartition(hashes, wanted)[:wanted])


def _chosen(x: Array, k: int, random: np.random.Generator, products: Products) -> NDArray[np.int64]:
    """Return positions of at most k rows of ``x`` (n, d)."""
    return np.array(_greedy(x, k, random)) if k < LOCAL_FROM else _Local(x, k, random, products).choose()


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
    """Greedy k-means++ in which a step sees the groups of rows around its candidates and may choose several of them.

    A product with few candidates spends its time on reading rows, so that steps choose together where a group is due many
    seeds; each choice counts what the ones before it have gained.
    """

    def __init__(self, x: Array, k: int, random: np.random.Generator, products: Products) -> None:
        self._random, self._k, self._products = random, k, products
        count = max(round(math.sqrt(k)), len(x) // ROWS_PER_GROUP)
        centres, groups = even_groups(x, count, random, products, passes=3)
        self._order = np.argsort(groups, kind="stable")
        self._bounds = np.searchsorted(groups[self._order], np.arange(len(centres) + 1))
        self._x = x[self._order]
        self._held, self._lengths = products.hold(self._x), squares(self._x)
        self._zero = _ROUNDING * float(self._lengths.max(initial=0))
        apart = squares(centres)[None] - 2 * (centres @ centres.T)
        np.fill_diagonal(apart, -np.inf)  # a group sees itself, whatever rounding says
        self._around = np.argsort(apart, axis=1, kind="stable")[:, :_GROUPS_SEEN]

    def choose(self) -> NDArray[np.int64]:
        """Return positions of at most k rows."""
        chosen = [int(self._random.integers(len(self._x)))]
        self._nearest = _squared(self._x, self._lengths, chosen * 2)[0]
        self._left = np.array([self._nearest[self._rows(group)].sum(dtype=np.float64) for group in range(len(self._around))])
        tries = 2 + int(math.log(self._k))
        while len(chosen) < self._k and (total := self._left.cumsum())[-1] > self._zero:
            group = int(_draw(total, self._random.random(1))[0])
            due = round(self._left[group] / total[-1] * (self._k - len(chosen)))
            wanted = min(max(due, 1), SEEDS_AT_ONCE)
            chosen += self._step(group, self._random.random(tries * wanted), wanted)
        found: NDArray[np.int64] = self._order[chosen]
        return found

    def _rows(self, group: int) -> slice:
        return slice(int(self._bounds[group]), int(self._bounds[group + 1]))

    def _step(self, group: int, shares: NDArray[np.float64], wanted: int) -> list[int]:
        """Draw candidates (t,) in the group and choose at most ``wanted`` of them; return their positions."""
        own = self._rows(group)
        tried = own.start + _draw(self._nearest[own].cumsum(dtype=np.float64), shares)
        seen = [self._rows(other) for other in self._around[group]]
        rows = np.concatenate([np.arange(part.start, part.stop) for part in seen])
        far, before = self._nearer(seen, rows, tried), self._nearest[rows]
        chosen: list[int] = []
        while len(chosen) < wanted:
            best = int(far.sum(axis=0, dtype=np.float64).argmin())
            if not before[rows == tried[best]].any():
                break  # what is left of the candidates are rows like those chosen
            chosen.append(int(tried[best]))
            before = far[:, best].copy()
            before[before <= self._zero] = 0
            before[rows == chosen[-1]] = 0
            np.minimum(far, before[:, None], out=far)
        self._nearest[rows] = before
        for other, part in zip(self._around[group], seen, strict=True):
            self._left[other] = self._nearest[part].sum(dtype=np.float64)
        return chosen

    def _nearer(self, seen: list[slice], rows: NDArray[np.int64], tried: NDArray[np.int64]) -> Array:
        """Return squared distances (m, t) of the rows of the groups seen to what is chosen and each candidate."""
        far = np.concatenate([self._products.dots(self._held, part, tried) for part in seen])
        far *= -2
        far += self._lengths[rows, None]
        far += self._lengths[tried]
        np.minimum(far, self._nearest[rows, None], out=far)
        return far
