"""Several rasters of one date on one grid, against one raster of all their pixels."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from scipy import ndimage

from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.mosaic import Mosaic, read_mosaic
from cgeartheye.rasters.reader import open_raster, read_on_grid

UTM = "EPSG:32632"
X0, Y0 = 500_000.0, 5_500_000.0


def picture(side: int = 120) -> NDArray[np.uint8]:
    noise = np.random.default_rng(2).normal(size=(3, side, side))
    return np.clip(128 + 90 * ndimage.gaussian_filter(noise, (0, 1.5, 1.5)) * 3, 1, 255).astype(np.uint8)


def write(path: Path, array: NDArray[Any], left: float, top: float, **profile: Any) -> Path:
    """Write a part of the ground whose first pixel is ``left`` columns and ``top`` rows from the origin."""
    count, height, width = array.shape
    options = {"width": width, "height": height, "count": count, "dtype": array.dtype, "photometric": "RGB", **profile}
    with rasterio.open(path, "w", driver="GTiff", crs=UTM, transform=Affine(1, 0, X0 + left, 0, -1, Y0 - top), **options) as file:
        file.write(array)
    return path


def read(paths: list[Path], grid: Grid) -> Mosaic:
    with ExitStack() as closing:
        return read_mosaic([closing.enter_context(open_raster(path)) for path in paths], grid)


OFFSETS = {"on the pixels": 0.0, "between them": 0.37}


@pytest.mark.parametrize("offset", OFFSETS.values(), ids=list(OFFSETS))
def test_tiles_are_as_the_whole(tmp_path: Path, offset: float) -> None:
    image = picture()
    whole = write(tmp_path / "whole.tif", image, 0, 0)
    spots = [(i, j) for i in (0, 50) for j in (0, 70)]
    tiles = [write(tmp_path / f"{i}_{j}.tif", image[:, i : 120 if i else 50, j : 120 if j else 70], j, i) for i, j in spots]
    grid = Grid(UTM, X0 + 30 + offset, Y0 - 20 - offset, 1.0, 64, 60)
    mosaic = read(tiles, grid)
    with open_raster(whole) as raster:
        colours, valid = read_on_grid(raster, grid)
    assert valid.all() and mosaic.valid.all()
    np.testing.assert_array_equal(mosaic.colours, colours)
    assert set(mosaic.used[:2]) == {0, 2}  # the two to the left hold most of it
    assert read(tiles[::-1], grid).colours.tobytes() == mosaic.colours.tobytes()


def test_tiles_on_two_lattices_leave_no_seam(tmp_path: Path) -> None:
    """Where neither kernel reaches, the edges are repeated; what lies outside both stays empty."""
    column, row = np.meshgrid(np.arange(120) + 0.5, np.arange(120) + 0.5)

    def ground(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.uint8]:
        return np.rint(np.stack([128 + 50 * np.sin(x / 6 + k) + 50 * np.cos(y / 7) for k in range(3)])).astype(np.uint8)

    west = write(tmp_path / "w.tif", ground(column[:, :60], row[:, :60]), 0, 0)
    east = write(tmp_path / "e.tif", ground(column[:, 60:] + 0.0, row[:, 60:] + 0.4), 60, 0.4)
    grid = Grid(UTM, X0 + 20.25, Y0 - 20.25, 1.0, 80, 64)
    mosaic = read([west, east], grid)
    u, v = np.meshgrid(np.arange(80) + 20.75, np.arange(64) + 20.75)
    assert mosaic.valid.all()
    off = np.abs(mosaic.colours.transpose(2, 0, 1).astype(int) - ground(u, v))
    assert off.max() <= 8 and off[..., :36].max() <= 2 and off[..., 44:].max() <= 2
    over = read([west, east], Grid(UTM, X0 + 20.25, Y0 + 10.25, 1.0, 80, 64))
    assert not over.valid[:12].any() and over.valid[14:].all()


def test_holes_are_filled_from_the_others_and_named(tmp_path: Path) -> None:
    image = picture()
    holed = image.copy()
    holed[:, 20:50, 30:50] = 0
    first = write(tmp_path / "first.tif", holed, 0, 0, nodata=0)
    second = write(tmp_path / "second.tif", np.maximum(image, 2) - np.uint8(1), 0, 0, nodata=0)
    grid = Grid(UTM, X0 + 10, Y0 - 10, 1.0, 80, 80)
    mosaic = read([first, second], grid)
    assert mosaic.valid.all() and mosaic.used == (1,)  # the whole one alone
    third = write(tmp_path / "third.tif", np.maximum(image, 2)[:, :, :60] - np.uint8(1), 0, 0, nodata=0)
    mixed = read([third, first], grid)
    assert mixed.used == (1, 0)
    inner = mixed.colours[10:40, 20:40].transpose(2, 0, 1)
    np.testing.assert_array_equal(inner, np.maximum(image, 2)[:, 20:50, 30:50] - 1)
    alone = read([first], grid)
    assert alone.valid.sum() == 80 * 80 - 600 and alone.used == (0,)


def test_what_touches_nothing_gives_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture(20), 0, 0)
    far = Grid(UTM, X0 + 5000, Y0, 1.0, 8, 8)
    for paths in ([path], [path, path], []):
        mosaic = read(paths, far)
        assert mosaic.used == () and not mosaic.valid.any() and mosaic.colours.shape == (8, 8, 3)


def test_zero_in_one_band_is_data_and_in_all_read_ones_may_be(tmp_path: Path) -> None:
    """A pixel is empty only if all bands, those that are not read too, hold the no-data value."""
    image = picture(40)
    four = np.concatenate([image, np.full((1, 40, 40), 9, np.uint8)])
    four[0, :10] = 0
    four[:3, 20:24] = 0
    four[:, 30:32] = 0
    path = write(tmp_path / "a.tif", four, 0, 0, nodata=0)
    mosaic = read([path], Grid(UTM, X0, Y0, 1.0, 40, 40))
    empty = np.zeros((40, 40), bool)
    empty[30:32] = True
    np.testing.assert_array_equal(~mosaic.valid, empty)
