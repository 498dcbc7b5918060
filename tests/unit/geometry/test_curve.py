from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.geometry.curve import along_curve

_LON, _LAT = st.floats(-180, 180), st.floats(-90, 90)


def _interleaved(lon: float, lat: float) -> int:
    """The definition, bit by bit."""
    column = min(int((lon + 180) / 360 * 2**31), 2**31 - 1)
    row = min(int((lat + 90) / 180 * 2**31), 2**31 - 1)
    return sum((((column >> bit) & 1) << (2 * bit)) | (((row >> bit) & 1) << (2 * bit + 1)) for bit in range(31))


@given(_LON, _LAT)
def test_positions_are_interleaved_bits(lon: float, lat: float) -> None:
    assert int(along_curve(np.array([lon]), np.array([lat]))[0]) == _interleaved(lon, lat)


def test_runs_along_the_curve_lie_close_together() -> None:
    lon, lat = (axis.ravel() for axis in np.meshgrid(np.linspace(10.0, 10.99, 64), np.linspace(50.0, 50.99, 64)))
    order = np.argsort(along_curve(lon, lat), kind="stable")

    def extent(positions: np.ndarray) -> float:
        runs = positions.reshape(-1, 256)
        return float(np.median([np.ptp(lon[run]) + np.ptp(lat[run]) for run in runs]))

    assert extent(order) < 0.75 * extent(np.arange(lon.size))  # against rows of cells
