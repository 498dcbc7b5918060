from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy.ndimage import gaussian_filter
from shapely.geometry import Polygon, shape

from cgeartheye.vectors.polygonize import Region, polygonize


def whole(classes: NDArray[np.uint8]) -> list[tuple[int, Polygon]]:
    found = shapes(classes, mask=classes != 255, connectivity=4)
    return sorted(((int(value), shape(geometry)) for geometry, value in found), key=lambda pair: pair[0])


def by_blocks(classes: NDArray[np.uint8], block_px: int) -> tuple[list[tuple[int, Polygon]], list[Region]]:
    regions = list(polygonize(lambda w: classes[w.slices], *classes.shape, block_px=block_px))
    return sorted(((r.value, r.polygon) for r in regions), key=lambda pair: pair[0]), regions


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 17), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_blocks_equal_the_whole_raster(seed: int, height: int, width: int, block_px: int, classes: int) -> None:
    raster = np.random.default_rng(seed).integers(0, classes + 1, (height, width)).astype(np.uint8)
    raster[raster == classes] = 255
    expected = whole(raster)
    got, regions = by_blocks(raster, block_px)
    assert [v for v, _ in got] == [v for v, _ in expected]
    pairs = {r.first: r for r in regions}
    assert len(pairs) == len(regions)  # the first pixel names a region
    for value, polygon in expected:
        first = min((y, x) for x, y in polygon.exterior.coords)
        assert pairs[first].value == value
        assert pairs[first].polygon.equals(polygon)
        assert pairs[first].pixels == polygon.area
    assert shapely.is_valid([r.polygon for r in regions]).all()


def smooth_classes(side: int) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=(4, side, side))
    return gaussian_filter(noise, (0, 5, 5)).argmax(0).astype(np.uint8)


def test_outlines_do_not_depend_on_the_block_size() -> None:
    raster = smooth_classes(200)
    key = lambda regions: sorted((r.first, r.value, r.polygon.wkb) for r in regions)  # noqa: E731 - used twice here
    reference = key(by_blocks(raster, 500)[1])
    for block_px in (16, 61, 128):
        assert key(by_blocks(raster, block_px)[1]) == reference


def test_regions_are_handed_on_while_reading() -> None:
    raster = np.zeros((64, 16), np.uint8)
    raster[20:22] = 1
    read = []
    stream = polygonize(lambda w: (read.append(w.row), raster[w.slices])[1], 64, 16, block_px=16)
    first = next(stream)
    assert first.value == 0
    assert first.pixels == 20 * 16
    assert max(read) < 48  # the last rows were not needed for the first region


def test_no_data_gives_no_region() -> None:
    assert list(polygonize(lambda w: np.full(w.shape, 255, np.uint8), 30, 30, block_px=8)) == []


@pytest.mark.parametrize("block_px", [4, 7])
def test_a_ring_around_a_hole_that_touches_at_a_corner(block_px: int) -> None:
    raster = np.zeros((12, 12), np.uint8)
    raster[2:6, 2:6] = 1
    raster[6:10, 6:10] = 1  # touches the other square at a corner: two regions, and the background touches itself
    got, _ = by_blocks(raster, block_px)
    assert [value for value, _ in got] == [0, 1, 1]
    assert all(polygon.is_valid for _, polygon in got)
