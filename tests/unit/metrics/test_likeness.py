from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import fft, ndimage

from cgeartheye.errors import ShapeError
from cgeartheye.metrics.likeness import (
    INVERSE,
    ORIENTATIONS,
    compare,
    composed,
    grey_thumbnail,
    hamming,
    oriented,
    oriented_hashes,
    perceptual_hash,
)


def texture(seed: int, side: int = 128, width: float = 3) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), width)
    return np.asarray(128 + 40 * noise / noise.std(), np.float32)


def hashed(grey: np.ndarray) -> np.ndarray:
    return np.array([perceptual_hash(grey)], np.uint64)


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_the_hash_of_an_orientation_follows_from_the_hash(orientation: int) -> None:
    grey = texture(1)
    assert oriented_hashes(hashed(grey), orientation) == hashed(np.ascontiguousarray(oriented(grey, orientation)))


def test_orientations_are_the_eight_symmetries_and_have_their_inverse() -> None:
    grey = np.arange(9.0, dtype=np.float32).reshape(3, 3)
    every = [oriented(grey, o) for o in range(ORIENTATIONS)]
    symmetries = [np.rot90(base, turns) for base in (grey, grey.T) for turns in range(4)]
    assert {a.tobytes() for a in every} == {np.ascontiguousarray(a).tobytes() for a in symmetries}
    assert all(np.array_equal(oriented(oriented(grey, o), INVERSE[o]), grey) for o in range(ORIENTATIONS))


@given(st.integers(0, ORIENTATIONS - 1), st.integers(0, ORIENTATIONS - 1))
def test_orientations_compose(first: int, then: int) -> None:
    grey = np.arange(25.0, dtype=np.float32).reshape(5, 5)
    assert np.array_equal(oriented(grey, composed(first, then)), oriented(oriented(grey, first), then))


@given(st.integers(0, 2**64 - 1), st.integers(0, ORIENTATIONS - 1))
def test_hashes_go_there_and_back(value: int, orientation: int) -> None:
    given_ = np.array([value], np.uint64)
    assert oriented_hashes(oriented_hashes(given_, orientation), INVERSE[orientation]) == given_


def test_bits_are_the_signs_of_a_cosine_transform() -> None:
    grey = texture(2)
    signs = fft.dctn(grey.reshape(32, 4, 32, 4).mean(axis=(1, 3)))[:8, :8] > 0
    value = perceptual_hash(grey)
    assert [[bool(value >> (8 * r + c) & 1) for c in range(8)] for r in range(8)] == [
        [bool(signs[r, c]) and (r, c) != (0, 0) for c in range(8)] for r in range(8)
    ]
    assert perceptual_hash(grey * 0.5 + 40) == value
    assert int(hamming(hashed(grey), hashed(-grey))[0]) == 63


def test_a_shift_by_parts_of_a_pixel_is_found() -> None:
    wide = texture(3, 160, 2)
    first = wide[16:144, 16:144]
    for rows, columns in ((0, 0), (3, -2), (2.5, 4.4), (-0.5, 0.3)):
        moved = ndimage.shift(wide, (rows, columns), order=5)[16:144, 16:144]
        found = compare(first, np.ascontiguousarray(moved))
        assert found.correlation > 0.995
        assert found.detail > 0.98


def test_what_is_different_is_told_apart() -> None:
    assert compare(texture(4), texture(5)).correlation < 0.7
    slope = np.linspace(60, 180, 128, dtype=np.float32)[:, None] * np.ones((1, 128), np.float32)
    grains = [slope + 4 * np.random.default_rng(seed).normal(size=(128, 128)).astype(np.float32) for seed in (0, 1)]
    slopes = compare(grains[0], grains[1])
    assert slopes.correlation > 0.95  # two smooth slopes are alike ...
    assert slopes.detail < 0.3  # ... but not in what is fine
    flat = np.full((128, 128), 90, np.float32)
    assert compare(flat, texture(4)).correlation == 0
    assert compare(flat, flat).correlation == 0


def test_thumbnails_are_luma_of_any_shape() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)
    grey = grey_thumbnail(picture)
    assert (grey.shape, grey.dtype) == ((128, 128), np.float32)
    assert grey.mean() == pytest.approx((picture @ np.array([0.299, 0.587, 0.114])).mean(), abs=2)
    large = np.asarray(Image.fromarray(picture).resize((1024, 1024), Image.Resampling.BICUBIC))
    assert np.abs(grey_thumbnail(large) - grey).mean() < 3
    with pytest.raises(ShapeError):
        grey_thumbnail(picture[..., 0])
    with pytest.raises(ShapeError):
        compare(grey, grey[:64])
