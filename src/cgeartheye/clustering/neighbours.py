"""Nearest centroids searched among the neighbours of what was nearest before.

Centroids are gathered into groups; a row is compared with the centroids of one group and with the nearest neighbours of
each of them, a few dozen in place of thousands. Rows of one group in a chunk make one matrix product.

Source: the idea that a row moves to a neighbour of its cluster is Wang et al. 2012 ("cluster closures"); groups are ours.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.products import PROCESSOR, Products
from cgeartheye.clustering.rows import Rows, chunks, squared_lengths, squares
from cgeartheye.clustering.seeds import nearest_centre, small_kmeans
from cgeartheye.seeding import stream

CHUNK_ROWS: Final = 16_384
"""Rows read at once [ours]; part of the result's definition, because it fixes the order of sums."""
ROWS_PER_GROUP: Final = 64
"""Rows of a chunk for one group of centroids, at least [ours]: many groups make chunks larger."""
CENTROIDS_PER_GROUP: Final = 128
"""Centroids of a group, where more than 16,384 would make larger ones [ours]: the cost of a row then does not grow with k."""
NEIGHBOURS: Final = 20
"""Nearest centroids of each centroid of a group that its rows are compared with [ours]."""
ALL_BELOW: Final = 65
"""Fewer centroids than this are compared with every row [ours]."""
ALL_UP_TO: Final = 4_096
"""Centroids up to which a clustering is finished by comparing every row with all of them [ours]: one pass more for one
result that is a k-means to the letter; with 200,000 centroids that pass would take hours."""
CENTRES_COMPARED: Final = 256
"""Centres of groups up to which a new row is compared with all [ours]; beyond, they are searched in groups of their own."""
SWEEPS: Final = 3
"""Times that a row may move on to a neighbour of what it was nearest to, when centroids are new [ours]."""

_GROUPS_SEEN: Final = 8
Array = NDArray[np.float32]


class Groups:
    """Groups of near centroids (k, d)."""

    def __init__(self, centroids: Array, *, seed: int, products: Products) -> None:
        self.products, k = products, len(centroids)
        count = 1 if k < ALL_BELOW else max(round(math.sqrt(k)), k // CENTROIDS_PER_GROUP)
        centres = small_kmeans(centroids, count, stream(seed, "groups of centroids", k), products)
        present, of = np.unique(nearest_centre(centroids, centres, products), return_inverse=True)
        self.of: NDArray[np.int64] = of
        """(k,) group of each centroid."""
        self.centres: Array = centres[present]
        """(G, d)."""
        self._search = None
        if len(self.centres) > CENTRES_COMPARED:
            self._search = Search(self.centres, Groups(self.centres, seed=seed, products=products))

    @property
    def chunk_rows(self) -> int:
        """Rows read at once."""
        return max(CHUNK_ROWS, ROWS_PER_GROUP * len(self.centres))

    def start(self, x: Array) -> NDArray[np.integer]:
        """Return the group (n,) of nearest centre for each row of ``x`` (n, d), or of a near one where there are many."""
        if self._search is None:
            return nearest_centre(x, self.centres, self.products)
        return self._search.chunk(x, self._search.chunk(x, None)[0])[0]

    def candidates(self, centroids: Array) -> list[NDArray[np.int64]]:
        """Return for each group which centroids, in increasing order, its rows are compared with."""
        members = [np.flatnonzero(self.of == group) for group in range(len(self.centres))]
        apart = squares(self.centres)[None] - 2 * (self.centres @ self.centres.T)
        around = np.argsort(apart, axis=1, kind="stable")[:, :_GROUPS_SEEN]
        found = []
        for group, own in enumerate(members):
            pool = np.sort(np.concatenate([own, *(members[other] for other in around[group] if other != group)]))
            near = squares(centroids[pool])[None] - 2 * (centroids[own] @ centroids[pool].T)
            if len(pool) > NEIGHBOURS:
                pool = pool[np.unique(np.argpartition(near, NEIGHBOURS, axis=1)[:, :NEIGHBOURS])]
            found.append(np.union1d(own, pool))
        return found


class Search:
    """One set of centroids, ready to be compared with chunks of rows."""

    def __init__(self, centroids: Array, groups: Groups) -> None:
        self._groups, self._products = groups, groups.products
        self._candidates = groups.candidates(centroids)
        self._centroids = self._products.centroids(centroids)

    def chunk(self, x: Array, before: NDArray[np.int32] | None) -> tuple[NDArray[np.int32], Array]:
        """Return the nearest candidate of each row (n,) and the squared distance less the row's squared length (n,).

        Args:
            x: (n, d).
            before: (n,) the centroids that rows were nearest to; None: rows start at the group of nearest centre.
        """
        groups = self._groups.start(x) if before is None else self._groups.of[before]
        order = np.argsort(groups, kind="stable")
        bounds = np.searchsorted(groups[order], np.arange(len(self._candidates) + 1))
        labels, scores, held = np.empty(len(x), np.int32), np.empty(len(x), np.float32), self._products.hold(x)
        for group in np.flatnonzero(np.diff(bounds)):
            rows, tried = order[bounds[group] : bounds[group + 1]], self._candidates[group]
            best, scores[rows] = self._products.nearest(held, self._centroids, rows, tried)
            labels[rows] = tried[best]
        return labels, scores

    def all(self, x: Array) -> tuple[NDArray[np.int32], Array]:
        """Return what ``chunk`` does, after comparing every row with every centroid."""
        best, scores = self._products.nearest(self._products.hold(x), self._centroids)
        return best.astype(np.int32), scores


def assign_near(rows: Rows, centroids: Array, *, seed: int, products: Products = PROCESSOR) -> tuple[NDArray[np.int32], Array]:
    """Return for each row a near centroid (n,) int32 and its squared distance (n,) float32 >= 0.

    It is the nearest but where three moves from neighbour to neighbour do not reach that: less than one row in a hundred
    where the data have clusters, up to one in ten where they have none at all, whose sum of squares is then 1.5 % up.
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
