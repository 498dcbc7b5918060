"""Take a budget of rows evenly from the clusters of a tree.

Source: Vo et al. 2024, arXiv 2405.15613, section 3.3; the rules for remainders and ties are ours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.tree import Tree
from cgeartheye.errors import ShapeError


def capped_shares(sizes: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Split ``budget`` among children so that all get equally many where they have them.

    The cap c is the largest whole number with sum min(n_i, c) <= budget; what is left goes one each to the largest
    children above the cap, ties to the earlier one.

    Args:
        sizes: (m,) rows of each child.
        budget: rows to take in all; more than there are takes everything.

    Returns: (m,) int64, 0 <= share <= size, summing to min(budget, sum of sizes).
    """
    budget = min(int(budget), int(sizes.sum()))
    order = np.argsort(sizes, kind="stable")
    ascending = sizes[order]
    before = np.concatenate([[0], np.cumsum(ascending)[:-1]])
    left = len(sizes) - np.arange(len(sizes))
    fits = np.flatnonzero(before + ascending * left > budget)
    if not fits.size:
        return sizes.copy()
    cap = (budget - before[fits[0]]) // left[fits[0]]
    shares: NDArray[np.int64] = np.minimum(sizes, cap)
    larger = np.flatnonzero(sizes > cap)
    richest = larger[np.argsort(-sizes[larger], kind="stable")]
    shares[richest[: budget - shares.sum()]] += 1
    return shares


def select_balanced(tree: Tree, budget: int, priority: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which rows are kept: the budget goes down the tree evenly, a leaf keeps its rows of lowest priority number.

    Args:
        tree: of n rows.
        budget: rows to keep.
        priority: (n,) uint64; ties to the earlier row.

    Returns: (n,) bool with min(budget, n) True.
    Raises: ShapeError: if ``priority`` does not fit the tree.
    """
    leaf_of = tree.labels[0]
    if priority.shape != leaf_of.shape:
        message = f"{priority.shape} priorities for {leaf_of.shape} rows"
        raise ShapeError(message)
    sizes = [np.bincount(leaf_of, minlength=len(tree.centroids[0])).astype(np.int64)]
    for parents, centroids in zip(tree.labels[1:], tree.centroids[1:], strict=True):
        sizes.append(np.bincount(parents, weights=sizes[-1], minlength=len(centroids)).astype(np.int64))
    shares = capped_shares(sizes[-1], budget)
    for level in range(len(sizes) - 2, -1, -1):
        finer = np.zeros_like(sizes[level])
        for parent, share in enumerate(shares):
            children = np.flatnonzero(tree.labels[level + 1] == parent)
            finer[children] = capped_shares(sizes[level][children], int(share)) if children.size else 0
        shares = finer
    order = np.lexsort((np.arange(len(leaf_of)), priority, leaf_of))
    rank = np.arange(len(order)) - np.searchsorted(leaf_of[order], leaf_of[order], side="left")
    kept = np.zeros(len(leaf_of), bool)
    kept[order] = rank < shares[leaf_of[order]]
    return kept
