from __future__ import annotations

import numpy as np
import pytest

from cgeartheye.errors import ShapeError
from cgeartheye.probes.retrieval import cosine, disturb, grey_thumbnail, ranks, turned_thumbnails


def test_ranks_count_equals_against_the_right_one() -> None:
    similarity = np.array([[0.9, 0.5, 0.1], [0.2, 0.2, 0.2], [0.3, 0.1, 0.2]])
    assert ranks(similarity, np.array([0, 1, 1])).tolist() == [1, 3, 3]
    with pytest.raises(ShapeError):
        ranks(similarity, np.array([0]))


def test_ranks_equal_sorting() -> None:
    rng = np.random.default_rng(0)
    similarity, truth = rng.random((20, 15)), rng.integers(0, 15, 20)
    slow = [sorted(row, reverse=True).index(row[t]) + 1 for row, t in zip(similarity.tolist(), truth, strict=True)]
    assert ranks(similarity, truth).tolist() == slow


def test_disturbance_is_fixed_by_name_turns_and_crops() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert np.array_equal(disturb(image, seed=1, name="a"), disturb(image, seed=1, name="a"))
    sides, turns = [], []
    windows = [np.lib.stride_tricks.sliding_window_view(np.rot90(image, k)[..., 0], (8, 8)) for k in range(4)]
    for number in range(60):
        crop = disturb(image, seed=1, name=str(number))
        sides.append(crop.shape[0])
        assert crop.shape[0] == crop.shape[1]
        turns.append([k for k, w in enumerate(windows) if (w == crop[:8, :8, 0]).all(axis=(2, 3)).any()])
    assert min(sides) >= 30
    assert max(sides) <= 40
    assert len(set(sides)) > 6
    assert {len(t) for t in turns} == {1}
    assert {t[0] for t in turns} == {0, 1, 2, 3}


def test_thumbnails_find_a_turned_chip_only_over_turns() -> None:
    rng = np.random.default_rng(1)
    chips = rng.integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    gallery = np.stack([grey_thumbnail(chip, 16) for chip in chips])
    np.testing.assert_allclose(gallery.mean(axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(gallery.std(axis=1), 1, rtol=1e-5)
    queries = np.stack([grey_thumbnail(np.rot90(chip), 16) for chip in chips])
    best = np.max([cosine(turned, gallery) for turned in turned_thumbnails(queries, 16)], axis=0)
    assert ranks(best, np.arange(6)).tolist() == [1] * 6
    np.testing.assert_allclose(best.diagonal(), 1, atol=1e-6)
    assert ranks(cosine(queries, gallery), np.arange(6)).max() > 1
    assert not grey_thumbnail(np.full((8, 8, 3), 7, np.uint8), 4).any()
