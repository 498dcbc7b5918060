"""An order of points on the Earth that keeps neighbours together (Z-order; Morton 1966)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BITS = 31


def along_curve(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return each point's position on a Z-order curve over longitude and latitude.

    It depends on the point alone, so that points which are added never change the order of the others.

    Args:
        lon: (n,) degrees in [-180, 180].
        lat: (n,) degrees in [-90, 90].

    Returns: (n,) uint64; one step is about 2e-7 degrees.
    """
    column = _spread(_fixed(lon, -180.0, 360.0))
    row = _spread(_fixed(lat, -90.0, 180.0))
    return np.asarray(column | (row << np.uint64(1)), np.uint64)


def _fixed(value: NDArray[np.float64], low: float, width: float) -> NDArray[np.uint64]:
    steps = np.floor((np.asarray(value, np.float64) - low) / width * 2.0**_BITS)
    return np.clip(steps, 0, 2**_BITS - 1).astype(np.uint64)


def _spread(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Put a zero before each of the lower 32 bits."""
    for shift, mask in (
        (16, 0x0000FFFF0000FFFF),
        (8, 0x00FF00FF00FF00FF),
        (4, 0x0F0F0F0F0F0F0F0F),
        (2, 0x3333333333333333),
        (1, 0x5555555555555555),
    ):
        bits = (bits | (bits << np.uint64(shift))) & np.uint64(mask)
    return bits
