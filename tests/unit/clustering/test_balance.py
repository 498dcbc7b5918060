from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from cgeartheye.clustering import tree as tree_module
from cgeartheye.clustering.balance import capped_shares, grouped_shares, select_balanced
from cgeartheye.clustering.tree import Tree, build_tree, default_levels, nearest_rows
from cgeartheye.errors import ShapeError


def test_known_answer() -> None:
    shares = capped_shares(np.array([10, 3, 50]), 20)
    assert shares.tolist() == [8, 3, 9]


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=12), budget=st.integers(0, 400))
def test_cap_is_the_largest_that_fits(sizes: list[int], budget: int) -> None:
    n = np.array(sizes)
    shares = capped_shares(n, budget)
    total = min(budget, sum(sizes))
    assert shares.sum() == total
    assert (shares <= n).all()
    cap = max(c for c in range(52) if np.minimum(n, c).sum() <= total) if total < sum(sizes) else 51
    assert (shares >= np.minimum(n, cap)).all()
    assert (shares <= np.minimum(n, cap + 1)).all()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_all_parents_at_once_are_each_parent_alone(seed: int) -> None:
    random = np.random.default_rng(seed)
    m, p = random.integers(1, 40), random.integers(1, 6)
    parents, sizes, budgets = random.integers(0, p, m), random.integers(0, 30, m), random.integers(0, 120, p)
    shares = grouped_shares(sizes, parents, budgets, at_least=np.zeros(m, np.int64))
    for parent in range(p):
        own = parents == parent
        assert shares[own].tolist() == capped_shares(sizes[own], int(budgets[parent])).tolist()


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_shares_that_must_be_are_charged_before_the_cap(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 30, 12)
    least = random.integers(0, sizes + 1)
    budget = int(random.integers(0, 200))
    one = np.zeros(12, np.int64)
    shares = grouped_shares(sizes, one, np.array([budget]), at_least=least)
    assert shares.sum() == np.clip(budget, least.sum(), sizes.sum())
    assert ((least <= shares) & (shares <= sizes)).all()
    free = (shares > least) & (shares < sizes)  # neither the rule nor the size decides: the cap, or one more
    if free.any():
        assert np.ptp(shares[free]) <= 1
        assert (shares[shares > least] <= shares[free].min() + 1).all()


def zipf(n: int, concepts: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    weights = 1 / np.arange(1, concepts + 1) ** 1.15
    truth = random.choice(concepts, n, p=weights / weights.sum())
    centres = random.normal(size=(concepts, d))
    rows = centres[truth] + 0.25 * random.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), truth


def effective(truth: np.ndarray) -> float:
    shares = np.bincount(truth) / len(truth)
    return float(np.exp(-sum(p * np.log(p) for p in shares if p > 0)))


def test_a_balanced_tenth_holds_far_more_concepts_than_a_random_tenth() -> None:
    rows, truth = zipf(12_000, 150, 32, 0)
    tree = build_tree(rows, (120, 12), seed=0, rounds=5)
    priority = np.random.default_rng(1).integers(0, 2**63, len(rows)).astype(np.uint64)
    kept = select_balanced(tree, 1200, priority)
    assert kept.sum() == 1200
    random = np.argsort(priority)[:1200]
    assert effective(truth[kept]) > 2 * effective(truth[random])


def test_selection_keeps_the_lowest_numbers_of_each_leaf() -> None:
    leaves = np.array([0, 0, 0, 1, 1, 2], np.int32)
    tree = Tree((leaves, np.array([0, 0, 1], np.int32)), (np.zeros((3, 1), np.float32), np.zeros((2, 1), np.float32)))
    priority = np.array([5, 1, 9, 7, 2, 0], np.uint64)
    assert np.flatnonzero(select_balanced(tree, 3, priority)).tolist() == [1, 4, 5]
    assert select_balanced(tree, 99, priority).all()
    with pytest.raises(ShapeError):
        select_balanced(tree, 3, priority[:2])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), budget=st.integers(1, 250))
def test_any_budget_is_met_on_any_tree(seed: int, budget: int) -> None:
    random = np.random.default_rng(seed)
    leaves = np.unique(random.integers(0, 20, 200), return_inverse=True)[1].astype(np.int32)
    k = leaves.max() + 1
    parents = np.unique(random.integers(0, 4, k), return_inverse=True)[1].astype(np.int32)
    tree = Tree((leaves, parents), (np.zeros((k, 1), np.float32), np.zeros((parents.max() + 1, 1), np.float32)))
    kept = select_balanced(tree, budget, random.integers(0, 9, 200).astype(np.uint64))
    assert kept.sum() == min(budget, 200)
    larger = select_balanced(tree, budget + 10, np.arange(200).astype(np.uint64))
    assert larger.sum() == min(budget + 10, 200)


def test_rows_that_must_be_kept_are_kept_first() -> None:
    leaves = np.array([0, 0, 0, 0, 1, 1], np.int32)
    tree = Tree((leaves, np.array([0, 0], np.int32)), (np.zeros((2, 1), np.float32), np.zeros((1, 1), np.float32)))
    must = np.array([False, True, True, True, False, False])
    kept = select_balanced(tree, 4, np.arange(6).astype(np.uint64), must=must)
    assert np.flatnonzero(kept).tolist() == [1, 2, 3, 4]
    assert np.flatnonzero(select_balanced(tree, 2, np.arange(6).astype(np.uint64), must=must)).tolist() == [1, 2, 3]


def test_nearest_rows_by_brute_force_in_any_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels, distances = random.integers(0, 9, 400).astype(np.int32), random.integers(0, 20, 400).astype(np.float32)
    brute = sorted(row for k in range(9) for row in sorted(np.flatnonzero(labels == k), key=lambda r: (distances[r], r))[:6])
    assert nearest_rows(labels, distances, 6).tolist() == brute
    monkeypatch.setattr(tree_module, "_MERGED_ROWS", 70)
    assert nearest_rows(labels, distances, 6).tolist() == brute


def test_tree_is_a_tree_and_repeats() -> None:
    rows, _ = zipf(3000, 40, 16, 3)
    first, second = (build_tree(rows, (40, 6), seed=9, rounds=3) for _ in range(2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first.labels, second.labels, strict=True))
    assert len(first.labels[0]) == 3000
    assert len(first.labels[1]) == len(first.centroids[0]) <= 40
    assert set(first.labels[0].tolist()) == set(range(len(first.centroids[0])))


def test_bits_of_a_tree_do_not_depend_on_threads() -> None:
    rows, _ = zipf(9000, 80, 48, 5)
    trees = []
    for limit in (1, 2):
        with threadpool_limits(limit):
            trees.append(build_tree(rows, (120, 12), seed=2, rounds=2))
    for one, two in zip(trees[0].labels + trees[0].centroids, trees[1].labels + trees[1].centroids, strict=True):
        assert one.tobytes() == two.tobytes()


def test_default_levels() -> None:
    assert default_levels(5) == (1,)
    assert default_levels(700) == (9,)
    assert default_levels(80_000) == (1000, 100, 10)
