from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from cgeartheye.clustering.kmeans import assign, kmeans, lloyd
from cgeartheye.clustering.on_device import TorchProducts
from cgeartheye.clustering.products import PROCESSOR, Array, Centroids, Positions, Processor, Products
from cgeartheye.clustering.tree import build_tree

ON_TORCH = TorchProducts(torch.device("cpu"))


def rows_of(n: int, d: int, clusters: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(clusters, d))
    return (centres[random.integers(0, clusters, n)] + 0.4 * random.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("products", [PROCESSOR, ON_TORCH])
def test_nearest_and_dots_are_those_of_brute_force(products: Products) -> None:
    random = np.random.default_rng(2)
    x, c = random.normal(size=(50, 7)).astype(np.float32), random.normal(size=(12, 7)).astype(np.float32)
    rows, tried = np.array([3, 4, 40, 17]), np.array([11, 0, 5])
    held, centroids = products.hold(x), products.centroids(c)
    brute = np.square(x[:, None].astype(float) - c).sum(axis=2) - np.square(x.astype(float)).sum(axis=1)[:, None]
    best, scores = products.nearest(held, centroids)
    assert best.tolist() == brute.argmin(axis=1).tolist()
    assert np.allclose(scores, brute.min(axis=1), atol=1e-5)
    best, scores = products.nearest(held, centroids, rows, tried)
    assert best.tolist() == brute[rows][:, tried].argmin(axis=1).tolist()
    assert np.allclose(scores, brute[rows][:, tried].min(axis=1), atol=1e-5)
    assert products.nearest_two(held, centroids).tolist() == brute.argsort(axis=1)[:, :2].tolist()
    assert products.nearest_two(held, centroids, rows, tried).tolist() == brute[rows][:, tried].argsort(axis=1)[:, :2].tolist()
    assert np.allclose(products.dots(held, slice(5, 9), rows), x[5:9].astype(float) @ x[rows].T, atol=1e-5)


def test_torch_gives_the_labels_of_numpy() -> None:
    rows = rows_of(3000, 24, 130)
    ours, theirs = kmeans(rows, 90, seed=3), kmeans(rows, 90, seed=3, products=ON_TORCH)
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert np.allclose(ours.centroids, theirs.centroids, atol=1e-5)
    for one, other in zip(
        build_tree(rows, (80, 8), seed=1, rounds=2).labels,
        build_tree(rows, (80, 8), seed=1, rounds=2, products=ON_TORCH).labels,
        strict=True,
    ):
        assert one.tolist() == other.tolist()
    labels, distances = assign(rows.astype(np.float16), ours.centroids, products=ON_TORCH)
    assert labels.tolist() == assign(rows.astype(np.float16), ours.centroids)[0].tolist()
    assert (distances >= 0).all()


class Counting(Processor):
    """Counts rows that are compared with all of k centroids."""

    def __init__(self, k: int) -> None:
        self.k, self.rows = k, 0

    def nearest(
        self, held: Array, centroids: Centroids, rows: Positions | None = None, tried: Positions | None = None, /
    ) -> tuple[Positions, Array]:
        self.rows += len(held) if tried is None and len(centroids.values) == self.k else 0
        return super().nearest(held, centroids, rows, tried)


def test_rows_are_compared_with_all_centroids_at_the_end_alone() -> None:
    rows, counting = rows_of(20_000, 12, 300), Counting(200)
    states = lloyd(rows, 200, seed=0, products=counting)
    for _ in range(4):
        next(states)
    assert counting.rows == 0
    assert sum(1 for _ in states) > 1
    assert counting.rows >= len(rows)
    assert counting.rows % len(rows) == 0


def test_clustering_on_the_processor_loads_no_torch() -> None:
    code = "import sys, cgeartheye.clustering; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
