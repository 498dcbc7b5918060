from __future__ import annotations

import io
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import shannon_entropy

from cgeartheye.errors import ShapeError
from cgeartheye.metrics.quality import LUMA, Quality, appeared_white, block_means, measure_quality, white_share


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


def textured(seed: int = 0, side: int = 128) -> np.ndarray:
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(side, side, 3)), (1.2, 1.2, 0))
    return np.asarray(np.clip(90 + 120 * smooth, 0, 255), np.uint8)


def measure(image: np.ndarray) -> Quality:
    return measure_quality(image, everywhere(image))


def test_sharpness_equals_scipys_laplacian_inside() -> None:
    image = textured()
    grey = image.astype(float) @ [0.299, 0.587, 0.114]
    assert measure(image).sharpness == pytest.approx(ndimage.laplace(grey)[1:-1, 1:-1].var(), rel=1e-4)


def test_reblur_equals_scipys_gaussian_in_strips_of_any_height() -> None:
    for height in (63, 64, 65, 130):
        grey = noise(side=140)[:height].astype(np.float32) @ LUMA
        soft = ndimage.gaussian_filter(grey, 1.5, radius=5)
        sums = [np.abs(np.diff(g, axis=0)).sum() + np.abs(np.diff(g, axis=1)).sum() for g in (grey, soft)]
        assert measure(noise(side=140)[:height]).reblur == pytest.approx(sums[1] / sums[0], rel=1e-4)


def test_the_deviation_of_noise_is_measured_where_it_is_calm() -> None:
    flat = np.full((256, 256, 3), 120, np.float32)
    flat[:, 128:] = textured(side=256)[:, 128:]
    for sigma in (2.0, 6.0):
        grain = np.random.default_rng(1).normal(0, sigma, (256, 256, 1))  # the same in all colours
        found = measure(np.clip(np.rint(flat + grain), 0, 255).astype(np.uint8)).noise
        assert 0.7 * sigma < found < 1.1 * sigma


@pytest.mark.parametrize("cut", [0, 3])
def test_blocks_tell_strong_compression_wherever_the_chip_was_cut(cut: int) -> None:
    buffer = io.BytesIO()
    Image.fromarray(textured(side=160)).save(buffer, "JPEG", quality=8)
    coded = np.asarray(Image.open(buffer))[cut:, cut:]
    assert measure(coded).blocks > 1.5 * measure(textured(side=160)).blocks


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_stand_out_of_the_spectrum(axis: int) -> None:
    image = textured(side=256).astype(np.float32)
    lines = 3 * np.sign(np.sin(np.arange(256) * 2 * np.pi / 5.3))
    striped = image + (lines[:, None, None] if axis == 0 else lines[None, :, None])
    assert measure(textured(side=256)).stripes < 4
    assert measure(np.clip(striped, 0, 255).astype(np.uint8)).stripes > 20


def test_haze_raises_the_dark_channel() -> None:
    image = textured()
    assert measure((0.6 * image + 88).astype(np.uint8)).dark > measure(image).dark + 60
    black = np.full((64, 64, 3), 200, np.uint8)
    black[::12, ::12, 2] = 0  # something dark is near everywhere
    assert measure(black).dark == 0


def test_white_is_bright_colourless_and_smooth() -> None:
    image = textured()
    image[:64] = 220
    assert measure(image).white == pytest.approx(
        0.5 - 4 / 128, abs=1e-6
    )  # without the row of blocks at the border, which is not smooth
    yellow, rough = image.copy(), image.copy()
    yellow[:64, :, 2] = 150
    rough[:64:2] = 170
    assert measure(yellow).white == measure(rough).white == 0


def test_cloud_is_white_that_other_dates_do_not_have() -> None:
    roof = textured()
    roof[:32, :32] = 210  # white at every date
    cloudy = roof.copy()
    cloudy[64:] = 230
    dates, known = [roof, cloudy, roof], np.ones((3, 32, 32), bool)
    whites = np.stack([white_share(image, everywhere(image)) for image in dates])
    greys = np.stack([block_means(image @ LUMA) for image in dates])
    assert appeared_white(whites, greys, known, 40) == pytest.approx([0, 0.5, 0])
    known[1, 24:] = False  # half of the cloud lies where this date has no data
    assert appeared_white(whites, greys, known, 40) == pytest.approx([0, 1 / 3, 0])
    assert np.isnan(appeared_white(whites[:1], greys[:1], known[:1], 40)).all()


def test_block_means_in_closed_form() -> None:
    picture = np.arange(10 * 9, dtype=np.float32).reshape(10, 9)
    assert block_means(picture) == pytest.approx(picture[:8, :8].reshape(2, 4, 2, 4).mean((1, 3)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5), (16, 16)])
def test_small_chips_and_chips_full_of_holes_give_numbers(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    holes = np.random.default_rng(1).random(shape) > 0.5
    for valid in (np.ones(shape, bool), holes):
        assert all(np.isfinite(list(asdict(measure_quality(image, valid)).values())))
