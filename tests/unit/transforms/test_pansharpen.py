"""Pan-sharpening against closed forms and invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.transforms.pansharpen import HALO, Placement, pansharpen


def means(values: np.ndarray, n: int) -> np.ndarray:
    height, width = values.shape[-2:]
    return values.reshape(*values.shape[:-2], height // n, n, width // n, n).mean(axis=(-3, -1))


def sharpened(pan: np.ndarray, bands: np.ndarray, placement: Placement) -> tuple[np.ndarray, np.ndarray]:
    return pansharpen(pan, bands, placement, pan_valid=np.ones(pan.shape, bool), bands_valid=np.ones(bands.shape[1:], bool))


def test_a_flat_pan_band_leaves_the_cubic_interpolation_of_a_plane() -> None:
    columns, rows = np.meshgrid(np.arange(20) + 0.5, np.arange(16) + 0.5)
    bands = np.stack([100 + 3 * columns + 2 * rows, 500 - columns])
    fine, valid = sharpened(np.full((64, 80), 7.0), bands, Placement(0.25, 0, 0.25, 0))
    x, y = np.meshgrid((np.arange(80) + 0.5) / 4, (np.arange(64) + 0.5) / 4)
    inner = np.s_[8:-8, 8:-8]  # cubic convolution is exact on planes away from the edges
    np.testing.assert_allclose(fine[0][inner], (100 + 3 * x + 2 * y)[inner], rtol=1e-5)
    np.testing.assert_allclose(fine[1][inner], (500 - x)[inner], rtol=1e-5)
    assert valid.all()


def test_bands_proportional_to_pan_are_restored_where_the_coarse_ones_are_flat() -> None:
    rng = np.random.default_rng(0)
    texture = rng.uniform(-1, 1, (64, 64))
    texture -= np.kron(means(texture, 4), np.ones((4, 4)))  # what a coarse pixel does not see
    pan = 1000 * (1 + 0.5 * texture)
    truth = np.stack([0.3 * pan, 0.8 * pan])
    fine, _ = sharpened(pan, means(truth, 4), Placement(0.25, 0, 0.25, 0))
    np.testing.assert_allclose(fine, truth, rtol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.2, 1.0), st.floats(-2, 2), st.floats(-2, 2))
def test_the_hue_stays_and_gain_is_linear(seed: int, scale: float, ox: float, oy: float) -> None:
    rng = np.random.default_rng(seed)
    pan, grey = rng.uniform(100, 1000, (40, 44)), rng.uniform(100, 1000, (30, 34))
    placement = Placement(scale, ox, scale, oy)
    fine, valid = sharpened(pan, np.stack([grey, 2 * grey, 0.5 * grey]), placement)
    np.testing.assert_allclose(fine[1], 2 * fine[0], rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(fine[2], 0.5 * fine[0], rtol=1e-4, atol=1e-2)
    assert np.isfinite(fine).all() and (fine[:, ~valid] == 0).all() and (fine >= 0).all()


def test_windows_agree_with_the_whole() -> None:
    rng = np.random.default_rng(1)
    pan, bands = rng.uniform(100, 1000, (160, 200)), rng.uniform(100, 1000, (2, 40, 50))
    whole, _ = sharpened(pan, bands, Placement(0.25, 0, 0.25, 0))
    low = slice(20 - HALO, 30 + HALO)
    high = slice(4 * low.start, 4 * low.stop)
    part, _ = sharpened(pan[high, high], bands[:, low, low], Placement(0.25, 0, 0.25, 0))
    np.testing.assert_allclose(part[:, 4 * HALO : -4 * HALO, 4 * HALO : -4 * HALO], whole[:, 80:120, 80:120], rtol=1e-5)


def test_a_shifted_grid_moves_nothing() -> None:
    """The same ground, coarse pixels laid half a fine pixel aside: a feature stays where the panchromatic band has it."""
    pan = np.full((64, 64), 100.0)
    pan[30:34, 30:34] = 400
    bands = np.full((1, 17, 17), 50.0)
    fine, valid = sharpened(pan, bands, Placement(0.25, 0.125, 0.25, 0.125))
    rows, columns = np.where(fine[0] > 1.5 * np.median(fine[0]))
    assert valid.all() and (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 33, 30, 33)


def test_gaps_stay_gaps_and_draw_no_dark_rim() -> None:
    pan, bands = np.full((64, 64), 300.0), np.full((1, 16, 16), 200.0)
    pan_valid, bands_valid = np.ones((64, 64), bool), np.ones((16, 16), bool)
    pan[:, :10], pan_valid[:, :10] = 0, False
    bands[:, 12:], bands_valid[12:] = 0, False
    fine, valid = pansharpen(pan, bands, Placement(0.25, 0, 0.25, 0), pan_valid=pan_valid, bands_valid=bands_valid)
    assert not valid[:, :10].any() and not valid[48:].any() and valid[:48, 12:].all()
    np.testing.assert_allclose(fine[0][valid], 200, rtol=1e-5)


def test_a_pan_band_of_zeros_gives_no_infinite_values() -> None:
    fine, _ = sharpened(np.zeros((32, 32)), np.full((3, 8, 8), 9.0), Placement(0.25, 0, 0.25, 0))
    assert np.isfinite(fine).all()


@pytest.mark.parametrize("scale", [0.0, -0.25, 1.5])
def test_coarse_pixels_must_be_coarser(scale: float) -> None:
    with pytest.raises(ValueError, match="scales from 0 to 1"):
        sharpened(np.ones((8, 8)), np.ones((1, 8, 8)), Placement(scale, 0, 0.25, 0))
