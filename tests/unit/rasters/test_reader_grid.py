"""Rasters on grids: copies bit for bit, or one warp, against closed forms in world coordinates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_gcps
from rasterio.windows import Window

from cgeartheye.errors import DataError
from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters import warp as warping
from cgeartheye.rasters.reader import open_raster, read_on_grid, read_values_on_grid, read_window

UTM = "EPSG:32632"
X0, Y0 = 500_000.0, 5_500_000.0


def field(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    """A smooth picture of the ground, (3, H, W) float64 between 40 and 220, from UTM coordinates."""
    u, v = (x - X0) / 40, (y - Y0) / 40
    return np.stack([130 + 80 * np.sin(u + k) * np.cos(v - k) for k in range(3)])


def seen_through(transform: Affine, crs: str, height: int, width: int) -> NDArray[np.uint8]:
    """The picture of :func:`field` that a raster with this georeference shows."""
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = transform.a * column + transform.b * row + transform.c, transform.d * column + transform.e * row + transform.f
    x, y = Transformer.from_crs(crs, UTM, always_xy=True).transform(x, y)
    return np.round(field(x, y)).astype(np.uint8)


def write(path: Path, array: NDArray[Any], transform: Affine, crs: str = UTM, **profile: Any) -> Path:
    count, height, width = array.shape
    options = {"width": width, "height": height, "count": count, "dtype": array.dtype, "photometric": "RGB"} | profile
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, **options) as file:
        file.write(array)
    return path


@pytest.fixture
def warps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels of all resamplings of pixel values (masks apart) that a test makes."""
    made: list[str] = []
    real: Callable[..., None] = warping._reproject

    def counted(values: NDArray[Any], result: NDArray[Any], source: Any, grid: Grid, kernel: str) -> None:
        if values.ndim == 3:
            made.append(kernel)
        real(values, result, source, grid, kernel)

    monkeypatch.setattr(warping, "_reproject", counted)
    return made


@pytest.mark.parametrize("offset", [0.0, 0.004, -0.004])
@pytest.mark.parametrize("crs", [UTM, "wkt"])
def test_a_scene_on_the_grid_is_copied_bit_for_bit(tmp_path: Path, warps: list[str], offset: float, crs: str) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 40, 60), dtype=np.uint8)
    path = write(tmp_path / "a.tif", array, Affine(0.5, 0, X0 + offset, 0, -0.5, Y0 - offset))
    system = rasterio.crs.CRS.from_epsg(32632).to_wkt() if crs == "wkt" else crs
    with open_raster(path) as raster:
        colours, valid = read_on_grid(raster, Grid(system, X0 + 5, Y0 - 4, 0.5, 20, 16))
        rim, inside = read_on_grid(raster, Grid(system, X0 - 2, Y0 + 1, 0.5, 20, 16))
    np.testing.assert_array_equal(colours, array[:, 8:24, 10:30].transpose(1, 2, 0))
    assert valid.all()
    np.testing.assert_array_equal(rim[2:, 4:], array[:, :14, :16].transpose(1, 2, 0))
    assert inside[2:, 4:].all() and inside.sum() == 14 * 16 and not rim[~inside].any()
    assert warps == []


@pytest.mark.parametrize("change", [{"x0": X0 + 5.01}, {"y0": Y0 - 4.01}, {"gsd_m": 0.501}])
def test_a_hundredth_of_a_pixel_more_is_one_warp(tmp_path: Path, warps: list[str], change: dict[str, float]) -> None:
    place = {"x0": X0 + 5, "y0": Y0 - 4, "gsd_m": 0.5} | change
    path = write(tmp_path / "a.tif", np.full((3, 60, 60), 9, np.uint8), Affine(0.5, 0, X0, 0, -0.5, Y0))
    with open_raster(path) as raster:
        colours, valid = read_on_grid(raster, Grid(UTM, width=20, height=20, **place))
    assert warps == ["cubic"] and valid.all() and (colours == 9).all()


TURN = np.radians(20)
GEOREFERENCES = {
    "half a pixel off": (UTM, (1, 0, 0, -1)),
    "other zone": ("EPSG:32633", (1, 0, 0, -1)),
    "degrees": ("EPSG:4326", (1.4e-5, 0, 0, -0.9e-5)),
    "web mercator": ("EPSG:3857", (1.5, 0, 0, -1.5)),
    "rotated": (UTM, (np.cos(TURN), np.sin(TURN), np.sin(TURN), -np.cos(TURN))),
    "south up": (UTM, (1, 0, 0, 1)),
    "not square": (UTM, (0.8, 0, 0, -1.25)),
}


def around(crs: str, pixel: tuple[float, float, float, float], height: int, width: int) -> Affine:
    """The transform of a raster of such pixels whose centre lies at (X0 + 62.5, Y0 - 64.5)."""
    x, y = Transformer.from_crs(UTM, crs, always_xy=True).transform(X0 + 62.5, Y0 - 64.5)
    a, b, d, e = pixel
    return Affine(a, b, x - a * width / 2 - b * height / 2, d, e, y - d * width / 2 - e * height / 2)


@pytest.mark.parametrize("name", GEOREFERENCES)
def test_one_warp_shows_the_same_ground(tmp_path: Path, warps: list[str], name: str) -> None:
    crs, pixel = GEOREFERENCES[name]
    transform = around(crs, pixel, 300, 320)
    path = write(tmp_path / "a.tif", seen_through(transform, crs, 300, 320), transform, crs)
    grid = Grid(UTM, X0 + 30, Y0 - 40, 1.0, 64, 48)
    with open_raster(path) as raster:
        colours, valid = read_on_grid(raster, grid)
    expected = seen_through(Affine(*grid.transform), UTM, 48, 64)
    assert valid.all(), name
    assert np.abs(colours.transpose(2, 0, 1).astype(int) - expected).max() <= 2
    assert warps == ["cubic"]


def test_a_half_pixel_shift_of_a_ramp_is_exact(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(0, 200, 2, dtype=np.uint8), (3, 20, 100))
    path = write(tmp_path / "a.tif", np.ascontiguousarray(ramp), Affine(1, 0, X0, 0, -1, Y0))
    with open_raster(path) as raster:
        colours, valid = read_on_grid(raster, Grid(UTM, X0 + 10.5, Y0 - 5, 1.0, 50, 10))
    np.testing.assert_array_equal(colours[..., 0], np.broadcast_to(np.arange(21, 121, 2), (10, 50)))
    assert valid.all()


def test_a_pixel_is_valid_if_its_whole_kernel_was(tmp_path: Path) -> None:
    array = np.full((3, 40, 40), 100, np.uint8)
    array[:, 20, 20] = 0
    path = write(tmp_path / "a.tif", array, Affine(1, 0, X0, 0, -1, Y0), nodata=0)
    with open_raster(path) as raster:
        colours, valid = read_on_grid(raster, Grid(UTM, X0 + 0.5, Y0 - 0.5, 1.0, 39, 39))
    row, column = np.nonzero(~valid[3:-3, 3:-3])
    assert {16, 17, 18} <= set(row + 0) <= set(range(14, 20)) and set(row) == set(column)
    assert (colours[valid] == 100).all() and (colours[~valid] == 0).all()
    assert not valid[0].any() and not valid[:, -1].any()  # the kernel reaches outside the picture there


@pytest.mark.parametrize("overviews", [(), (2, 4)])
def test_shrinking_averages(tmp_path: Path, warps: list[str], overviews: tuple[int, ...]) -> None:
    array = np.random.default_rng(3).integers(0, 255, (3, 160, 160), dtype=np.uint8)
    path = write(tmp_path / "a.tif", array, Affine(1, 0, X0, 0, -1, Y0))
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(overviews, rasterio.enums.Resampling.average)
    with open_raster(path) as raster:
        colours, valid = read_on_grid(raster, Grid(UTM, X0 + 16, Y0 - 16, 4.0, 30, 30))
    means = array[:, 16:136, 16:136].reshape(3, 30, 4, 30, 4).mean((2, 4))
    assert valid.all()
    assert np.abs(colours.transpose(2, 0, 1) - means).max() <= 1
    assert warps == ([] if overviews else ["average"])  # the overview of factor 4 lies on the grid


def test_a_grid_beside_the_scene_is_empty(tmp_path: Path, warps: list[str]) -> None:
    path = write(tmp_path / "a.tif", np.full((3, 40, 40), 9, np.uint8), Affine(1, 0, X0, 0, -1, Y0))
    with open_raster(path) as raster:
        for grid in (
            Grid(UTM, X0 + 1000.3, Y0, 1.0, 8, 8),
            Grid("EPSG:32633", 0, 0, 1.0, 8, 8),
            Grid("EPSG:3035", 4e6, 3e6, 1, 8, 8),
        ):
            colours, valid = read_on_grid(raster, grid)
            assert colours.shape == (8, 8, 3) and not colours.any() and not valid.any()
    assert warps == []


def test_classes_are_copied_or_taken_from_the_nearest(tmp_path: Path) -> None:
    classes = np.random.default_rng(5).integers(0, 9, (1, 50, 50), dtype=np.uint8)
    path = write(tmp_path / "a.tif", classes, Affine(1, 0, X0, 0, -1, Y0), nodata=255, photometric="MINISBLACK")
    with open_raster(path) as raster:
        copied, valid = read_values_on_grid(raster, Grid(UTM, X0 + 3, Y0 - 4, 1.0, 10, 12))
        nearest, known = read_values_on_grid(raster, Grid(UTM, X0 + 3.3, Y0 - 4.4, 1.0, 10, 12))
        outside, none = read_values_on_grid(raster, Grid(UTM, X0 + 300, Y0, 1.0, 4, 4))
    np.testing.assert_array_equal(copied, classes[0, 4:16, 3:13])
    np.testing.assert_array_equal(nearest, classes[0, 4:16, 3:13])
    assert valid.all() and known.all() and not none.any() and not outside.any()


def test_most_frequent_class_and_mean_height(tmp_path: Path) -> None:
    blocks = np.kron(np.arange(16).reshape(4, 4), np.ones((5, 5))).astype(np.int16)
    spoilt = blocks.copy()
    spoilt[::5, ::5] = 99
    classes = write(tmp_path / "c.tif", spoilt[None], Affine(1, 0, X0, 0, -1, Y0), photometric="MINISBLACK")
    heights = write(
        tmp_path / "h.tif", blocks[None].astype(np.float32) + 0.25, Affine(1, 0, X0, 0, -1, Y0), photometric="MINISBLACK"
    )
    inner = Grid(UTM, X0 + 5, Y0 - 5, 5.0, 2, 2)
    with open_raster(classes) as raster:
        assert read_values_on_grid(raster, inner, kernel="mode")[0].tolist() == [[5, 6], [9, 10]]
    with open_raster(heights) as raster:
        assert read_values_on_grid(raster, inner, kernel="average")[0].tolist() == [[5.25, 6.25], [9.25, 10.25]]


def test_sixteen_bits_are_stretched_before_the_warp_alike_everywhere(tmp_path: Path) -> None:
    transform = Affine(1, 0, X0, 0, -1, Y0)
    array = (seen_through(transform, UTM, 100, 100).astype(np.uint16) * 12) + 500
    with open_raster(write(tmp_path / "a.tif", array, transform)) as raster:
        whole, _ = read_on_grid(raster, Grid(UTM, X0 + 10.5, Y0 - 10.5, 1.0, 60, 60))
        part, _ = read_on_grid(raster, Grid(UTM, X0 + 30.5, Y0 - 20.5, 1.0, 20, 20))
    np.testing.assert_array_equal(part, whole[10:30, 20:40])


def refusal(path: Path) -> DataError:
    with open_raster(path) as raster, pytest.raises(DataError) as caught:
        read_on_grid(raster, Grid(UTM, X0, Y0, 1.0, 4, 4))
    assert str(path) in str(caught.value)
    return caught.value


def test_rasters_without_place_are_refused_with_a_remedy(tmp_path: Path) -> None:
    array = np.full((3, 10, 10), 5, np.uint8)
    no_crs = refusal(write(tmp_path / "crs.tif", array, Affine(1, 0, X0, 0, -1, Y0), crs=""))
    assert "no coordinate reference system" in no_crs.what and "gdal_edit" in str(no_crs.remedy)
    no_place = refusal(write(tmp_path / "transform.tif", array, Affine.identity()))
    assert "no geotransform" in no_place.what


def test_control_points_that_fit_a_plane_are_a_georeference(tmp_path: Path, warps: list[str]) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 10, 10), dtype=np.uint8)
    gcps = [GroundControlPoint(r, c, X0 + c, Y0 - r) for r, c in ((0, 0), (0, 10), (10, 0), (10, 10))]
    assert from_gcps(gcps).almost_equals(Affine(1, 0, X0, 0, -1, Y0))
    path = write(tmp_path / "gcp.tif", array, Affine.identity(), crs="")
    with rasterio.open(path, "r+") as file:
        file.gcps = (gcps, rasterio.crs.CRS.from_epsg(32632))
    with open_raster(path) as raster:
        colours, valid = read_on_grid(raster, Grid(UTM, X0 + 2, Y0 - 3, 1.0, 6, 5))
    np.testing.assert_array_equal(colours, array[:, 3:8, 2:8].transpose(1, 2, 0))
    assert valid.all() and warps == []


def test_a_turned_picture_keeps_its_sharpness(tmp_path: Path) -> None:
    """Against Keys' bicubic kernel (a = -1/2) in NumPy; GDAL left alone widens it for pictures that lie askew."""
    noise = np.random.default_rng(0).integers(60, 200, (3, 90, 90), dtype=np.uint8)
    turn = np.radians(40)
    transform = around(UTM, (np.cos(turn), np.sin(turn), np.sin(turn), -np.cos(turn)), 90, 90)
    grid = Grid(UTM, X0 + 52, Y0 - 50, 1.0, 20, 30)
    with open_raster(write(tmp_path / "a.tif", noise, transform)) as raster:
        colours, valid = read_on_grid(raster, grid)
    u, v = np.meshgrid(np.arange(20) + 0.5, np.arange(30) + 0.5)
    column, row = ~transform @ (grid.x0 + u, grid.y0 - v)
    assert valid.all()
    assert np.abs(colours[..., 0] - keys(noise[0].astype(float), column - 0.5, row - 0.5)).max() <= 1


def keys(picture: NDArray[Any], column: NDArray[Any], row: NDArray[Any]) -> NDArray[Any]:
    """Bicubic values of a picture at pixel centres counted from 0 (Keys 1981)."""
    total = np.zeros(column.shape)
    for i in range(-1, 3):
        for j in range(-1, 3):
            r, c = np.floor(row).astype(int) + i, np.floor(column).astype(int) + j
            total += picture[r, c] * keys_weight(row - r) * keys_weight(column - c)
    return total


def keys_weight(away: NDArray[Any]) -> NDArray[Any]:
    t = np.abs(away)
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))


def test_a_sensor_model_beside_control_points_is_refused(tmp_path: Path) -> None:
    """Products that are not rectified have rough corners as control points, which no one should take for their place."""
    path = write(tmp_path / "rpc.tif", np.full((3, 10, 10), 5, np.uint8), Affine.identity(), crs="")
    twenty = [1.0] + [0.0] * 19
    gcps = [GroundControlPoint(r, c, X0 + c, Y0 - r) for r, c in ((0, 0), (0, 10), (10, 0), (10, 10))]
    with rasterio.open(path, "r+") as file:
        file.gcps = (gcps, rasterio.crs.CRS.from_epsg(32632))
        file.rpcs = RPC(0, 1, 50, 1, twenty, twenty, 0, 1, 9, 1, twenty, twenty, 0, 1)
    assert "gdalwarp -rpc" in str(refusal(path).remedy)


def test_a_sensor_model_alone_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = write(tmp_path / "rpc.tif", np.full((3, 10, 10), 5, np.uint8), Affine.identity(), crs="")
    twenty = [1.0] + [0.0] * 19
    with rasterio.open(path, "r+") as file:
        file.rpcs = RPC(0, 1, 50, 1, twenty, twenty, 0, 1, 9, 1, twenty, twenty, 0, 1)
    by_model = refusal(path)
    assert "RPC" in by_model.what and "gdalwarp -rpc" in str(by_model.remedy)


def test_a_window_on_the_whole_is_the_read_window(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 30, 30), dtype=np.uint8)
    with open_raster(write(tmp_path / "a.tif", array, Affine(2, 0, X0, 0, -2, Y0))) as raster:
        on_grid = read_on_grid(raster, Grid(UTM, X0, Y0, 2.0, 30, 30))
        window = read_window(raster, Window(0, 0, 30, 30))
    np.testing.assert_array_equal(on_grid[0], window[0])
