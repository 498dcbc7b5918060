"""Hierarchical k-means: clusters of clusters, with resampling, so that common scenes do not own the tree.

Level 1 clusters the rows, every further level the centroids below it, unweighted: a common concept owns many fine
centroids but little of the space they span. Resampling clusters anew only the rows nearest to each centroid.

Source: Vo et al. 2024, "Automatic data curation for self-supervised learning", arXiv 2405.15613.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.kmeans import Clustering, assign, kmeans
from cgeartheye.clustering.neighbours import ALL_UP_TO, assign_near
from cgeartheye.clustering.products import PROCESSOR, Products
from cgeartheye.clustering.rows import Picked, Rows
from cgeartheye.errors import ShapeError
from cgeartheye.seeding import derive

PLACES_PER_LEAF: Final = 80
"""Mean size of a leaf when the levels are not given [ours]."""
LEVEL_RATIO: Final = 10
"""Clusters of a level for one of the next coarser level when the levels are not given [arXiv 2405.15613: 10 to 20]."""
RESAMPLED_ROWS: Final = 15
"""Rows nearest to a centroid that a round keeps [arXiv 2405.15613], at most a quarter of the mean size of a cluster [ours]: half
of it, as is published for upper levels, leaves one cluster with half of a level's nodes."""

_MERGED_ROWS: Final = 2**22


@dataclass(frozen=True)
class Tree:
    """Levels of clusters from fine to coarse.

    Args:
        labels: one int32 array a level: labels[0] (n,) is each row's leaf, labels[l] (k of level l - 1,) the parent of
            each node.
        centroids: one (k, d) float32 array a level.
    """

    labels: tuple[NDArray[np.int32], ...]
    centroids: tuple[NDArray[np.float32], ...]


def default_levels(n: int) -> tuple[int, ...]:
    """Return numbers of clusters for ``n`` rows from fine to coarse: 80 rows a leaf, then a tenth a level, down to 10."""
    levels = [max(1, round(n / PLACES_PER_LEAF))]
    while levels[-1] >= LEVEL_RATIO**2:
        levels.append(levels[-1] // LEVEL_RATIO)
    return tuple(levels)


def build_tree(rows: Rows, levels: tuple[int, ...], *, seed: int, rounds: int, products: Products = PROCESSOR) -> Tree:
    """Cluster ``rows`` (n, d) into ``levels`` (fine to coarse) with ``rounds`` of resampling at each level.

    ``products`` says where products of matrices are made.

    Raises:
        ShapeError: if there is no level.
        DataError: if a row is not finite.
    """
    if not levels:
        message = "a tree needs at least one level"
        raise ShapeError(message)
    labels, centroids = [], []
    below: Rows = rows
    for number, k in enumerate(levels):
        level = _cluster(below, k, derive(seed, "tree level", number), rounds, products)
        labels.append(level.labels)
        centroids.append(level.centroids)
        below = level.centroids
    return Tree(tuple(labels), tuple(centroids))


def _cluster(rows: Rows, k: int, seed: int, rounds: int, products: Products) -> Clustering:
    found = kmeans(rows, k, seed=seed, products=products)
    kept = min(RESAMPLED_ROWS, len(rows) // (4 * len(found.centroids)))
    if kept < 1 or len(found.centroids) < 2:
        return found
    for number in range(rounds):
        near = nearest_rows(found.labels, found.distances, kept)
        again = kmeans(Picked(rows, near), k, seed=derive(seed, "resample", number), products=products)
        last = number + 1 == rounds and len(again.centroids) <= ALL_UP_TO
        if last:
            labels, distances = assign(rows, again.centroids, products=products)
        else:
            labels, distances = assign_near(rows, again.centroids, seed=derive(seed, "assign", number), products=products)
        used, compact = np.unique(labels, return_inverse=True)
        found = Clustering(again.centroids[used], compact.astype(np.int32), distances, again.passes)
    return found


def nearest_rows(labels: NDArray[np.int32], distances: NDArray[np.float32], kept: int) -> NDArray[np.int64]:
    """Return in increasing order the rows among the ``kept`` nearest of their cluster; ties to the earlier row.

    Args:
        labels: (n,) cluster of each row.
        distances: (n,) to its centroid.
        kept: rows of each cluster.
    """
    near = np.zeros(0, np.int64)
    for start in range(0, len(labels), _MERGED_ROWS):
        some = np.concatenate([near, np.arange(start, min(start + _MERGED_ROWS, len(labels)))])
        order = some[np.lexsort((some, distances[some], labels[some]))]
        sorted_labels = labels[order]
        rank = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels, side="left")
        near = order[rank < kept]
    return np.sort(near)
