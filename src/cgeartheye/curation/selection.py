"""From features to the places that are kept, and the order in which they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cgeartheye.clustering.balance import select_balanced
from cgeartheye.clustering.in_turn import cluster_in_turn
from cgeartheye.clustering.tree import PLACES_PER_LEAF, Tree, build_tree, default_levels
from cgeartheye.errors import InputError
from cgeartheye.seeding import derive
from cgeartheye.settings.curate import ClusterSettings

Features = NDArray[np.float16] | NDArray[np.float32]


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


def cluster_places(features: Features, blocks: Sequence[int], settings: ClusterSettings, *, combine: str, seed: int) -> Tree:
    """Cluster places by their features (P, d).

    Args:
        features: float16 or float32 rows, mapped or in memory.
        blocks: widths of the descriptions that lie side by side in a row, one a level of the tree, for ``in_turn``.
        settings: sizes of the tree.
        combine: ``jointly``, or ``in_turn`` for one description after another.
        seed: of the stage.

    Raises:
        InputError: if the tree has not as many levels as there are descriptions to take in turn.
    """
    if combine == "jointly":
        levels = settings.levels or default_levels(len(features))
        return build_tree(features, levels, seed=seed, rounds=settings.resample_rounds)
    leaves = max(1, round(len(features) / PLACES_PER_LEAF))
    steps = range(len(blocks), 0, -1)
    levels = settings.levels or tuple(max(1, round(leaves ** (step / len(blocks)))) for step in steps)
    if len(levels) != len(blocks):
        raise InputError(
            f"{len(levels)} levels of clusters for {len(blocks)} levels of the representation, taken in turn",
            where="curate.clusters.levels",
            remedy="give as many, from fine to coarse, or none",
        )
    ends = np.cumsum([0, *blocks])
    taken = [features[:, a:b] for a, b in pairwise(ends)]
    return cluster_in_turn(taken, levels, seed=seed, rounds=settings.resample_rounds)


def select_places(
    names: Sequence[str], tree: Tree, usable: NDArray[np.bool_], settings: ClusterSettings, *, seed: int
) -> Selection:
    """Keep the wanted number of the P places that are ``usable`` (P,) evenly over the clusters of their tree."""
    n = int(usable.sum())
    alive = Tree((tree.labels[0][usable], *tree.labels[1:]), tree.centroids)
    budget = min(n, settings.keep_places or max(1, round(settings.keep_share * n)))
    kept = np.zeros(len(names), bool)
    kept[usable] = select_balanced(alive, budget, _hashes(names, seed, "balance")[usable])
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
