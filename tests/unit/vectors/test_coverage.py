from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from scipy.ndimage import gaussian_filter
from shapely.geometry import Polygon, box

from cgeartheye.vectors import geoparquet
from cgeartheye.vectors.geoparquet import areas_m2, write_polygons
from cgeartheye.vectors.polygonize import Outlines, Region, polygonize

RASTER = gaussian_filter(np.random.default_rng(1).normal(size=(4, 160, 200)), (0, 6, 6)).argmax(0).astype(np.uint8)


def outlined(raster: np.ndarray, block_px: int = 1024, **rule: float) -> list[Region]:
    read = lambda w: raster[w.slices]  # noqa: E731 - a one-line reader
    return list(polygonize(read, *raster.shape, block_px=block_px, outlines=Outlines(**rule)))


@pytest.mark.parametrize("block_px", [1024, 64, 37])
def test_simplified_outlines_stay_a_coverage_and_keep_their_areas(block_px: int) -> None:
    plain, regions = outlined(RASTER), outlined(RASTER, block_px, simplify_px=1.0)
    simple = np.array([r.polygon for r in regions], dtype=object)
    assert shapely.is_valid(simple).all()
    assert shapely.coverage_is_valid(simple)
    assert shapely.get_num_coordinates(simple).sum() < 0.65 * sum(shapely.get_num_coordinates(r.polygon) for r in plain)
    for value in range(4):
        before = sum(r.polygon.area for r in plain if r.value == value)
        assert before - 10 <= sum(r.pixels for r in regions if r.value == value) <= before  # single pixels may vanish
        assert sum(r.polygon.area for r in regions if r.value == value) == pytest.approx(before, rel=0.005)
    assert shapely.area(simple).sum() == pytest.approx(160 * 200, rel=1e-3)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(2, 40), st.integers(3, 17), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_blocks_simplified_one_by_one_fit_together(seed: int, height: int, width: int, block_px: int, min_px: int) -> None:
    raster = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
    regions = outlined(raster, block_px, simplify_px=1.0, min_px=min_px)
    polygons = np.array([r.polygon for r in regions], dtype=object)
    assert shapely.is_valid(polygons).all()
    assert shapely.coverage_is_valid(polygons)
    assert shapely.area(polygons).sum() == pytest.approx(shapely.area(shapely.union_all(polygons)), abs=1e-6)  # no overlaps
    assert all(r.pixels >= min_px for r in regions)


@pytest.mark.parametrize("block_px", [1024, 7])
def test_small_regions_fall_to_the_region_around_them(block_px: int) -> None:
    raster = np.zeros((20, 20), np.uint8)
    raster[5:8, 5:8] = 1  # 9 px, inside one region
    raster[12:18, 12:18] = 2  # 36 px
    raster[0, 0] = 3  # at the edge: nothing surrounds it
    kept = outlined(raster, block_px, min_px=16)
    assert sorted((r.value, r.pixels) for r in kept) == [(0, 400 - 36 - 1), (2, 36)]


def test_area_is_geodesic_where_map_units_are_not() -> None:
    lonlat = box(24.0, 60.0, 24.01, 60.005)
    mercator = gpd.GeoSeries([lonlat], crs=4326).to_crs(3857).iloc[0]
    truth = abs(Geod(ellps="WGS84").geometry_area_perimeter(lonlat.segmentize(1e-4))[0])
    centre = (mercator.centroid.x, mercator.centroid.y)
    assert areas_m2(np.array([mercator], dtype=object), "EPSG:3857", centre)[0] == pytest.approx(truth, rel=1e-5)
    assert mercator.area > 3.9 * truth


@pytest.fixture
def few_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geoparquet, "ROW_GROUP", 1)


@pytest.mark.usefixtures("few_a_group")
def test_written_polygons_come_back(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    regions = [Region(3, box(0, 0, 4, 2), 8, (0, 0)), Region(1, Polygon([(4, 0), (8, 0), (8, 4), (4, 4)]), 16, (0, 4))]
    placed = {"transform": (2.0, 0, 500000, 0, -2.0, 100), "crs": "EPSG:32633", "size": (4, 8)}
    write_polygons(path, regions, names={1: "a", 3: "b"}, **placed)
    frame = gpd.read_parquet(path)
    assert frame["class"].tolist() == ["b", "a"]
    assert frame.crs.to_epsg() == 32633
    assert frame.geometry[0].bounds == (500000, 96, 500008, 100)
    assert frame.geometry[1].exterior.is_ccw
    assert frame.area_m2.tolist() == pytest.approx([32, 64], rel=1e-3)
    assert gpd.read_parquet(path, bbox=(500009, 93, 500010, 95))["class"].tolist() == ["a"]
    geo = json.loads(pq.read_metadata(path).metadata[b"geo"])
    assert geo["columns"]["geometry"]["bbox"] == [500000, 92, 500016, 100]
    first = path.read_bytes()
    write_polygons(path, regions, names={1: "a", 3: "b"}, **placed)
    assert path.read_bytes() == first


def test_no_polygons_make_an_empty_layer(tmp_path: Path) -> None:
    placed = {"transform": (1.0, 0, 0, 0, -1.0, 0), "crs": "EPSG:32633", "size": (4, 8)}
    write_polygons(tmp_path / "p.parquet", [], names={}, **placed)
    frame = gpd.read_parquet(tmp_path / "p.parquet")
    assert len(frame) == 0
    assert frame.crs.to_epsg() == 32633


@pytest.mark.slow
def test_memory_does_not_grow_with_the_height_of_a_map(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        import numpy as np
        from scipy.ndimage import gaussian_filter
        from cgeartheye.vectors.geoparquet import write_polygons
        from cgeartheye.vectors.polygonize import Outlines, polygonize
        noise = np.random.default_rng(1).normal(size=(4, 512, 512))
        tile = gaussian_filter(noise, (0, 2, 2), mode="wrap").argmax(0).astype(np.uint8)
        size = (int(sys.argv[1]), 512)
        read = lambda w: tile[np.ix_(np.arange(w.row, w.bottom) % 512, np.arange(w.col, w.right))]
        regions = polygonize(read, *size, block_px=256, outlines=Outlines(16, 1.0))
        names, transform = dict(enumerate("abcd")), (1.0, 0, 500000, 0, -1.0, 5000000)
        write_polygons(Path(sys.argv[2]), regions, names=names, transform=transform, crs="EPSG:32633", size=size)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    """)
    peaks = []
    for height in (1024, 16384):
        arguments = [sys.executable, "-c", code, str(height), str(tmp_path / f"{height}.parquet")]
        peaks.append(int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout))
    assert len(gpd.read_parquet(tmp_path / "16384.parquet")) > 12 * len(gpd.read_parquet(tmp_path / "1024.parquet"))
    assert peaks[1] < 1.1 * peaks[0] + 50e6, peaks
