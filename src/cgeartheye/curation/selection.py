"""From features to the places that are kept, and the order in which they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cgeartheye.clustering.balance import select_balanced
from cgeartheye.clustering.rows import NotFiniteError, Rows
from cgeartheye.clustering.tree import Tree, build_tree, default_levels
from cgeartheye.errors import DataError
from cgeartheye.seeding import derive
from cgeartheye.settings.curate import ClusterSettings


@dataclass(frozen=True)
class Selection:
    """Which of P places are kept.

    Args:
        clusters: (P,) int32, leaf of each place.
        kept: (P,) bool.
        order: positions of the kept places in the order of the shards: hashed, so that neighbours in a shard are not
            neighbours on the ground.
        table: one row a leaf: cluster, path of parents, places, kept.
    """

    clusters: NDArray[np.int32]
    kept: NDArray[np.bool_]
    order: NDArray[np.int64]
    table: pa.Table


@dataclass(frozen=True)
class Traits:
    """What rules of keeping look at.

    Args:
        strata: (P,) stratum of each place, None where it has none.
        dates: (P,) number of dates of each place.
    """

    strata: Sequence[str | None]
    dates: NDArray[np.int64]


def select_places(
    names: Sequence[str], features: Rows, settings: ClusterSettings, *, seed: int, traits: Traits | None = None
) -> Selection:
    """Cluster places by their features (P, d) and keep the wanted number evenly over the clusters.

    What must be kept by ``keep_per_stratum`` and ``keep_dates`` is kept first and counts towards its cluster.

    Raises: DataError: if a place has features that are not finite; the first such places are named.
    """
    n = len(names)
    try:
        tree = build_tree(features, settings.levels or default_levels(n), seed=seed, rounds=settings.resample_rounds)
    except NotFiniteError as error:
        some = ", ".join(names[row] for row in error.rows[:5])
        remedy = (
            "their chips, or the backbone, are at fault: look at the chips, remove them from the archive, and run curate again"
        )
        raise DataError(f"{len(error.rows)} places have features that are not finite: {some}", remedy=remedy) from error
    budget = min(n, settings.keep_places or max(1, round(settings.keep_share * n)))
    hashes = _hashes(names, seed, "balance")
    must = np.zeros(n, bool) if traits is None else must_keep(traits, settings, hashes)
    kept = select_balanced(tree, budget, hashes, must=must)
    order = np.argsort(_hashes(names, seed, "order of shards"), kind="stable")
    return Selection(tree.labels[0], kept, order[kept[order]], _describe(tree, kept))


def must_keep(traits: Traits, settings: ClusterSettings, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which places (P,) the rules keep in any case: of each stratum those of lowest hash, and those of many dates."""
    _, strata = np.unique(["" if name is None else name for name in traits.strata], return_inverse=True)
    known = np.array([name is not None for name in traits.strata], bool)
    order = np.lexsort((hashes, strata))
    rank = np.arange(len(order)) - np.searchsorted(strata[order], strata[order], side="left")
    must = np.zeros(len(order), bool)
    must[order] = rank < settings.keep_per_stratum
    must &= known
    if settings.keep_dates is not None:
        must |= traits.dates >= settings.keep_dates
    return must


def _hashes(names: Sequence[str], seed: int, stream: str) -> NDArray[np.uint64]:
    return np.array([derive(seed, stream, name) for name in names], np.uint64)


def _describe(tree: Tree, kept: NDArray[np.bool_]) -> pa.Table:
    leaves = len(tree.centroids[0])
    parents: list[NDArray[np.int32]] = []
    node = np.arange(leaves, dtype=np.int32)
    for labels in tree.labels[1:]:
        node = labels[node]
        parents.append(node)
    return pa.table(
        {
            "cluster": pa.array(range(leaves), pa.int32()),
            "parents": pa.array([[int(level[leaf]) for level in parents] for leaf in range(leaves)], pa.list_(pa.int32())),
            "places": pa.array(np.bincount(tree.labels[0], minlength=leaves), pa.int64()),
            "kept": pa.array(np.bincount(tree.labels[0][kept], minlength=leaves), pa.int64()),
        }
    )
