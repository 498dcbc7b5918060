from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer

from cgeartheye.curation.covariates import NO_BIN, classify, describe_cells
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.strata import group_cells
from cgeartheye.curation.zonal import class_counts, means
from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.settings.curate import CurateSettings

ORIGIN = (500_000.0, 4_400_000.0)
Tif = Callable[..., Path]


def _brute(values: np.ndarray, gsd: float, grid: CellGrid) -> np.ndarray:
    rows, columns = np.indices(values.shape)
    to_degrees = Transformer.from_crs("EPSG:32650", "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(ORIGIN[0] + (columns + 0.5) * gsd, ORIGIN[1] - (rows + 0.5) * gsd)
    return grid.ids(lon.ravel(), lat.ravel()).reshape(values.shape)


@pytest.mark.parametrize("shape", [(300, 210), (1100, 40)])
def test_counts_equal_brute_force(tmp_path: Path, tif: Tif, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    codes = random.choice(np.array([10, 20, 40, 77, 0], np.uint8), shape)
    path = tif(tmp_path / "codes.tif", codes, *ORIGIN, gsd=3)
    grid = CellGrid(95)
    at = _brute(codes, 3, grid)
    ids = np.unique(at)[1::2]  # every second cell only: the others must not leak in
    counts = class_counts(path, Cells(grid, ids), {10: 0, 20: 1, 40: 2}, 3)
    expected = [[int((codes[at == cell] == code).sum()) for code in (10, 20, 40)] for cell in ids]
    assert counts.tolist() == expected


def test_means_equal_brute_force_and_skip_nodata(tmp_path: Path, tif: Tif) -> None:
    random = np.random.default_rng(1)
    heights = random.normal(100, 30, (160, 160)).astype(np.float32)
    heights[:40] = -9999
    path = tif(tmp_path / "heights.tif", heights, *ORIGIN, gsd=5, nodata=-9999)
    grid = CellGrid(100)
    at = _brute(heights, 5, grid)
    ids = np.unique(at)
    found = means(path, Cells(grid, ids))
    for cell, value in zip(ids, found, strict=True):
        good = heights[(at == cell) & (heights > -9999)]
        assert (np.isnan(value) and not good.size) or value == pytest.approx(good.mean(dtype=float), abs=1e-3)
    assert np.isnan(found).any()


def test_a_layer_coarser_than_the_cells_is_read_under_their_centres(tmp_path: Path, tif: Tif) -> None:
    codes = np.arange(1, 5, dtype=np.uint8).reshape(2, 2) * 10
    path = tif(tmp_path / "coarse.tif", codes, 116.0, 40.0, gsd=0.5, crs="EPSG:4326")
    grid = CellGrid(1000)
    lon, lat = np.array([116.2, 116.8, 116.2, 116.8, 120.0]), np.array([39.8, 39.8, 39.2, 39.2, 39.2])
    ids = np.sort(grid.ids(lon, lat))
    counts = class_counts(path, Cells(grid, ids), {10: 0, 20: 1, 30: 2, 40: 3}, 4)
    by_cell = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    assert [by_cell[int(c)] for c in grid.ids(lon, lat)] == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]


def test_minority_classes_win_from_their_share_on() -> None:
    classes = ("forest", "water", "wetland", "built-up")
    percent = [[90, 0, 0, 10], [91, 0, 0, 9], [50, 25, 25, 0], [40, 40, 20, 0], [0, 0, 0, 0], [50, 0, 0, 50]]
    rules = {"built-up": 0.1, "wetland": 0.25, "water": 0.25}

    def named(minimum: dict[str, float]) -> list[str]:
        return [(*classes, "none")[number] for number in classify(np.array(percent), classes, minimum)]

    assert named(rules) == ["built-up", "forest", "wetland", "water", "none", "built-up"]
    assert named({}) == ["forest", "forest", "forest", "forest", "none", "forest"]


def test_cells_are_described_by_all_layers(archive_settings: Callable[..., CurateSettings]) -> None:
    settings = archive_settings()
    grid = CellGrid(settings.cell_m)
    to_degrees = Transformer.from_crs("EPSG:32650", "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform([ORIGIN[0] + 70, ORIGIN[0] + 330], [ORIGIN[1] - 330, ORIGIN[1] - 30])
    cells = Cells(grid, np.sort(grid.ids(lon, lat)))
    south_west, north_east = (int(np.flatnonzero(cells.ids == cell)[0]) for cell in grid.ids(lon, lat))
    found = describe_cells(cells, settings)
    assert found.elevation_m[south_west] == pytest.approx(330, abs=25)
    number, strata = group_cells(found)
    keys = [strata[one].key(()) for one in number]
    assert (keys[south_west], keys[north_east]) == ("West/forest/4", "East/built-up/2")


def test_without_layers_there_is_one_stratum(archive_settings: Callable[..., CurateSettings]) -> None:
    settings = archive_settings(land_cover=None, elevation=None, regions=None)
    cells = Cells(CellGrid(40), np.array([2**32 * 360_000 + 5]))
    found = describe_cells(cells, settings)
    assert found.elevation_bin.tolist() == [NO_BIN]
    assert [stratum.key(()) for stratum in group_cells(found)[1]] == ["none/none/none"]


def test_a_wrong_region_column_names_the_right_ones(archive_settings: Callable[..., CurateSettings]) -> None:
    with pytest.raises(DataError, match="one of: name"):
        describe_cells(Cells(CellGrid(40), np.array([5])), archive_settings(region_field="NAME_1"))
