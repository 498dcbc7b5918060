from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cgeartheye.errors import ShapeError
from cgeartheye.geometry.registration import measure_shift


def scene(side: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(side, side))
    return (120 + 60 * ndimage.gaussian_filter(noise, 1.5)).astype(np.float32)


def everywhere(picture: np.ndarray) -> np.ndarray:
    return np.ones(picture.shape, bool)


@pytest.mark.parametrize(("rows", "columns"), [(3, 0), (-3, 0), (0, 5), (2, -4)])
@pytest.mark.parametrize("side", [64, 128, 400])
def test_sign_and_size_of_a_planted_shift(rows: int, columns: int, side: int) -> None:
    large = scene(side + 20)
    first = large[10 : 10 + side, 10 : 10 + side]
    second = large[10 - rows : 10 - rows + side, 10 - columns : 10 - columns + side]  # its content lies `rows` further down
    found = measure_shift(first, second, valid=everywhere(first))
    assert found.certain
    assert (found.rows, found.columns) == pytest.approx((rows, columns), abs=0.1)
    assert found.length_px == pytest.approx(np.hypot(rows, columns), abs=0.15)


@settings(max_examples=25, deadline=None)
@given(rows=st.floats(-4, 4), columns=st.floats(-4, 4), seed=st.integers(0, 20))
def test_fractions_of_a_pixel(rows: float, columns: float, seed: int) -> None:
    first = scene(128, seed)
    second = ndimage.fourier_shift(np.fft.fft2(first), (rows, columns))
    found = measure_shift(first, np.fft.ifft2(second).real.astype(np.float32), valid=everywhere(first))
    assert (found.rows, found.columns) == pytest.approx((rows, columns), abs=0.2)


def test_other_seasons_brightness_does_not_matter() -> None:
    first = scene(160)[:128, :128]
    second = 30 + 0.6 * scene(160)[3:131, :128] + ndimage.gaussian_filter(scene(128, 9), 8) * 3
    found = measure_shift(first, second, valid=everywhere(first))
    assert found.certain
    assert found.rows == pytest.approx(-3, abs=0.15)


def test_turned_contrast_is_found() -> None:
    """Snow on roofs, leaves off trees: what was bright is dark, and edges lie where they lay."""
    found = measure_shift(scene(160)[:128, :128], 255 - 0.6 * scene(160)[3:131, :128], valid=np.ones((128, 128), bool))
    assert found.certain
    assert (found.rows, found.columns) == pytest.approx((-3, 0), abs=0.1)


def test_straight_roads_alone_do_not_make_a_place() -> None:
    """Two grids of section roads agree along themselves wherever they are."""
    certain = []
    for seed in range(8):
        first, second = (0.3 * scene(256, 2 * seed + k) for k in (0, 1))
        first[100:104] += 80
        second[120:124] += 80
        certain.append(measure_shift(first, second, valid=everywhere(first)).certain)
    assert sum(certain) <= 1


def test_a_planted_shift_changes_the_answer_by_itself_alone() -> None:
    """Windows are cut anew on the ground that both see, so that the taper does not pull towards no shift."""
    large, other = scene(400, 3), 0.5 * scene(400, 3) + 0.5 * scene(400, 4)
    base = measure_shift(large[40:328, 40:328], other[40:328, 40:328], valid=np.ones((288, 288), bool))
    for shift in (7, -19):
        found = measure_shift(large[40:328, 40:328], other[40 - shift : 328 - shift, 40:328], valid=np.ones((288, 288), bool))
        assert (found.rows - base.rows, found.columns - base.columns) == pytest.approx((shift, 0), abs=0.02)


@pytest.mark.parametrize("side", [64, 128, 256, 400])
def test_different_places_are_not_certain(side: int) -> None:
    certain = [
        measure_shift(scene(side, 2 * i), scene(side, 2 * i + 1), valid=np.ones((side, side), bool)).certain for i in range(12)
    ]
    assert sum(certain) <= 1


def test_a_common_hole_does_not_match_itself() -> None:
    large = scene(140)
    first, second = large[5:133, 5:133].copy(), large[2:130, 5:133].copy()
    valid = everywhere(first)
    valid[50:90, 40:100] = False
    first[~valid] = second[~valid] = 0
    found = measure_shift(first, second, valid=valid)
    assert found.certain
    assert found.rows == pytest.approx(3, abs=0.1)


def test_smooth_or_empty_pictures_are_unknown() -> None:
    flat = np.full((64, 64), 7, np.float32)
    assert not measure_shift(flat, flat, valid=everywhere(flat)).certain
    assert not measure_shift(scene(64), scene(64), valid=np.zeros((64, 64), bool)).certain
    with pytest.raises(ShapeError):
        measure_shift(flat, flat[:32], valid=everywhere(flat))


def test_a_shift_beyond_a_quarter_of_the_window_is_never_certain() -> None:
    large = scene(128)
    found = measure_shift(large[:64, :64], large[24:88, :64], valid=np.ones((64, 64), bool))
    assert not found.certain
