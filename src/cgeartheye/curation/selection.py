"""From features to the places that are kept, and the order in which they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cgeartheye.clustering.balance import select_balanced
from cgeartheye.clustering.tree import Tree, build_tree, default_levels
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


def select_places(names: Sequence[str], features: NDArray[np.float32], settings: ClusterSettings, *, seed: int) -> Selection:
    """Cluster places by their features (P, d) and keep the wanted number evenly over the clusters."""
    n = len(names)
    tree = build_tree(features, settings.levels or default_levels(n), seed=seed, rounds=settings.resample_rounds)
    budget = min(n, settings.keep_places or max(1, round(settings.keep_share * n)))
    kept = select_balanced(tree, budget, _hashes(names, seed, "balance"))
    order = np.argsort(_hashes(names, seed, "order of shards"), kind="stable")
    return Selection(tree.labels[0], kept, order[kept[order]], _describe(tree, kept))


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
