from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from pyproj import Geod
from scipy.ndimage import gaussian_filter
from shapely.geometry import Polygon, box

from cgeartheye.vectors.coverage import drop_small, simplify
from cgeartheye.vectors.geoparquet import areas_m2, write_polygons
from cgeartheye.vectors.polygonize import Region, polygonize


@pytest.fixture(scope="module")
def regions() -> list[Region]:
    noise = np.random.default_rng(1).normal(size=(4, 160, 200))
    raster = gaussian_filter(noise, (0, 6, 6)).argmax(0).astype(np.uint8)
    return drop_small(polygonize(lambda w: raster[w.slices], *raster.shape), 1)


def test_simplified_outlines_stay_a_coverage_and_keep_their_areas(regions: list[Region]) -> None:
    plain, simple = simplify(regions, 0), simplify(regions, 1.0)
    assert [p.equals(r.polygon) for p, r in zip(plain, regions, strict=True)] == [True] * len(regions)
    assert shapely.coverage_is_valid(np.array(simple, dtype=object))
    assert shapely.get_num_coordinates(simple).sum() < 0.6 * shapely.get_num_coordinates(plain).sum()
    for value in range(4):
        before = sum(r.polygon.area for r in regions if r.value == value)
        after = sum(p.area for p, r in zip(simple, regions, strict=True) if r.value == value)
        assert after == pytest.approx(before, rel=0.005)
    assert sum(p.area for p in simple) == pytest.approx(160 * 200, rel=1e-4)


def test_small_regions_fall_to_the_region_around_them() -> None:
    raster = np.zeros((20, 20), np.uint8)
    raster[5:8, 5:8] = 1  # 9 px, inside one region
    raster[12:18, 12:18] = 2  # 36 px
    raster[0, 0] = 3  # at the edge: nothing surrounds it
    kept = drop_small(polygonize(lambda w: raster[w.slices], 20, 20), 16)
    assert [(r.value, r.pixels) for r in kept] == [(0, 400 - 36 - 1), (2, 36)]


def test_area_is_geodesic_where_map_units_are_not() -> None:
    lonlat = box(24.0, 60.0, 24.01, 60.005)
    mercator = gpd.GeoSeries([lonlat], crs=4326).to_crs(3857).iloc[0]
    truth = abs(Geod(ellps="WGS84").geometry_area_perimeter(lonlat.segmentize(1e-4))[0])
    assert areas_m2([mercator], "EPSG:3857")[0] == pytest.approx(truth, rel=1e-5)
    assert mercator.area > 3.9 * truth


def test_written_polygons_come_back(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    shapes = [box(0, 0, 4, 2), Polygon([(4, 0), (8, 0), (8, 4), (4, 4)])]
    write_polygons(path, shapes, [3, 1], names={1: "a", 3: "b"}, transform=(2.0, 0, 500000, 0, -2.0, 100), crs="EPSG:32633")
    frame = gpd.read_parquet(path)
    assert frame["class"].tolist() == ["b", "a"]
    assert frame.geometry[0].bounds == (500000, 96, 500008, 100)
    assert frame.geometry[1].exterior.is_ccw
    assert frame.area_m2.tolist() == pytest.approx([32, 64], rel=1e-3)
    first = path.read_bytes()
    write_polygons(path, shapes, [3, 1], names={1: "a", 3: "b"}, transform=(2.0, 0, 500000, 0, -2.0, 100), crs="EPSG:32633")
    assert path.read_bytes() == first


def test_no_polygons_make_an_empty_layer(tmp_path: Path) -> None:
    write_polygons(tmp_path / "p.parquet", [], [], names={}, transform=(1.0, 0, 0, 0, -1.0, 0), crs="EPSG:32633")
    frame = gpd.read_parquet(tmp_path / "p.parquet")
    assert len(frame) == 0
    assert frame.crs.to_epsg() == 32633
