from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from cgeartheye.errors import ShapeError
from cgeartheye.metrics.segmentation import confusion, interval, iou, mean_iou, overall_accuracy, resampled, score_table


@pytest.fixture
def maps() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (50, 60)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 4, truth.shape)).astype(np.uint8)
    return truth, predicted


def test_scores_are_scikit_learns(maps: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = maps
    counts = confusion(truth, predicted, 4)
    assert (counts[:, :4] == confusion_matrix(truth.ravel(), predicted.ravel())).all()
    assert (counts[:, 4] == 0).all()
    expected = jaccard_score(truth.ravel(), predicted.ravel(), average=None)
    np.testing.assert_allclose(iou(counts.astype(float)), expected)
    assert mean_iou(counts.astype(float)) == pytest.approx(expected.mean())
    assert overall_accuracy(counts.astype(float)) == pytest.approx(accuracy_score(truth.ravel(), predicted.ravel()))


def test_unlabelled_pixels_do_not_count_and_unmapped_ones_are_errors() -> None:
    truth = np.array([0, 0, 1, 255], np.uint8)
    counts = confusion(truth, np.array([0, 255, 1, 0], np.uint8), 2)
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0]]
    np.testing.assert_allclose(iou(counts.astype(float)), [0.5, 1.0])


def test_a_class_without_true_pixels_has_no_score() -> None:
    counts = confusion(np.zeros(4, np.uint8), np.array([0, 0, 1, 0], np.uint8), 2).astype(float)
    assert np.isnan(iou(counts)[1])
    assert mean_iou(counts) == pytest.approx(0.75)
    assert np.isnan(mean_iou(np.zeros((2, 3))))


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError):
        confusion(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)


def test_bootstrap_interval_is_the_binomial_one() -> None:
    """Blocks of one pixel make the block bootstrap of accuracy a plain bootstrap of a share, whose spread is known."""
    right = np.random.default_rng(1).random(400) < 0.7
    blocks = np.zeros((400, 2, 3), np.int64)
    blocks[np.arange(400), 0, np.where(right, 0, 1)] = 1
    drawn = overall_accuracy(resampled(blocks, 4000, np.random.default_rng(2)))
    low, high = interval(drawn)
    share = right.mean()
    assert (high - low) / 2 == pytest.approx(1.96 * np.sqrt(share * (1 - share) / 400), rel=0.08)
    assert low < share < high


def test_equal_methods_gain_nothing_and_pairs_are_tighter_than_singles(maps: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = maps
    blocks = np.stack([confusion(t, p, 4) for t, p in zip(truth, predicted, strict=True)])
    worse = np.stack(
        [confusion(t, np.where(np.arange(60) < 3, (t + 1) % 4, p).astype(np.uint8), 4) for t, p in zip(*maps, strict=True)]
    )
    table = score_table({"a": blocks, "b": blocks, "c": worse}, list("wxyz"), draws=500, seed=3)
    assert table["b"]["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    gain, single = table["c"]["gain"], table["c"]["miou"]
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    assert gain["high"] - gain["low"] < single["high"] - single["low"]
    assert table == score_table({"a": blocks, "b": blocks, "c": worse}, list("wxyz"), draws=500, seed=3)
