"""Clusters by one description after another: first by the first, then inside each cluster by the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.products import PROCESSOR, Products
from cgeartheye.clustering.rows import Rows
from cgeartheye.clustering.tree import Tree, build_tree
from cgeartheye.errors import ShapeError
from cgeartheye.seeding import derive


def cluster_in_turn(
    blocks: Sequence[Rows], levels: Sequence[int], *, seed: int, rounds: int, products: Products = PROCESSOR
) -> Tree:
    """Build a tree whose coarsest level clusters the first description and whose leaves the last one.

    Every cluster of a level is split into as many, where it has so many distinct rows.

    Args:
        blocks: (n, d_l) rows, one description a level, the coarsest first.
        levels: clusters of each level in all, from fine to coarse, as many as there are descriptions.
        seed: of all draws.
        rounds: of resampling.
        products: where products are made.

    Returns: a tree; its centroids of a level lie in the space of that level's description.
    Raises: ShapeError: if levels and descriptions do not fit.
    """
    if len(levels) != len(blocks) or len({len(block) for block in blocks}) != 1:
        raise ShapeError(f"{len(levels)} levels for {len(blocks)} descriptions of {[len(block) for block in blocks]} rows")
    node = np.zeros(len(blocks[0]), np.int32)
    labels: list[NDArray[np.int32]] = []
    centroids: list[NDArray[np.float32]] = []
    before, build = 1, partial(build_tree, rounds=rounds, products=products)
    for number, (rows, wanted) in enumerate(zip(blocks, reversed(levels), strict=True)):
        each = max(1, round(wanted / before))
        node, parents, found = _split(rows, node, each, derive(seed, "in turn", number), build)
        labels.append(parents)
        centroids.append(found)
        before = len(found)
    return Tree((node, *reversed(labels[1:])), tuple(reversed(centroids)))


def _split(
    rows: Rows, node: NDArray[np.int32], each: int, seed: int, build: Callable[..., Tree]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Split every node; return each row's new node (n,), each new node's old one (k,) and the centroids (k, d)."""
    finer = np.empty_like(node)
    parents: list[NDArray[np.int32]] = []
    centroids: list[NDArray[np.float32]] = []
    order = np.argsort(node, kind="stable")
    bounds = np.searchsorted(node[order], np.arange(int(node.max(initial=-1)) + 2))
    total = 0
    for old, (start, end) in enumerate(pairwise(bounds)):
        members = order[start:end]
        tree = build(np.asarray(rows[members], np.float32), (min(each, len(members)),), seed=derive(seed, "node", old))
        finer[members] = tree.labels[0] + total
        found = tree.centroids[0]
        parents.append(np.full(len(found), old, np.int32))
        centroids.append(found)
        total += len(found)
    return finer, np.concatenate(parents), np.concatenate(centroids)
