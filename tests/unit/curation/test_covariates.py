"""Weights of cells from vectors: shares, lengths and counts against geometry and geodesics."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import Geod

from cgeartheye.curation.covariates import describe_cells
from cgeartheye.curation.layers import Cells
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.settings.curate import CurateSettings

GRID = CellGrid(1000)
CELLS = Cells(GRID, GRID.within(shapely.box(8.0, 60.0, 8.2, 60.1)))
LON, LAT = GRID.centres(CELLS.ids)
WIDTH = float((GRID.bounds(CELLS.ids[:1])[0, 2] - GRID.bounds(CELLS.ids[:1])[0, 0]) / 2)


def weights(path: Path, shapes: list[shapely.Geometry], **more: object) -> np.ndarray:
    gpd.GeoDataFrame(geometry=shapes, crs=4326).to_file(path)
    layer = {"layer": path, "base": 0.0, "most": 1e6, **more}
    settings = CurateSettings.model_validate({"source": "land", "draw": {"area": path, "weights": [layer]}})
    found = describe_cells(CELLS, settings).weight
    assert found is not None
    return found


def test_polygons_weigh_by_the_share_they_cover(tmp_path: Path) -> None:
    west, south, east, north = GRID.bounds(CELLS.ids[7])
    half = shapely.box(west, south, (west + east) / 2, north).buffer(-1e-9)
    found = weights(tmp_path / "houses.gpkg", [half, shapely.Point(20, 20).buffer(0.01)], measure="share", scale=0.25)
    assert found[7] == pytest.approx(2, rel=1e-4)
    assert np.delete(found, 7).max() == 0


def test_lines_weigh_by_their_metres(tmp_path: Path) -> None:
    roads = [
        shapely.LineString([(8.01, 60.01), (8.09, 60.05), (8.19, 60.02)]),
        shapely.MultiLineString([[(8.05, 60.03), (8.06, 60.03)], [(8.15, 60.08), (8.16, 60.08)]]),
    ]
    found = weights(tmp_path / "roads.gpkg", roads, measure="length")
    assert found.sum() == pytest.approx(sum(Geod(ellps="WGS84").geometry_length(road) for road in roads), rel=0.006)
    near = shapely.intersects(shapely.box(*GRID.bounds(CELLS.ids).T), shapely.union_all(roads))
    np.testing.assert_array_equal(found > 0, near)


def test_points_are_counted(tmp_path: Path) -> None:
    places = [shapely.Point(LON[3], LAT[3])] * 3 + [shapely.Point(LON[5] + WIDTH / 3, LAT[5]), shapely.Point(0, 0)]
    found = weights(tmp_path / "points.gpkg", places, measure="count", base=1.0, most=2.5)
    expected = np.ones(len(CELLS))
    expected[[3, 5]] = 2.5, 2
    np.testing.assert_allclose(found, expected)


def test_without_features_nearby_the_base_holds(tmp_path: Path) -> None:
    far = [shapely.Point(100, 10).buffer(0.1)]
    assert set(weights(tmp_path / "far.gpkg", far, measure="share", base=0.5)) == {0.5}
