"""From features to the places that are kept, and the order in which they are stored."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cgeartheye.clustering.balance import select_balanced
from cgeartheye.clustering.in_turn import cluster_in_turn
from cgeartheye.clustering.products import PROCESSOR, Products
from cgeartheye.clustering.rows import NotFiniteError, Rows
from cgeartheye.clustering.tree import PLACES_PER_LEAF, Tree, build_tree, default_levels
from cgeartheye.errors import DataError, InputError
from cgeartheye.seeding import derive
from cgeartheye.settings.curate import ClusterSettings

DROPPED_SHARE: Final = 0.02
"""Share of dropped places above which the others are clustered again: copies would else own clusters, and the budget with them
[ours]."""
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

    def among(self, places: NDArray[np.bool_]) -> Selection:
        """Return the same for the places that are left of (P,) when others, none of which is kept, are taken out."""
        number = np.cumsum(places) - 1
        return Selection(self.clusters[places], self.kept[places], number[self.order], self.table)


@dataclass(frozen=True)
class Traits:
    """What rules of keeping look at.

    Args:
        strata: (P,) stratum of each place, None where it has none.
        dates: (P,) number of dates of each place.
    """

    strata: Sequence[str | None]
    dates: NDArray[np.int64]


def cluster_places(
    names: Sequence[str], features: Rows, blocks: Sequence[int], settings: ClusterSettings, *, combine: str, seed: int
) -> Tree:
    """Cluster places by their features (P, d).

    Args:
        names: of the P places, for messages.
        features: float16 or float32 rows, mapped or in memory.
        blocks: widths of the descriptions that lie side by side in a row, one a level of the tree, for ``in_turn``.
        settings: sizes of the tree.
        combine: ``jointly``, or ``in_turn`` for one description after another.
        seed: of the stage.

    Raises:
        InputError: if the tree has not as many levels as there are descriptions to take in turn.
        ResourceError: if a GPU is asked for and there is none.
        DataError: if a place has features that are not finite; the first such places are named.
    """
    try:
        if combine == "jointly":
            levels = settings.levels or default_levels(len(features))
            products = _products(settings.device)
            return build_tree(features, levels, seed=seed, rounds=settings.resample_rounds, products=products)
        return _in_turn(features, blocks, settings, seed=seed)
    except NotFiniteError as error:
        some = ", ".join(names[row] for row in error.rows[:5])
        remedy = "their chips or the backbone are at fault: look at the chips, remove them from the archive, and curate again"
        raise DataError(f"{len(error.rows)} places have features that are not finite: {some}", remedy=remedy) from error


def with_dropped(tree: Tree, before: NDArray[np.int32], same_as: NDArray[np.int64]) -> Tree:
    """Return a tree of the places that are left with those that were dropped put into its leaves: to the place that they repeat.

    What repeats a picture that is no place goes where most of its former leaf went.

    Args:
        tree: of the m of P places that are left.
        before: (P,) leaf of each place in the tree of all.
        same_as: (P,) place that a dropped place repeats, P and up for another picture, -1 for the m places that are left.
    """
    left, n = same_as < 0, len(same_as)
    leaf = np.zeros(n, np.int32)
    leaf[left] = tree.labels[0]
    pairs, counts = np.unique(np.column_stack([before[left], leaf[left]]), axis=0, return_counts=True)
    heir = np.zeros(int(before.max()) + 1, np.int32)
    order = np.argsort(counts, kind="stable")
    heir[pairs[order, 0]] = pairs[order, 1]  # the largest comes last and stays
    foreign = same_as >= n
    leaf[foreign] = heir[before[foreign]]
    own = np.flatnonzero(~left & ~foreign)
    leaf[own] = leaf[same_as[own]]
    return Tree((leaf, *tree.labels[1:]), tree.centroids)


def _in_turn(features: Rows, blocks: Sequence[int], settings: ClusterSettings, *, seed: int) -> Tree:
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
    whole = features[0 : len(features)]
    taken = [whole[:, a:b] for a, b in pairwise(ends)]
    products = _products(settings.device)
    return cluster_in_turn(taken, levels, seed=seed, rounds=settings.resample_rounds, products=products)


def _products(device: str) -> Products:
    if device == "cpu":
        return PROCESSOR
    # loaded by name, so that clustering on the processor never loads torch
    found = importlib.import_module("cgeartheye.training.runtime").pick_device(device)
    module = importlib.import_module("cgeartheye.clustering.on_device")
    products: Products = PROCESSOR if found.type == "cpu" else module.TorchProducts(found)
    return products


def select_places(
    names: Sequence[str], tree: Tree, settings: ClusterSettings, *, usable: NDArray[np.bool_], traits: Traits, seed: int
) -> Selection:
    """Keep the wanted number of the P places that are ``usable`` (P,) evenly over the clusters of their tree.

    What must be kept by ``keep_per_stratum`` and ``keep_dates`` is kept first and counts towards its cluster.
    """
    n = int(usable.sum())
    alive = Tree((tree.labels[0][usable], *tree.labels[1:]), tree.centroids)
    budget = min(n, settings.keep_places or max(1, round(settings.keep_share * n)))
    hashes = _hashes(names, seed, "balance")[usable]
    strata = [stratum for stratum, one in zip(traits.strata, usable, strict=True) if one]
    must = must_keep(Traits(strata, traits.dates[usable]), settings, hashes)
    kept = np.zeros(len(names), bool)
    kept[usable] = select_balanced(alive, budget, hashes, must=must)
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
