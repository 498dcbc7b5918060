from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from cgeartheye.errors import ShapeError
from cgeartheye.geometry.grid import Grid, local_grid


@settings(max_examples=100, deadline=None)
@given(
    lon=st.floats(-179.9, 179.9), lat=st.floats(-85, 85), gsd_m=st.sampled_from([0.3, 0.5, 0.75, 5.0]), size=st.integers(1, 2000)
)
def test_a_place_grid_is_centred_and_snapped(lon: float, lat: float, gsd_m: float, size: int) -> None:
    grid = local_grid(lon, lat, gsd_m=gsd_m, size_px=size)
    x, y = Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True).transform(lon, lat)
    west, south, east, north = grid.bounds
    assert abs((west + east) / 2 - x) <= 0.51 * gsd_m
    assert abs((south + north) / 2 - y) <= 0.51 * gsd_m
    for origin in (grid.x0, grid.y0):
        assert abs(origin / gsd_m - round(origin / gsd_m)) < 1e-6


def test_height_comes_before_width_and_a_system_may_be_given() -> None:
    grid = local_grid(9.0, 50.0, gsd_m=2.0, size_px=(10, 20), crs="EPSG:3035")
    assert (grid.height, grid.width, grid.crs) == (10, 20, "EPSG:3035")


def test_transform_bounds_and_windows_agree() -> None:
    grid = Grid("EPSG:32632", 1000.0, 2000.0, 0.5, 40, 30)
    a, b, c, d, e, f = grid.transform
    assert (a * 40 + b * 30 + c, d * 40 + e * 30 + f) == (grid.bounds[2], grid.bounds[1])
    assert grid.window(0, 0, 30, 40) == grid
    part = grid.window(-2, 4, 5, 6)
    np.testing.assert_allclose(part.bounds, (1002.0, 1998.5, 1005.0, 2001.0))


@pytest.mark.parametrize(("gsd_m", "width", "height"), [(0, 1, 1), (-1, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_empty_grids_are_refused(gsd_m: float, width: int, height: int) -> None:
    with pytest.raises(ShapeError):
        Grid("EPSG:32632", 0, 0, gsd_m, width, height)
