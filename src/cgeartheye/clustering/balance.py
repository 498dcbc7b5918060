"""Take a budget of rows evenly from the clusters of a tree.

Source: Vo et al. 2024, arXiv 2405.15613, section 3.3; the rules for remainders and ties are ours.
"""

from __future__ import annotations

from typing import Any

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
    one = np.zeros(len(sizes), np.int64)
    return grouped_shares(sizes, one, np.array([budget]), at_least=one)


def grouped_shares(
    sizes: NDArray[np.int64], parents: NDArray[np.integer[Any]], budgets: NDArray[np.int64], *, at_least: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Split the budget of every parent among its children, all parents at once.

    A child's share is the cap of its parent, but at least ``at_least`` and at most its size. The cap is the largest whole
    number whose shares fit the budget; what is left goes one each to the largest children that the cap holds down.

    Args:
        sizes: (m,) rows of each child.
        parents: (m,) parent of each child, in [0, p).
        budgets: (p,) rows to take of each parent; less than its children must have takes those, more than there are all.
        at_least: (m,) rows that must be taken of each child, at most its size.

    Returns: (m,) int64.
    """
    p = len(budgets)

    def total(shares: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (p,) sums of (n,) shares by parent."""
        return np.bincount(parents, weights=shares, minlength=p).astype(np.int64)

    low, high = np.zeros(p, np.int64), np.full(p, int(sizes.max(initial=0)) + 1)
    while (high - low > 1).any():
        middle = (low + high) // 2
        fits = total(np.clip(middle[parents], at_least, sizes)) <= budgets
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    shares: NDArray[np.int64] = np.clip(low[parents], at_least, sizes)
    left = np.maximum(budgets - total(shares), 0)
    held = np.flatnonzero((at_least <= low[parents]) & (sizes > low[parents]))
    order = held[np.lexsort((held, -sizes[held], parents[held]))]
    rank = np.arange(len(order)) - np.searchsorted(parents[order], parents[order], side="left")
    shares[order[rank < left[parents[order]]]] += 1
    return shares


def select_balanced(
    tree: Tree, budget: int, priority: NDArray[np.uint64], *, must: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Return which rows are kept: the budget goes down the tree evenly, a leaf keeps its rows of lowest priority number.

    Rows that must be kept are charged to their leaf before caps are set.

    Args:
        tree: of n rows.
        budget: rows to keep; where more must be kept, those are kept and no other.
        priority: (n,) uint64; ties to the earlier row.
        must: (n,) bool, True for rows that are kept in any case.

    Returns: (n,) bool with min(budget, n) True, or as many as must be.
    Raises: ShapeError: if ``priority`` or ``must`` does not fit the tree.
    """
    leaf_of = tree.labels[0]
    must = np.zeros(len(leaf_of), bool) if must is None else must
    if not priority.shape == must.shape == leaf_of.shape:
        message = f"{priority.shape} priorities and {must.shape} marks for {leaf_of.shape} rows"
        raise ShapeError(message)
    sizes, least = _sums(tree, np.ones(len(leaf_of))), _sums(tree, must)
    shares = np.array([max(budget, int(must.sum()))])
    for level in range(len(sizes) - 1, -1, -1):
        top = level + 1 == len(sizes)
        parents = np.zeros(len(sizes[level]), np.int32) if top else tree.labels[level + 1]
        shares = grouped_shares(sizes[level], parents, shares, at_least=least[level])
    order = np.lexsort((priority, ~must, leaf_of))
    rank = np.arange(len(order)) - np.searchsorted(leaf_of[order], leaf_of[order], side="left")
    kept = np.zeros(len(leaf_of), bool)
    kept[order] = rank < shares[leaf_of[order]]
    return kept


def _sums(tree: Tree, values: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Return the sum of ``values`` (n,) over each node of each level."""
    found: list[NDArray[np.int64]] = []
    for labels, centroids in zip(tree.labels, tree.centroids, strict=True):
        values = np.bincount(labels, weights=values, minlength=len(centroids)).astype(np.int64)
        found.append(values)
    return found
