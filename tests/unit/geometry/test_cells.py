from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from cgeartheye.errors import ShapeError
from cgeartheye.geometry.cells import CellGrid, join, split

KM = CellGrid(1000)
SIZES = st.sampled_from([96.0, 250.0, 1000.0, 7300.0, 100_000.0])
LON, LAT = st.floats(-540, 540), st.floats(-90, 90)


@pytest.mark.parametrize(
    ("lon", "lat", "row", "column", "columns"),
    [
        (116.3913, 39.9075, 14437, 25320, 30754),
        (178.4417, -18.1416, 7985, 37775, None),
        (15.63, 78.22, 18694, 4482, None),
        (180.0, 0.0, 10002, 0, 39873),
        (-180.0, 0.0, 10002, 0, 39873),
    ],
)
def test_known_cells(lon: float, lat: float, row: int, column: int, columns: int | None) -> None:
    found = KM.locate(lon, lat)
    assert (int(found[0]), int(found[1])) == (row, column)
    assert int(KM.ids(lon, lat)) == row * 2**32 + column
    if columns is not None:
        assert int(KM.columns(row)) == columns


def test_the_kilometre_grid_has_20004_rows_and_covers_the_earth() -> None:
    assert KM.rows == 20_004
    assert int(KM.columns(np.arange(KM.rows)).sum()) == 510_065_594
    assert int(KM.locate(0, 90)[0]) == 20_003


@settings(max_examples=200, deadline=None)
@given(cell_m=SIZES, lon=LON, lat=LAT)
def test_a_point_lies_in_the_bounds_of_its_cell(cell_m: float, lon: float, lat: float) -> None:
    grid = CellGrid(cell_m)
    west, south, east, north = grid.bounds(grid.ids(lon, lat))
    wrapped = (lon + 180) % 360 - 180
    assert south - 1e-9 <= lat <= north + 1e-9
    assert west - 1e-9 <= wrapped <= east + 1e-9 or west == -180


@settings(max_examples=200, deadline=None)
@given(cell_m=SIZES, lon=LON, lat=LAT)
def test_centres_come_back_to_their_cell(cell_m: float, lon: float, lat: float) -> None:
    grid = CellGrid(cell_m)
    ids = grid.ids([lon], [lat])
    assert grid.ids(*grid.centres(ids)) == ids
    assert join(*split(ids)) == ids


def test_a_million_round_trips() -> None:
    generator = np.random.default_rng(0)
    lon, lat = generator.uniform(-180, 180, 10**6), np.degrees(np.arcsin(generator.uniform(-1, 1, 10**6)))
    ids = KM.ids(lon, lat)
    np.testing.assert_array_equal(KM.ids(*KM.centres(ids)), ids)


def test_areas_and_sides_between_60_south_and_84_north() -> None:
    generator = np.random.default_rng(1)
    ids = KM.ids(generator.uniform(-180, 180, 20_000), generator.uniform(-60, 84, 20_000))
    assert np.abs(KM.area_m2(ids) / 1e6 - 1).max() <= 2e-4
    west, south, east, north = KM.bounds(ids[:500]).T
    geod = Geod(ellps="WGS84")
    middle = (south + north) / 2
    _, _, across = geod.inv(west, middle, east, middle)
    _, _, up = geod.inv(west, south, west, north)
    ratio = np.maximum(across / up, up / across)
    assert ratio.max() <= 1.02


def test_the_area_is_that_of_the_geodesic_polygon() -> None:
    ids = KM.ids([10.0, -70.0, 150.0], [5.0, -45.0, 80.0])
    geod = Geod(ellps="WGS84")
    for cell, area in zip(ids, KM.area_m2(ids), strict=True):
        west, south, east, north = KM.bounds(cell)
        lon = np.concatenate([np.linspace(west, east, 50), np.linspace(east, west, 50)])
        lat = np.repeat([south, north], 50)
        assert abs(geod.polygon_area_perimeter(lon, lat)[0]) == pytest.approx(area, rel=1e-5)


def test_all_rows_together_have_the_area_of_the_ellipsoid() -> None:
    assert KM.row_area_m2(np.arange(KM.rows)).sum() == pytest.approx(510_065_621_724_088, rel=1e-9)


def test_more_columns_than_16_bits_do_not_collide() -> None:
    grid = CellGrid(96)
    columns = int(grid.columns(grid.rows // 2))
    assert columns == pytest.approx(39_873 * 1000 / 96, rel=1e-4) and columns > 2**16
    last = int(join(grid.rows // 2, columns - 1))
    assert last < int(join(grid.rows // 2 + 1, 0))


def test_cells_within_an_area_are_those_a_brute_force_search_finds() -> None:
    grid = CellGrid(5000)
    area = shapely.Polygon([(10, 50), (11, 50.2), (10.8, 51), (10.2, 50.9)])
    lon, lat = np.meshgrid(np.arange(9.5, 11.5, 0.005), np.arange(49.5, 51.5, 0.005))
    near = np.unique(grid.ids(lon.ravel(), lat.ravel()))
    by_centre = [i for i in near if area.covers(shapely.Point(*grid.centres(i)))]
    whole = [i for i in near if area.covers(shapely.box(*grid.bounds(i)))]
    np.testing.assert_array_equal(grid.within(area), by_centre)
    np.testing.assert_array_equal(grid.within(area, whole=True), whole)
    assert 0 < len(whole) < len(by_centre)


def test_an_area_on_both_sides_of_the_antimeridian() -> None:
    grid = CellGrid(10_000)
    split_area = shapely.MultiPolygon([shapely.box(179.5, 0, 180, 1), shapely.box(-180, 0, -179.5, 1)])
    shifted = grid.within(shapely.box(0, 0, 1, 1))
    assert len(grid.within(split_area)) == pytest.approx(len(shifted), rel=0.1)
    assert len(grid.within(shapely.Polygon())) == 0


def test_a_large_area_is_searched_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    grid, area = CellGrid(10_000), shapely.box(0, 0, 9, 9)
    whole = grid.within(area)
    monkeypatch.setattr("cgeartheye.geometry.cells._BLOCK", 100)
    np.testing.assert_array_equal(grid.within(area), whole)


@pytest.mark.parametrize("cell_m", [0, -1, 0.5, 2e6, float("nan")])
def test_impossible_cells_are_refused(cell_m: float) -> None:
    with pytest.raises(ShapeError, match="cell_m"):
        CellGrid(cell_m)


def test_areas_everywhere_are_within_6_percent_and_off_by_more_than_1_only_at_the_poles() -> None:
    rows = np.arange(KM.rows)
    error = np.abs(KM.row_area_m2(rows) / KM.columns(rows) / 1e6 - 1)
    assert error.max() <= 0.06
    south = rows / KM.rows * 180 - 90
    assert np.flatnonzero(error > 0.01).tolist() == [0, 1, 4, 19_999, 20_002, 20_003]  # six, within 0.05 degrees of the poles
    assert error[(south >= -60) & (south < 84)].max() <= 1.2e-4  # 0.011 % as known


def test_the_grid_between_60_south_and_84_north_has_the_known_number_of_cells() -> None:
    south = (np.arange(KM.rows) + 0.5) * KM.row_height_deg - 90
    assert int(KM.columns(np.flatnonzero((south > -60) & (south < 84))).sum()) == 474_239_332
