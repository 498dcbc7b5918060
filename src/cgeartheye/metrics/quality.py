"""Measures of a chip's quality. Only the certain ones become limits elsewhere; all are worth storing beside the chip."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cgeartheye.errors import ShapeError

LUMA: Final = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of R, G, B in grey (ITU-R BT.601)."""
REBLUR_SIGMA_PX: Final = 1.5
"""Width of the further blur [ours]: sharp pictures keep 0.2 to 0.5 of their gradient, ones blurred by 2 px over 0.7."""
_REBLUR_RADIUS_PX: Final = 5
WHITE_LEAST: Final = 150
WHITE_COLOUR: Final = 40
WHITE_STEP: Final = 6.0
"""A pixel looks like cloud if its weakest colour is at least the first, its colours differ by at most the second, and the mean
step to its neighbours in a block of :data:`WHITE_BLOCK_PX` is at most the third, in grey levels [ours]."""
WHITE_BLOCK_PX: Final = 4
_DARK_REACH: Final = 2
"""The dark channel (He et al. 2009) takes the least of 5 x 5 blocks of 4 px: about its 15 px, at a fifth of the time."""
_NOISE_BLOCK_PX: Final = 16
_CODED_PX: Final = 8
_STRIP_PX: Final = 64
_NEAR_FREQUENCIES: Final = 31
_LEAST_POWER: Final = 1e-2
_MEDIAN_EXPONENTIAL: Final = float(np.log(2))

Grey = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Quality:
    """Measures of one chip.

    Args:
        nodata: share of pixels without data, [0, 1].
        saturated: share of the valid pixels' R, G, B values that are 255, [0, 1].
        std: standard deviation of grey over valid pixels, [0, 127.5].
        entropy: of the 256-bin grey histogram of valid pixels, bits in [0, 8].
        reblur: share of the absolute gradient that a further blur leaves, [0, 1]; 0 for a picture without gradient.
        sharpness: variance of the Laplacian of grey, squared grey levels; blur and haze lower it.
        dark: mean of the dark channel, the least colour nearby, grey levels in [0, 255]; haze raises it.
        white: share of valid pixels that are bright, colourless and smooth, as cloud, snow and pale roofs are, [0, 1].
        noise: standard deviation of noise in the calmest twentieth of the chip, grey levels.
        blocks: step across the borders of 8-px blocks over that elsewhere; about 1, more after strong JPEG compression.
        stripes: highest power of the mean row or column over what its neighbours let expect by chance, 1 and more.
    """

    nodata: float
    saturated: float
    std: float
    entropy: float
    reblur: float
    sharpness: float
    dark: float
    white: float
    noise: float
    blocks: float
    stripes: float


def measure_quality(image: NDArray[np.uint8], valid: Mask) -> Quality:
    """Measure one chip.

    Args:
        image: (H, W, 3) uint8, RGB.
        valid: (H, W) bool, False where there is no data.

    Raises: ShapeError: if the two do not fit or have no pixel.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != valid.shape or valid.size == 0:
        message = f"expected an image (H, W, 3) and a mask (H, W), got {image.shape} and {valid.shape}"
        raise ShapeError(message)
    if not valid.any():
        return Quality(1.0, *[0.0] * 10)
    whole = bool(valid.all())
    grey = image @ LUMA
    known = grey if whole else grey[valid]
    filled = grey if whole else np.where(valid, grey, known.mean(dtype=np.float64)).astype(np.float32)
    counts = np.bincount(np.rint(known).astype(np.uint8).ravel(), minlength=256)
    steps = _steps(filled, valid)
    least, most = _extremes(image)
    return Quality(
        nodata=float(1 - valid.mean()),
        saturated=float(np.count_nonzero((image if whole else image[valid]) == 255) / (3 * known.size)),
        std=float(known.std()),
        entropy=_entropy(counts),
        reblur=min(1.0, steps.blurred / steps.sharp) if steps.sharp > 0 else 0.0,
        sharpness=_sharpness(filled, valid),
        dark=_dark(least, valid),
        white=float(white_blocks(least, most, grey, valid).mean()),
        noise=_noise(filled, valid),
        blocks=max(_blocks(steps.down), _blocks(steps.across)),
        stripes=max(_stripes(filled.mean(1)), _stripes(filled.mean(0))),
    )


def white_share(image: NDArray[np.uint8], valid: Mask) -> NDArray[np.float32]:
    """Return (H // 4, W // 4) float32 in [0, 1]: share of each block of 4 px that looks like cloud.

    Args:
        image: (H, W, 3) uint8, RGB.
        valid: (H, W) bool, False where there is no data.
    """
    return white_blocks(*_extremes(image), image @ LUMA, valid)


def appeared_white(
    whites: NDArray[np.float32], greys: NDArray[np.float32], known: Mask, least_rise: float
) -> NDArray[np.float64]:
    """Return (T,) share of each date that looks like cloud and is brighter than the same ground at another date.

    A pale roof or a beach is white at every date; cloud, and snow, is not.

    Args:
        whites: (T, h, w) float32, :func:`white_share` of the T dates of a place.
        greys: (T, h, w) float32, mean grey of the same blocks.
        known: (T, h, w) bool, blocks with data.
        least_rise: grey levels by which a block must be above the darkest of the other dates.

    Returns: shares in [0, 1] of the blocks with data at this and another date; NaN for a date without such blocks.
    """
    shares = np.full(len(whites), np.nan)
    levels = np.where(known, greys, np.inf)
    for date in range(len(whites)):
        others = np.delete(levels, date, axis=0)
        darkest = others.min(0) if len(others) else np.full(levels.shape[1:], np.inf)
        both = known[date] & np.isfinite(darkest)
        if both.any():
            shares[date] = np.mean(whites[date][both] * (greys[date][both] - darkest[both] >= least_rise))
    return shares


def block_means(picture: NDArray[Any], side: int = WHITE_BLOCK_PX) -> NDArray[np.float32]:
    """Return (H // side, W // side) float32: means of blocks of a (H, W) picture, the remainder left out."""
    rows, columns = (max(1, length // side) for length in picture.shape)
    down, across = (min(side, length) for length in picture.shape)
    cut = picture[: rows * down, : columns * across].astype(np.float32, copy=False)
    ones = np.full(across, 1 / across, np.float32)
    summed = cut.reshape(rows * down, columns, across) @ ones
    return np.asarray(summed.reshape(rows, down, columns).mean(1), np.float32)


def white_blocks(least: NDArray[np.uint8], most: NDArray[np.uint8], grey: Grey, valid: Mask) -> NDArray[np.float32]:
    """Return (h, w): see :func:`white_share`; ``least`` and ``most`` (H, W) are the extremes of the three colours."""
    pale = (least >= WHITE_LEAST) & (most - least <= WHITE_COLOUR) & valid
    if not pale.any():
        return np.zeros(tuple(max(1, n // WHITE_BLOCK_PX) for n in pale.shape), np.float32)
    steps = np.zeros_like(grey)
    steps[:-1] = np.abs(np.diff(grey, axis=0))
    steps[:, :-1] += np.abs(np.diff(grey, axis=1))
    return np.where(block_means(steps) <= 2 * WHITE_STEP, block_means(pale), np.float32(0))


def _extremes(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    return np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)


def _entropy(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


@dataclass(frozen=True, slots=True)
class _Steps:
    """Absolute steps between neighbours: their sums before and after a blur, means (H - 1,) of rows and (W - 1,) of columns."""

    sharp: float
    blurred: float
    down: Grey
    across: Grey


def _steps(grey: Grey, valid: Mask) -> _Steps:
    """Compare steps before and after a blur (Crete et al. 2007), where neither touches a pixel without data.

    In strips of rows: temporaries of a whole chip are given back to the system and faulted in again each time, which costs as
    much as the arithmetic.
    """
    reach, height = _REBLUR_RADIUS_PX, grey.shape[0]
    wide = np.pad(grey, reach, mode="symmetric")
    inside = None if valid.all() else ndimage.binary_erosion(valid, iterations=reach + 1, border_value=1)
    sharp, blurred, across, down = 0.0, 0.0, np.zeros(grey.shape[1] - 1, np.float64), []
    for top in range(0, height, _STRIP_PX):
        rows = min(_STRIP_PX, height - top)
        more = min(rows + 1, height - top)  # one row of the next strip, for the steps down to it
        known = None if inside is None else inside[top : top + more]
        soft = _blurred(_blurred(wide[top : top + more + 2 * reach], 0), 1)
        before, after = _strip_steps(grey[top : top + more], rows), _strip_steps(soft, rows)
        down.append(before[0].mean(1))
        across += before[1].sum(0)
        sharp += _sum(before, known, rows)
        blurred += _sum(after, known, rows)
    return _Steps(sharp, blurred, np.concatenate(down), np.asarray(across / height, np.float32))


def _strip_steps(strip: Grey, rows: int) -> tuple[Grey, Grey]:
    return np.abs(strip[1:] - strip[:-1]), np.abs(strip[:rows, 1:] - strip[:rows, :-1])


def _sum(steps: tuple[Grey, Grey], known: Mask | None, rows: int) -> float:
    down, across = steps
    if known is not None:
        down, across = down[known[1:] & known[:-1]], across[known[:rows, 1:] & known[:rows, :-1]]
    return float(down.sum()) + float(across.sum())


def _blurred(wide: Grey, axis: int) -> Grey:
    """Return a Gaussian blur along one axis, shorter there by twice its reach; sums of slices take half of scipy's time."""
    reach, length = _REBLUR_RADIUS_PX, wide.shape[axis] - 2 * _REBLUR_RADIUS_PX
    weights = np.exp(-0.5 * (np.arange(reach + 1) / REBLUR_SIGMA_PX) ** 2).astype(np.float32)
    weights /= weights[0] + 2 * weights[1:].sum()

    def part(offset: int) -> Grey:
        cut = slice(reach + offset, reach + offset + length)
        return wide[cut] if axis == 0 else wide[:, cut]

    total: Grey = weights[0] * part(0)
    pair = np.empty_like(total)
    for step in range(1, reach + 1):
        np.add(part(step), part(-step), out=pair)
        pair *= weights[step]
        total += pair
    return total


def _sharpness(grey: Grey, valid: Mask) -> float:
    if min(grey.shape) < 3:
        return 0.0
    edges = 4 * grey[1:-1, 1:-1]
    for neighbour in (grey[:-2, 1:-1], grey[2:, 1:-1], grey[1:-1, :-2], grey[1:-1, 2:]):
        edges -= neighbour
    if not valid.all():
        edges = edges[ndimage.binary_erosion(valid)[1:-1, 1:-1]]
    return float(edges.var()) if edges.size else 0.0


def _dark(least: NDArray[np.uint8], valid: Mask) -> float:
    filled = least if valid.all() else np.where(valid, least, 255).astype(np.uint8)
    known = block_means(valid) > 0
    rows, columns = known.shape
    down, across = (min(WHITE_BLOCK_PX, n) for n in filled.shape)
    blocks = filled[: rows * down, : columns * across].reshape(rows, down, columns, across)
    lines = functools.reduce(np.minimum, (blocks[:, row] for row in range(down)))
    small = functools.reduce(np.minimum, (lines[..., column] for column in range(across)))
    return float(ndimage.minimum_filter(small, 2 * _DARK_REACH + 1)[known].mean()) if known.any() else 0.0


def _noise(grey: Grey, valid: Mask) -> float:
    """Return the deviation of the diagonal detail of 2 x 2 px (Haar) in blocks of 16 px, at the 5th percentile of blocks."""
    rows, columns = (length // _NOISE_BLOCK_PX * _NOISE_BLOCK_PX for length in grey.shape)
    if not rows or not columns:
        return 0.0
    cut = grey[:rows, :columns]
    lines = cut[::2] - cut[1::2]
    detail = lines[:, ::2] - lines[:, 1::2]
    power = block_means(detail * detail, _NOISE_BLOCK_PX // 2) / 4
    if not valid.all():
        power = power[block_means(valid[:rows, :columns], _NOISE_BLOCK_PX) == 1]
    return float(np.sqrt(np.quantile(power, 0.05))) if power.size else 0.0


def _blocks(steps: Grey) -> float:
    """Return the greatest mean step of the eight positions modulo 8 over the median of them; ``steps`` (n,)."""
    if len(steps) < 2 * _CODED_PX:
        return 1.0
    phases = steps[: len(steps) // _CODED_PX * _CODED_PX].reshape(-1, _CODED_PX).mean(0)
    middle = float(np.median(phases))
    return float(phases.max() / middle) if middle > 0 else 1.0


def _stripes(profile: Grey) -> float:
    """Return the greatest power of a mean line's spectrum over the median of its neighbours, by the law of chance.

    Args:
        profile: (n,) means of rows or columns; the lowest quarter of the frequencies is the picture's own.
    """
    if len(profile) < 16:
        return 1.0
    power = np.abs(np.fft.rfft(np.diff(profile) * np.hanning(len(profile) - 1))) ** 2
    fine = power[len(power) // 4 :]
    middle = ndimage.median_filter(fine, _NEAR_FREQUENCIES) / _MEDIAN_EXPONENTIAL + _LEAST_POWER
    return float(max(1.0, (fine / middle).max() / np.log(len(fine))))
