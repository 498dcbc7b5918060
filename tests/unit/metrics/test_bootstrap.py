from __future__ import annotations

import numpy as np
import pytest

from cgeartheye.errors import ShapeError
from cgeartheye.metrics.bootstrap import draw_resamples, estimate


def names(n: int) -> list[str]:
    return [f"{i:05d}" for i in range(n)]


def test_interval_of_a_share_is_near_the_binomial_one() -> None:
    n, p = 400, 0.7
    scores = (np.arange(n) < p * n).astype(float)[None]
    found = estimate(scores, draw_resamples(names(n), seeds=1, replicates=4000, seed=0))
    half = 1.96 * np.sqrt(p * (1 - p) / n)
    assert found.value == pytest.approx(p)
    assert (found.low, found.high) == pytest.approx((p - half, p + half), abs=0.006)


def test_pictures_of_one_place_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    scores = np.repeat(rng.integers(0, 2, 100), 4).astype(float)[None]  # four dates of a place are right or wrong together
    places = [f"p{i // 4}" for i in range(400)]
    plain = estimate(scores, draw_resamples(names(400), seeds=1, replicates=2000, seed=1))
    grouped = estimate(scores, draw_resamples(places, seeds=1, replicates=2000, seed=1))
    # 100 independent places instead of 400 pictures: twice the width
    assert (grouped.high - grouped.low) / (plain.high - plain.low) == pytest.approx(2, rel=0.1)


def test_groups_of_unequal_size_keep_the_mean_of_pictures() -> None:
    scores = np.array([[1.0, 1.0, 1.0, 0.0]])
    found = estimate(scores, draw_resamples(["a", "a", "a", "b"], seeds=1, replicates=500, seed=0))
    assert found.value == 0.75
    assert (found.low, found.high) == (0.0, 1.0)


def test_variance_of_seeds_counts() -> None:
    rng = np.random.default_rng(0)
    same = np.tile((rng.random(300) < 0.5).astype(float), (3, 1))
    apart = np.clip(same + np.array([[-0.3], [0.0], [0.3]]), -1, 2)
    draws = draw_resamples(names(300), seeds=3, replicates=2000, seed=0)
    narrow, wide = estimate(same, draws), estimate(apart, draws)
    assert narrow.value == pytest.approx(wide.value)
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(3)
    groups = [f"g{i}" for i in rng.integers(0, 7, 30)]
    scores = rng.random((2, 30))
    draws = draw_resamples(groups, seeds=2, replicates=150, seed=5)
    slow = []
    for group_count, seed_count in zip(draws.group_counts, draws.seed_counts, strict=True):
        values = [
            scores[s, i]
            for s, times_s in enumerate(seed_count)
            for _ in range(times_s)
            for i in range(30)
            for _ in range(group_count[draws.group_of[i]])
        ]
        slow.append(np.mean(values))
    found = estimate(scores, draws)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=1e-12)


def test_one_row_serves_every_seed_and_draws_repeat() -> None:
    scores = np.random.default_rng(0).random((1, 50))
    draws = draw_resamples(names(50), seeds=3, replicates=200, seed=2)
    again = draw_resamples(names(50), seeds=3, replicates=200, seed=2)
    assert np.array_equal(draws.group_counts, again.group_counts)
    assert estimate(scores, draws) == pytest.approx(estimate(np.tile(scores, (3, 1)), draws))
    assert draws.group_counts.sum(axis=1).tolist() == [50] * 200
    assert draws.seed_counts.sum(axis=1).tolist() == [3] * 200


def test_wrong_shapes_are_refused() -> None:
    draws = draw_resamples(names(5), seeds=2, replicates=10, seed=0)
    with pytest.raises(ShapeError, match=r"\(2, 5\)"):
        estimate(np.zeros((3, 5)), draws)
    with pytest.raises(ShapeError, match="no picture"):
        draw_resamples([], seeds=1, replicates=10, seed=0)
