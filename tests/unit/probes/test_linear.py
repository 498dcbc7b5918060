from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cgeartheye.errors import ShapeError
from cgeartheye.probes.linear import STRENGTHS, cross_fitted, fit_linear, inner_split


def problem(seed: int, n: int = 300, d: int = 12, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, n)
    centres = rng.normal(size=(4, d))
    return (centres[labels] + noise * rng.normal(size=(n, d))) * rng.uniform(0.1, 50, d), labels


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
def test_equals_scikit_learn(strength: float) -> None:
    features, labels = problem(0)
    probe = fit_linear(features, labels, seed=0, strengths=[strength])
    oracle = LogisticRegression(C=strength, tol=1e-10, max_iter=10_000)
    oracle.fit(StandardScaler().fit_transform(features), labels)
    np.testing.assert_allclose(probe.weight, oracle.coef_, atol=0.02)
    # only differences of the biases are determined
    np.testing.assert_allclose(probe.bias - probe.bias.mean(), oracle.intercept_ - oracle.intercept_.mean(), atol=0.02)
    expected = oracle.predict_proba(StandardScaler().fit_transform(features))
    np.testing.assert_allclose(softmax(probe.logits(features), axis=1), expected, atol=1e-3)


def test_chosen_strength_is_best_on_the_inner_split() -> None:
    features, labels = problem(1, n=160, d=80, noise=3.0)
    probe = fit_linear(features, labels, seed=3)
    held = inner_split(labels, [str(i) for i in range(160)], seed=3)
    scores = []
    for strength in STRENGTHS:
        scaler = StandardScaler().fit(features[~held])
        oracle = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(scaler.transform(features[~held]), labels[~held])
        scores.append(oracle.score(scaler.transform(features[held]), labels[held]))
    assert probe.strength == STRENGTHS[int(np.argmax(scores))]
    assert probe.strength < 10.0


def test_repeats_bit_for_bit_and_ignores_constant_features() -> None:
    features, labels = problem(2)
    features = np.hstack([features, np.full((300, 1), 7.0)])
    first, second = fit_linear(features, labels, seed=1), fit_linear(features, labels, seed=1)
    assert np.array_equal(first.weight, second.weight)
    assert np.isfinite(first.logits(features)).all()
    assert (first.predict(features) == labels).mean() > 0.9


def test_inner_split_is_stratified_and_keeps_groups_together() -> None:
    labels = np.repeat([0, 1, 2], [40, 8, 2])
    groups = [f"g{i // 2}" for i in range(50)]
    held = inner_split(labels, groups, seed=0)
    assert [held[labels == c].sum() for c in range(3)] == [10, 2, 0]
    assert all(held[i] == held[i + 1] for i in range(0, 50, 2))
    assert not np.array_equal(held, inner_split(labels, groups, seed=1))
    pairs = inner_split(np.array([0, 0, 1, 1, 1]), list("abcde"), seed=0)
    assert [pairs[:2].sum(), pairs[2:].sum()] == [1, 1]


def test_a_bank_too_small_to_split_takes_the_middle_strength() -> None:
    probe = fit_linear(np.array([[0.0], [1.0]]), np.array([0, 1]), seed=0)
    assert probe.strength == STRENGTHS[3]
    assert probe.predict(np.array([[-1.0], [2.0]])).tolist() == [0, 1]


def test_one_class_is_refused() -> None:
    with pytest.raises(ShapeError):
        fit_linear(np.eye(3), np.zeros(3, int), seed=0)


def test_cross_fitting_predicts_each_half_by_the_other() -> None:
    random = np.random.default_rng(4)
    labels = random.integers(0, 3, 120)
    features = np.eye(3)[labels] + random.normal(scale=0.4, size=(120, 3))
    half = random.random(120) < 0.5
    right = np.zeros(120, dtype=bool)
    for fitted in (half, ~half):
        oracle = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, tol=1e-8))
        right[~fitted] = oracle.fit(features[fitted], labels[fitted]).predict(features[~fitted]) == labels[~fitted]
    assert cross_fitted(features, labels, half, strength=0.1) == pytest.approx(right.mean(), abs=1 / 120)
    assert 0.6 < right.mean() < 1


def test_cross_fitting_needs_two_classes_in_both_halves() -> None:
    labels = np.array([0, 0, 1, 1])
    features = np.arange(8.0).reshape(4, 2)
    assert cross_fitted(features, labels, labels == 1, strength=1.0) is None
    assert cross_fitted(features, labels, np.array([True, False, True, False]), strength=1.0) is not None
