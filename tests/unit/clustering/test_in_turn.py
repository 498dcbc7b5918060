from __future__ import annotations

import numpy as np
import pytest

from cgeartheye.clustering.in_turn import cluster_in_turn
from cgeartheye.errors import ShapeError


def described(groups: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Rows near one of a few far corners."""
    random = np.random.default_rng(seed)
    corners = 10 * np.eye(int(groups.max()) + 1, width)
    return (corners[groups] + 0.1 * random.normal(size=(len(groups), width))).astype(np.float32)


def test_the_second_description_splits_clusters_of_the_first() -> None:
    random = np.random.default_rng(0)
    coarse, fine = random.integers(0, 3, 300), random.integers(0, 4, 300)
    tree = cluster_in_turn([described(coarse, 5, 1), described(fine, 7, 2)], (12, 3), seed=0, rounds=2)
    assert [len(centroids) for centroids in tree.centroids] == [12, 3]
    pairs = set(zip(tree.labels[0].tolist(), (4 * coarse + fine).tolist(), strict=True))
    assert len(pairs) == 12  # one leaf a pair of groups
    parents = tree.labels[1][tree.labels[0]]
    assert len(set(zip(parents.tolist(), coarse.tolist(), strict=True))) == 3


def test_few_rows_and_wrong_shapes() -> None:
    rows = np.zeros((5, 3), np.float32)
    tree = cluster_in_turn([rows, rows], (4, 2), seed=0, rounds=1)
    assert [len(centroids) for centroids in tree.centroids] == [1, 1]
    assert tree.labels[0].tolist() == [0] * 5
    with pytest.raises(ShapeError):
        cluster_in_turn([rows], (4, 2), seed=0, rounds=1)
