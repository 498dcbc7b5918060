"""Zonal statistics against a count of every pixel by itself: tile borders, the antimeridian, other systems, odd files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer

from cgeartheye.curation import zonal
from cgeartheye.curation.covariates import classify
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.zonal import class_counts, is_coarse, means, under_centres
from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid

Tif = Callable[..., Path]
GRID = CellGrid(1000)
CODES = {10: 0, 20: 1, 30: 2}
PX = 0.0004


def every_pixel(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Cell and value of each pixel of a raster, one projected centre at a time."""
    with rasterio.open(path) as source:
        values, transform = source.read(1), source.transform
        row, column = np.indices(values.shape)
        x = transform.c + transform.a * (column + 0.5) + transform.b * (row + 0.5)
        y = transform.f + transform.d * (column + 0.5) + transform.e * (row + 0.5)
        lon, lat = Transformer.from_crs(source.crs, "EPSG:4326", always_xy=True).transform(x.ravel(), y.ravel())
    return GRID.ids(lon, lat), values.ravel()


def patchy(seed: int, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    patches = random.choice(np.array([10, 20, 30, 77, 0], np.uint8), (height // 9 + 1, width // 9 + 1))
    return patches.repeat(9, axis=0).repeat(9, axis=1)[:height, :width]


@pytest.fixture
def tiles(tmp_path: Path, tif: Tif) -> Path:
    """Six tiles on both sides of the antimeridian, one of which reaches over it; their borders cut cells."""
    folder = tmp_path / "tiles"
    for number, (west, north) in enumerate([(179.7, 10.05), (-179.9, 10.05), (179.7, 9.85), (-179.9, 9.85)]):
        width = 500 if number % 2 else 750 - 250
        tif(folder / f"t{number}.tif", patchy(number, 500, width), west, north, gsd=PX, crs="EPSG:4326")
    tif(folder / "u0.tif", patchy(8, 500, 500), 179.9, 10.05, gsd=PX, crs="EPSG:4326")
    tif(folder / "u1.tif", patchy(9, 500, 500), 179.9, 9.85, gsd=PX, crs="EPSG:4326")
    return folder


def test_majority_of_500_cells_equals_brute_force(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zonal, "WINDOW_PX", 128)
    pixels = [every_pixel(path) for path in sorted(tiles.iterdir())]
    cell, value = (np.concatenate(parts) for parts in zip(*pixels, strict=True))
    ids = np.sort(np.random.default_rng(1).choice(np.unique(cell), 500, replace=False))
    columns = ids & (2**32 - 1)
    rows = ids >> 32
    assert (columns < 10).any() and (columns > GRID.columns(rows) - 10).any()  # on both sides of the antimeridian
    counts = class_counts(tiles, Cells(GRID, ids), CODES, 3)
    brute = np.stack(
        [np.bincount(np.searchsorted(ids, cell[np.isin(cell, ids) & (value == code)]), minlength=500) for code in CODES], 1
    )
    np.testing.assert_array_equal(counts, brute)
    expected = np.where(brute.sum(axis=1) > 0, brute.argmax(axis=1), -1)
    np.testing.assert_array_equal(classify(counts, ("a", "b", "c"), {}), expected)


def test_pieces_side_by_side_read_only_the_blocks_at_their_borders_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "layer.tif"
    options = {"driver": "GTiff", "dtype": "uint8", "count": 1, "crs": "EPSG:4326", "tiled": True, "blockxsize": 64}
    with rasterio.open(
        path, "w", width=1000, height=1000, blockysize=64, transform=rasterio.transform.from_origin(8, 48, PX, PX), **options
    ) as target:
        target.write(patchy(0, 1000, 1000), 1)
    read: list[int] = []
    read_raw = zonal.read_raw
    monkeypatch.setattr(
        zonal, "read_raw", lambda raster, window: (read.append(window.width * window.height), read_raw(raster, window))[1]
    )
    ids = np.unique(every_pixel(path)[0])
    whole = class_counts(path, Cells(GRID, ids), CODES, 3)
    assert sum(read) == 1000 * 1000
    read.clear()
    parts = np.split(ids, np.searchsorted(ids, np.quantile(ids, [0.25, 0.5, 0.75]).astype(np.int64) >> 32 << 32))
    counts = np.concatenate([class_counts(path, Cells(GRID, part), CODES, 3) for part in parts])
    np.testing.assert_array_equal(counts, whole)
    assert 1000 * 1000 < sum(read) <= 1000 * (1000 + 2 * 3 * 64)


def test_pieces_of_the_cells_count_what_all_of_them_count(tiles: Path) -> None:
    ids = np.unique(np.concatenate([every_pixel(path)[0] for path in tiles.iterdir()]))
    whole = class_counts(tiles, Cells(GRID, ids), CODES, 3)
    for part in (slice(0, None, 3), slice(1, None, 3), slice(2, None, 3)):
        np.testing.assert_array_equal(class_counts(tiles, Cells(GRID, ids[part]), CODES, 3), whole[part])


@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:32660"])
def test_a_projected_raster_over_the_antimeridian(tmp_path: Path, tif: Tif, crs: str) -> None:
    east = 167_000 if crs.endswith("01") else 833_000 - 9_000
    path = tif(tmp_path / "utm.tif", patchy(4, 220, 260), east - 4_000, 1_110_000.0, gsd=50.0, crs=crs)
    cell, value = every_pixel(path)
    ids = np.unique(cell)
    columns = ids & (2**32 - 1)
    assert columns.min() < 100 and columns.max() > 30_000
    counts = class_counts(path, Cells(GRID, ids), CODES, 3)
    brute = np.stack([np.bincount(np.searchsorted(ids, cell[value == code]), minlength=len(ids)) for code in CODES], 1)
    np.testing.assert_array_equal(counts, brute)


def test_a_raster_of_0_to_360_degrees_is_found_on_both_sides_of_greenwich(tmp_path: Path, tif: Tif) -> None:
    values = (np.arange(360) % 200 + 10).astype(np.uint8)[None].repeat(180, axis=0)
    path = tif(tmp_path / "turned.tif", values, 0.0, 90.0, gsd=1.0, crs="EPSG:4326", nodata=None)
    lon, lat = np.array([-170.5, -0.5, 0.5, 170.5]), np.full(4, 20.3)
    ids = GRID.ids(lon, lat)
    order = np.argsort(ids)
    assert is_coarse(path, GRID)
    found, known = under_centres(path, Cells(GRID, ids[order]))
    assert known.all()
    assert found.tolist() == (np.floor(lon[order] % 360) % 200 + 10).tolist()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_means_equal_brute_force_with_gaps(tmp_path: Path, tif: Tif, dtype: str) -> None:
    heights = np.random.default_rng(2).integers(-400, 3000, (300, 300)).astype(dtype)
    heights[:60, :150] = -9999
    if dtype == "float32":
        heights[200:210] = np.nan
    path = tif(tmp_path / "dem.tif", heights, 7.0, -30.0, gsd=PX, crs="EPSG:4326", nodata=-9999)
    cell, value = every_pixel(path)
    ids = np.unique(cell)
    found = means(path, Cells(GRID, ids))
    for number, one in enumerate(ids):
        good = value[(cell == one) & (value != -9999) & np.isfinite(value)].astype(float)
        assert np.isnan(found[number]) if not good.size else found[number] == pytest.approx(good.mean(), abs=1e-9)
    assert np.isnan(found).any()


def test_a_mask_band_hides_pixels(tmp_path: Path, tif: Tif) -> None:
    path = tif(tmp_path / "masked.tif", patchy(5, 200, 200), 3.0, 3.0, gsd=PX, crs="EPSG:4326", nodata=None)
    shown = np.random.default_rng(0).random((200, 200)) < 0.5
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
        target.write_mask(shown)
    cell, value = every_pixel(path)
    ids = np.unique(cell)
    counts = class_counts(path, Cells(GRID, ids), CODES, 3)
    brute = [[((cell == one) & (value == code) & shown.ravel()).sum() for code in CODES] for one in ids]
    assert counts.tolist() == brute


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.tif"):
        class_counts(tmp_path, Cells(GRID, np.array([5])), CODES, 3)
