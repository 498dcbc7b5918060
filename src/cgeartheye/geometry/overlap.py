"""Which squares on the ground lie on one another, among millions, by sorting."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import ShapeError

_METRES_A_DEGREE: Final = 111_195.0
"""Of a great circle on a sphere of 6,371 km."""

Floats = NDArray[np.float64]


def overlapping_squares(lon: Floats, lat: Floats, side_m: Floats, share: float) -> NDArray[np.int64]:
    """Return the pairs of north-up squares that share at least ``share`` of the smaller one's ground.

    Distances are those of a plane at the pair's latitude, right to 1 % for squares of some kilometres; longitudes go round.

    Args:
        lon: (n,) degrees, centres.
        lat: (n,) degrees.
        side_m: (n,) metres.
        share: in (0, 1].

    Returns: (m, 2) int64, i < j, sorted.
    Raises: ShapeError: if the arrays do not fit.
    """
    if not lon.shape == lat.shape == side_m.shape or lon.ndim != 1:
        raise ShapeError(f"expected three arrays (n,), got {lon.shape}, {lat.shape}, {side_m.shape}")
    if not len(lon):
        return np.empty((0, 2), np.int64)
    strip = float(side_m.max()) / _METRES_A_DEGREE
    seam = np.flatnonzero(lon > 180 - 2 * strip / _narrow(lat))  # these lie on the other side of the antimeridian as well
    rows, around = np.concatenate([np.arange(len(lon)), seam]), np.concatenate([lon, lon[seam] - 360])
    # every square lies in two strips as high as the largest, so that two that meet have one strip in common
    base = np.floor((lat[rows] + 90) / strip).astype(np.int64)
    rows, around, level = np.tile(rows, 2), np.tile(around, 2), np.concatenate([base, base + 1])
    east = around * _narrow(strip * level - 90) * _METRES_A_DEGREE
    order = np.lexsort((rows, east, level))
    rows, level, east = rows[order], level[order], east[order]
    reach, found, step = 1.05 * float(side_m.max()), [], 1
    while step < len(rows):
        near = (level[step:] == level[:-step]) & (east[step:] - east[:-step] < reach)
        if not near.any():
            break
        at = np.flatnonzero(near)
        found.append(np.sort(np.stack([rows[at], rows[at + step]], axis=1), axis=1))
        step += 1
    pairs = np.unique(np.concatenate([np.empty((0, 2), np.int64), *found]), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return np.asarray(pairs[_shared(lon, lat, side_m, pairs) >= share], np.int64)


def _narrow(lat: Floats) -> Floats:
    return np.maximum(np.cos(np.radians(np.clip(lat, -90, 90))), 1e-3)


def _shared(lon: Floats, lat: Floats, side_m: Floats, pairs: NDArray[np.int64]) -> Floats:
    """Return the shared part of the smaller square's ground, (m,)."""
    i, j = pairs.T
    across = np.abs((lon[i] - lon[j] + 180) % 360 - 180) * _narrow((lat[i] + lat[j]) / 2) * _METRES_A_DEGREE
    up = np.abs(lat[i] - lat[j]) * _METRES_A_DEGREE
    least, half = np.minimum(side_m[i], side_m[j]), (side_m[i] + side_m[j]) / 2
    shared = np.clip(np.minimum(half - across, least), 0, None) * np.clip(np.minimum(half - up, least), 0, None)
    return np.asarray(shared / least**2, np.float64)
