"""Scanlines against a point-in-polygon test a point."""

from __future__ import annotations

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.geometry.cells import CellGrid, split
from cgeartheye.geometry.scanlines import Rows, spans

GRID = CellGrid(150_000)


def covered(grid: CellGrid, area: shapely.Geometry) -> list[int]:
    ids = grid.in_rows(0, grid.rows)
    return ids[shapely.intersects_xy(area, *grid.centres(ids))].tolist()


def blob(seed: int) -> shapely.Geometry:
    """A valid, ragged area with holes and islands somewhere on Earth."""
    random = np.random.default_rng(seed)
    centres = np.stack([random.uniform(-170, 170, 4), random.uniform(-80, 80, 4)], axis=1)
    discs = [shapely.Point(centre).buffer(random.uniform(2, 30), quad_segs=int(random.integers(1, 9))) for centre in centres]
    ragged = shapely.union_all(discs[:3]).difference(discs[3]).difference(shapely.Point(centres[0]).buffer(1))
    return ragged.intersection(shapely.box(-180, -90, 180, 90))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_cells_in_an_area_are_those_of_a_test_a_point(seed: int) -> None:
    area = blob(seed)
    assert GRID.within(area).tolist() == covered(GRID, area)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), across=st.floats(-100, 100), up=st.floats(-60, 60))
def test_areas_side_by_side_share_no_cell_and_miss_none(seed: int, across: float, up: float) -> None:
    area = blob(seed)
    parts = [
        area.intersection(shapely.box(west, south, east, north))
        for west, east in ((-180, across), (across, 180))
        for south, north in ((-90, up), (up, 90))
    ]
    ids = np.concatenate([GRID.within(shapely.MultiPolygon([p for p in shapely.get_parts(part) if p.area])) for part in parts])
    assert sorted(ids.tolist()) == GRID.within(area).tolist()


def test_the_southern_border_belongs_to_an_area_and_the_northern_one_does_not() -> None:
    rows, _, _ = spans(shapely.box(-10, 0.5, 10, 2.5), Rows(1.0, 0, 180))
    assert ((rows + 0.5) - 90).tolist() == [0.5, 1.5]


def test_the_whole_earth_is_every_cell() -> None:
    rows, first, stop = GRID.spans(shapely.box(-180, -90, 180, 90))
    assert rows.tolist() == list(range(GRID.rows))
    np.testing.assert_array_equal(stop - first, GRID.columns(rows))
    assert split(GRID.in_rows(0, GRID.rows))[0].tolist() == np.repeat(rows, stop).tolist()


def test_only_the_rows_asked_for() -> None:
    area = shapely.box(-10, -10, 10, 10)
    rows, _, _ = spans(area, Rows(1.0, 85, 90))
    assert rows.tolist() == [85, 86, 87, 88, 89]
    rows, west, east = spans(area, Rows(1.0, 0, 180))
    assert rows.tolist() == list(range(80, 100)) and set(west) == {-10} and set(east) == {10}
