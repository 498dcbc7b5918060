from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.errors import ShapeError
from cgeartheye.probes.colour import joint_histogram, mean_std


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), h=st.integers(1, 20), w=st.integers(1, 20))
def test_histogram_equals_numpys_own(seed: int, h: int, w: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)
    expected, _ = np.histogramdd(image.reshape(-1, 3).astype(float), bins=(8, 8, 8), range=[(0, 256)] * 3)
    got = joint_histogram(image)
    assert got.dtype == np.float32
    assert np.allclose(got, np.sqrt(expected.ravel() / (h * w)), atol=1e-6)
    assert np.sum(got.astype(float) ** 2) == pytest.approx(1, abs=1e-5)


def test_histogram_of_one_colour_stands_at_its_bin() -> None:
    image = np.zeros((4, 5, 3), np.uint8) + np.array([255, 0, 32], np.uint8)
    assert np.flatnonzero(joint_histogram(image)).tolist() == [7 * 64 + 1]


def test_mean_and_deviation_in_closed_form() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, :, 0] = 255
    image[..., 1] = 51
    assert mean_std(image).tolist() == pytest.approx([0.5, 0.2, 0, 0.5, 0, 0])


@pytest.mark.parametrize(
    "image", [np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)]
)
def test_other_shapes_are_refused(image: np.ndarray) -> None:
    for function in (joint_histogram, mean_std):
        with pytest.raises(ShapeError):
            function(image)
