from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import shannon_entropy

from cgeartheye.errors import ShapeError
from cgeartheye.metrics.quality import measure_quality


def noise(seed: int = 0, side: int = 96) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 200, (side, side, 3), dtype=np.uint8)


def everywhere(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], bool)


def test_shares_and_deviation_in_closed_form() -> None:
    image = np.full((10, 20, 3), 100, np.uint8)
    image[:5] = 160
    image[0, :10, 0] = 255
    valid = everywhere(image)
    valid[9] = False
    found = measure_quality(image, valid)
    assert found.nodata == pytest.approx(0.1)
    assert found.saturated == pytest.approx(10 / (180 * 3))
    grey = image[valid].astype(float) @ [0.299, 0.587, 0.114]
    assert found.std == pytest.approx(grey.std(), rel=1e-5)


def test_entropy_equals_scikit_images() -> None:
    image = noise()
    grey = np.rint(image @ np.array([0.299, 0.587, 0.114], np.float32))
    assert measure_quality(image, everywhere(image)).entropy == pytest.approx(shannon_entropy(grey), abs=1e-9)


def test_reblur_tells_blurred_from_sharp_and_ignores_brightness() -> None:
    sharp = noise()
    blurred = ndimage.gaussian_filter(sharp.astype(np.float32), (2.5, 2.5, 0)).astype(np.uint8)
    ratios = [measure_quality(image, everywhere(image)).reblur for image in (sharp, blurred, sharp // 2)]
    assert ratios[0] < 0.3
    assert ratios[1] > 0.65
    assert ratios[2] == pytest.approx(ratios[0], abs=0.02)


def test_pixels_without_data_do_not_count() -> None:
    image, valid = noise(), np.ones((96, 96), bool)
    whole = measure_quality(image, valid)
    holed = image.copy()
    holed[40:60, 40:60] = 255
    valid[40:60, 40:60] = False
    found = measure_quality(holed, valid)
    assert found.saturated == 0
    assert found.reblur == pytest.approx(whole.reblur, abs=0.01)
    assert found.std == pytest.approx(whole.std, rel=0.02)


def test_extremes() -> None:
    image = noise()
    nothing = measure_quality(image, np.zeros((96, 96), bool))
    assert (nothing.nodata, nothing.std) == (1, 0)
    flat = measure_quality(np.full((8, 8, 3), 7, np.uint8), np.ones((8, 8), bool))
    assert (flat.std, flat.entropy, flat.reblur) == (0, 0, 0)
    with pytest.raises(ShapeError):
        measure_quality(image, np.ones((95, 96), bool))
