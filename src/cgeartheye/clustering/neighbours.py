"""Nearest centroids searched among the neighbours of what was nearest before.

Centroids are gathered into groups; a row is compared with the centroids of one group and with the nearest neighbours of
each of them, a few dozen in place of thousands. Rows of one group in a chunk make one matrix product.

Source: the idea that a row moves to a neighbour of its cluster is Wang et al. 2012 ("cluster closures"); groups are ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.products import PROCESSOR, Held, Products
from cgeartheye.clustering.rows import Rows, chunks, squared_lengths, squares
from cgeartheye.clustering.seeds import even_groups, nearest_centre, nearest_two_centres
from cgeartheye.seeding import stream

CHUNK_ROWS: Final = 16_384
"""Rows read at once [ours]; part of the result's definition, because it fixes the order of sums."""
ROWS_PER_GROUP: Final = 16
"""Rows of a chunk for one group of centroids, at least [ours]: many groups make chunks larger."""
CENTROIDS_PER_GROUP: Final = 32
"""Centroids of a group, where more than a thousand would make larger ones [ours]: the cost of a row then does not grow with k."""
NEIGHBOURS: Final = 20
"""Nearest centroids of each centroid of a group that its rows are compared with [ours]."""
CENTRE_NEIGHBOURS: Final = 80
"""The same among centres of groups, where they are searched [ours]: with 20, one new row in twenty begins in a wrong group."""
ALL_BELOW: Final = 65
"""Fewer centroids than this are compared with every row [ours]."""
ALL_UP_TO: Final = 4_096
"""Centroids up to which a clustering is finished by comparing every row with all of them [ours]: one pass more for one
result that is a k-means to the letter; with 200,000 centroids that pass would take hours."""
CENTRES_COMPARED: Final = 256
"""Centres of groups up to which a new row is compared with all [ours]; beyond, they are searched in groups of their own."""
SWEEPS: Final = 3
"""Times that a row may move on to a neighbour of what it was nearest to, when centroids are new [ours]."""

_GROUPS_SEEN: Final = 64
"""Nearest groups in which the neighbours of a centroid are looked for [ours]."""
_CENTRES_AT_ONCE: Final = 1024
Array = NDArray[np.float32]


class Groups:
    """Groups of near centroids (k, d)."""

    def __init__(self, centroids: Array, *, seed: int, products: Products) -> None:
        self.products, k = products, len(centroids)
        count = 1 if k < ALL_BELOW else max(round(math.sqrt(k)), k // CENTROIDS_PER_GROUP)
        centres, of = even_groups(centroids, count, stream(seed, "groups of centroids", k), products)
        self.of: NDArray[np.int64] = of
        """(k,) group of each centroid."""
        self.centres: Array = centres
        """(G, d)."""
        self._two = k > ALL_UP_TO
        self._search = None
        if len(self.centres) > CENTRES_COMPARED:
            around = Groups(self.centres, seed=seed, products=products)
            self._search = Search(self.centres, around, neighbours=CENTRE_NEIGHBOURS)

    @property
    def chunk_rows(self) -> int:
        """Rows read at once."""
        return max(CHUNK_ROWS, ROWS_PER_GROUP * len(self.centres))

    def starts(self, x: Array) -> NDArray[np.integer]:
        """Return the groups (n, s) in which a row of ``x`` (n, d) is looked for: that of nearest centre, or of a near one where
        there are many, and beyond :data:`ALL_UP_TO` centroids that of the next nearest too, which halves what is missed.
        """
        if self._search is not None:
            near = self._search.chunk(x, None)[0]
            return self._search.two(x, near) if self._two else self._search.chunk(x, near)[0][:, None]
        if self._two and len(self.centres) > 1:
            return nearest_two_centres(x, self.centres, self.products)
        return nearest_centre(x, self.centres, self.products)[:, None]

    def candidates(self, centroids: Array, neighbours: int) -> list[NDArray[np.int64]]:
        """Return for each group which centroids, in increasing order, its rows are compared with."""
        order = np.argsort(self.of, kind="stable")
        bounds = np.searchsorted(self.of[order], np.arange(len(self.centres) + 1))
        members = [order[a:b] for a, b in pairwise(bounds.tolist())]
        found = []
        for group, around in enumerate(self._around()):
            own = members[group]
            pool = np.sort(np.concatenate([own, *(members[other] for other in around if other != group)]))
            near = squares(centroids[pool])[None] - 2 * (centroids[own] @ centroids[pool].T)
            if len(pool) > neighbours:
                pool = pool[np.unique(np.argpartition(near, neighbours, axis=1)[:, :neighbours])]
            found.append(np.union1d(own, pool))
        return found

    def _around(self) -> Iterator[NDArray[np.int64]]:
        """Yield for each group those of nearest centres, itself among them, in any order."""
        lengths, count = squares(self.centres), len(self.centres)
        for start in range(0, count, _CENTRES_AT_ONCE):
            apart = lengths - 2 * (self.centres[start : start + _CENTRES_AT_ONCE] @ self.centres.T)
            if count <= _GROUPS_SEEN:
                yield from np.broadcast_to(np.arange(count), apart.shape)
            else:
                yield from np.argpartition(apart, _GROUPS_SEEN, axis=1)[:, :_GROUPS_SEEN]


class Search:
    """One set of centroids, ready to be compared with chunks of rows."""

    def __init__(self, centroids: Array, groups: Groups, *, neighbours: int = NEIGHBOURS) -> None:
        self._groups, self._products = groups, groups.products
        self._candidates = groups.candidates(centroids, neighbours)
        self._centroids = self._products.centroids(centroids)

    def chunk(self, x: Array, before: NDArray[np.integer] | None) -> tuple[NDArray[np.int32], Array]:
        """Return the nearest candidate of each row (n,) and the squared distance less the row's squared length (n,).

        Args:
            x: (n, d).
            before: (n,) the centroids that rows were nearest to; None: rows start at the groups of nearest centre.
        """
        groups = self._groups.starts(x) if before is None else self._groups.of[before][:, None]
        held, (first, *others) = self._products.hold(x), groups.T
        labels, scores = self._in_groups(held, first)
        for other in others:
            again, better = self._in_groups(held, other)
            nearer = better < scores
            labels[nearer], scores[nearer] = again[nearer], better[nearer]
        return labels, scores

    def two(self, x: Array, before: NDArray[np.integer]) -> NDArray[np.int32]:
        """Return the two nearest candidates (n, 2) of each row (n, d), which was nearest to ``before`` (n,); nearest first."""
        held, labels = self._products.hold(x), np.empty((len(x), 2), np.int32)
        for rows, tried in self._by_group(self._groups.of[before]):
            labels[rows] = tried[self._products.nearest_two(held, self._centroids, rows, tried)]
        return labels

    def _in_groups(self, held: Held, groups: NDArray[np.integer]) -> tuple[NDArray[np.int32], Array]:
        """Return what ``chunk`` does for rows of the groups (n,)."""
        labels, scores = np.empty(len(groups), np.int32), np.empty(len(groups), np.float32)
        for rows, tried in self._by_group(groups):
            best, scores[rows] = self._products.nearest(held, self._centroids, rows, tried)
            labels[rows] = tried[best]
        return labels, scores

    def _by_group(self, groups: NDArray[np.integer]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the rows of each group that has any, and the centroids that they are compared with."""
        order = np.argsort(groups, kind="stable")
        bounds = np.searchsorted(groups[order], np.arange(len(self._candidates) + 1))
        for group in np.flatnonzero(np.diff(bounds)):
            yield order[bounds[group] : bounds[group + 1]], self._candidates[group]

    def all(self, x: Array) -> tuple[NDArray[np.int32], Array]:
        """Return what ``chunk`` does, after comparing every row with every centroid."""
        best, scores = self._products.nearest(self._products.hold(x), self._centroids)
        return best.astype(np.int32), scores


def assign_near(rows: Rows, centroids: Array, *, seed: int, products: Products = PROCESSOR) -> tuple[NDArray[np.int32], Array]:
    """Return for each row a near centroid (n,) int32 and its squared distance (n,) float32 >= 0.

    It is the nearest but where three moves from neighbour to neighbour do not reach that: less than one row in a hundred
    where the data have clusters, up to one in ten where they have none at all, whose sum of squares is then up to 5 % up.
    Below 65 centroids it is the nearest always. ``rows`` is (n, d), ``centroids`` (k, d).
    """
    groups = Groups(centroids, seed=seed, products=products)
    search = Search(centroids, groups)
    labels, distances = np.empty(len(rows), np.int32), squared_lengths(rows)
    for chunk, x in chunks(rows, groups.chunk_rows):
        nearest, scores = search.chunk(x, None)
        moved = np.arange(len(x)) if len(groups.centres) > 1 else np.arange(0)
        for _ in range(SWEEPS):
            if not moved.size:
                break
            again, better = search.chunk(x[moved], nearest[moved])
            changed = again != nearest[moved]
            nearest[moved], scores[moved] = again, better
            moved = moved[changed]
        labels[chunk] = nearest
        distances[chunk] = np.maximum(distances[chunk] + scores, 0)
    return labels, distances
