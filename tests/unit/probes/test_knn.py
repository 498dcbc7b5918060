from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from cgeartheye.errors import ShapeError
from cgeartheye.probes.knn import knn_leave_one_out, knn_predict, knn_votes


def problem(seed: int, n: int = 120, m: int = 50, d: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)).astype(np.float32), rng.integers(0, 4, n), rng.normal(size=(m, d)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_equals_scikit_learn(seed: int) -> None:
    bank, labels, queries = problem(seed)
    oracle = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07))
    oracle.fit(bank.astype(np.float64), labels)
    votes = knn_votes(bank, labels, queries)
    np.testing.assert_allclose(votes, oracle.predict_proba(queries.astype(np.float64)), atol=1e-9)
    assert np.array_equal(knn_predict(bank, labels, queries), oracle.predict(queries.astype(np.float64)))


def test_ties_take_the_first_of_the_bank_and_the_first_class() -> None:
    bank = np.tile([[1.0, 0.0]], (6, 1))
    labels = np.array([2, 1, 1, 0, 0, 0])
    votes = knn_votes(bank, labels, np.array([[2.0, 0.0]]), k=3)
    np.testing.assert_allclose(votes, [[0, 2 / 3, 1 / 3]])
    assert knn_predict(bank, labels, np.array([[2.0, 0.0]]), k=4).tolist() == [1]
    assert knn_predict(bank, np.array([1, 0, 1, 0, 1, 0]), np.array([[2.0, 0.0]]), k=2).tolist() == [0]


def test_scale_of_features_and_small_temperatures_do_not_matter() -> None:
    bank, labels, queries = problem(7)
    scaled = knn_votes(bank * 1e3, labels, queries * 1e-3)
    np.testing.assert_allclose(scaled, knn_votes(bank, labels, queries), atol=1e-6)
    assert np.isfinite(knn_votes(bank, labels, queries, temperature=1e-4)).all()


def test_small_bank_and_zero_vectors() -> None:
    votes = knn_votes(np.eye(2), np.array([0, 1]), np.zeros((1, 2)), k=20)
    np.testing.assert_allclose(votes, [[0.5, 0.5]])


def test_leave_one_out_equals_the_loop() -> None:
    bank, labels, _ = problem(2, n=40)
    slow = [knn_predict(np.delete(bank, i, 0), np.delete(labels, i), bank[i : i + 1], k=5)[0] for i in range(40)]
    assert knn_leave_one_out(bank, labels, k=5).tolist() == slow


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError):
        knn_votes(np.eye(2), np.array([0]), np.eye(2))
    with pytest.raises(ShapeError):
        knn_votes(np.eye(2), np.array([0, 1]), np.eye(3))
