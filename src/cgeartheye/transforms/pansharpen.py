"""Pan-sharpening by the ratio of the panchromatic band to itself at the coarse resolution.

Smoothing-filter-based intensity modulation (Liu 2000, doi:10.1080/014311600750037499; high-pass modulation in the review of
Vivone et al. 2015, doi:10.1109/TGRS.2014.2361734): fine = coarse * P / low(P), each band times the local contrast of P. It
asks for no statistics of the whole scene, so that windows of it agree, and keeps the bands' ratios, hence the hue. H, W rows and
columns of the panchromatic band, h, w of the coarse bands.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

HALO: Final = 4
"""Coarse pixels around a window that decide its values: two of the kernel, two of the filling of gaps."""
MAX_RATIO: Final = 8.0
"""Larger ratios are noise over no light [ours]."""


class Placement(NamedTuple):
    """Where panchromatic pixels lie: coarse x = sx * column + ox, y = sy * row + oy, all counted from corners."""

    sx: float
    ox: float
    sy: float
    oy: float


def pansharpen(
    pan: NDArray[Any], bands: NDArray[Any], placement: Placement, *, pan_valid: NDArray[np.bool_], bands_valid: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the bands at the panchromatic resolution.

    Args:
        pan: (H, W) panchromatic values.
        bands: (B, h, w) coarse values.
        placement: of the one among the other; scales from 0 to 1.
        pan_valid: (H, W) where ``pan`` holds data.
        bands_valid: (h, w) where ``bands`` hold data.

    Returns: (B, H, W) float32 values of the same range as ``bands``, 0 where invalid, and (H, W) bool: where both hold data.

    Raises:
        ValueError: if the coarse pixels are finer than the panchromatic ones, or stored the other way round.
    """
    if not (0 < placement.sx <= 1 and 0 < placement.sy <= 1):
        raise ValueError(f"scales from 0 to 1 are needed, not {placement.sx} and {placement.sy}")
    (height, width), (n, low_height, low_width) = pan.shape, bands.shape
    means = (_means(low_height, height, placement.sy, placement.oy), _means(low_width, width, placement.sx, placement.ox))
    share = _both(means, pan_valid.astype(np.float32))
    low = (_both(means, np.where(pan_valid, pan, 0).astype(np.float32)) / np.maximum(share, 1e-6)).astype(np.float32)
    known = bands_valid & (share > 1e-3)
    up = (_cubic(height, low_height, placement.sy, placement.oy), _cubic(width, low_width, placement.sx, placement.ox))
    smooth = _both(up, _filled(low, known))
    ratio = np.clip(pan / np.maximum(smooth, 1e-3), 0, MAX_RATIO).astype(np.float32)
    ratio[smooth <= 0] = 1
    valid = pan_valid & _nearest(known, (height, width), placement)
    fine = np.empty((n, height, width), np.float32)
    for band in range(n):
        fine[band] = np.where(valid, np.maximum(_both(up, _filled(bands[band].astype(np.float32), known)), 0) * ratio, 0)
    return fine, valid


def _both(operators: tuple[csr_array, csr_array], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Apply one operator to columns and one to rows, (h, w) -> (H, W)."""
    rows, columns = operators
    done: NDArray[np.float32] = np.ascontiguousarray((columns @ (rows @ values).T).T)
    return done


def _means(n_low: int, n: int, scale: float, offset: float) -> csr_array:
    """Return (n_low, n) weights of the fine pixels in each coarse one, by the length they share; rows sum to 1 where covered."""
    edges = (np.arange(n + 1) * scale + offset).clip(0, n_low)  # in coarse pixels
    first = np.minimum(np.floor(edges[:-1]).astype(int), n_low - 1)
    last = np.minimum(np.maximum(np.ceil(edges[1:]).astype(int) - 1, first), n_low - 1)
    border = np.where(last > first, last, edges[1:])
    fine = np.arange(n)
    weights = np.concatenate([border - edges[:-1], np.where(last > first, edges[1:] - border, 0)])
    return csr_array((weights.astype(np.float32), (np.concatenate([first, last]), np.tile(fine, 2))), shape=(n_low, n))


def _cubic(n: int, n_low: int, scale: float, offset: float) -> csr_array:
    """Return (n, n_low) weights of Keys' cubic convolution (a = -1/2, 1981) at the centres of the fine pixels, edges repeated."""
    at = (np.arange(n) + 0.5) * scale + offset - 0.5
    base = np.floor(at).astype(int)
    taps = np.arange(-1, 3)
    distance = np.abs(at[:, None] - (base[:, None] + taps))
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance <= 1, near, np.where(distance < 2, far, 0)).astype(np.float32)
    columns = np.clip(base[:, None] + taps, 0, n_low - 1)
    return csr_array((weights.ravel(), (np.repeat(np.arange(n), 4), columns.ravel())), shape=(n, n_low))


def _nearest(known: NDArray[np.bool_], shape: tuple[int, int], placement: Placement) -> NDArray[np.bool_]:
    """Return (H, W): whether the coarse pixel that holds a fine one's centre is known."""
    rows = np.floor((np.arange(shape[0]) + 0.5) * placement.sy + placement.oy).astype(int)
    columns = np.floor((np.arange(shape[1]) + 0.5) * placement.sx + placement.ox).astype(int)
    inside = ((rows >= 0) & (rows < known.shape[0]))[:, None] & ((columns >= 0) & (columns < known.shape[1]))
    held: NDArray[np.bool_] = known[np.ix_(rows.clip(0, known.shape[0] - 1), columns.clip(0, known.shape[1] - 1))] & inside
    return held


def _filled(values: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fill unknown pixels from known neighbours, two rings far, so that the kernel draws no dark rim along gaps."""
    if known.all():
        return values
    values, weight = np.where(known, values, 0).astype(np.float32), known.astype(np.float32)
    for _ in range(2):
        total, count = _three_by_three(values), _three_by_three(weight)
        empty = (weight == 0) & (count > 0)
        values[empty] = total[empty] / count[empty]
        weight[empty] = 1
    return values


def _three_by_three(values: NDArray[np.float32]) -> NDArray[np.float32]:
    padded = np.pad(values, 1)
    height, width = values.shape
    summed: NDArray[np.float32] = sum(padded[r : r + height, c : c + width] for r in range(3) for c in range(3))  # type: ignore[assignment]
    return summed
