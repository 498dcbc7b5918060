from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.curation.archive import begin_archive
from cgeartheye.curation.candidates import cells_of, chip_boxes, find_candidates, outside_hold_out, place_centres
from cgeartheye.curation.layers import read_polygons
from cgeartheye.curation.pieces import Workers
from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.geometry.crs import footprint
from cgeartheye.geometry.grid import local_grid
from cgeartheye.progress import SILENT
from cgeartheye.rasters.scenes import read_scenes
from cgeartheye.settings.curate import CurateSettings


@settings(max_examples=80, deadline=None)
@given(
    lon=st.floats(-179, 179), lat=st.floats(-75, 80), gsd=st.sampled_from([0.3, 0.75, 5.0]), side=st.sampled_from([64, 256, 672])
)
def test_the_box_holds_the_chip_wherever_it_lies(lon: float, lat: float, gsd: float, side: int) -> None:
    grid = local_grid(lon, lat, gsd_m=gsd, size_px=side)
    outline = footprint(grid.transform, side, side, grid.crs)
    box = chip_boxes(np.array([lon]), np.array([lat]), side * gsd)[0]
    # the origin is snapped to whole pixels, which moves the chip by up to half a pixel
    slack = 0.75 * gsd / 111_000 / np.cos(np.radians(lat))
    assert box.buffer(slack, join_style="mitre").covers(outline)
    assert box.area < 1.35 * outline.area


def test_chips_lie_inside_the_archive_and_know_their_scenes(archive: Path) -> None:
    scenes = sorted(read_scenes(archive / "catalog" / "catalog.parquet"), key=lambda s: (s.date, s.id))
    found = find_candidates(scenes, cells_of(scenes, CellGrid(40)), 32.0, 1)
    assert (found.n_dates == 4).all()
    assert len(found.cells) == len(set(found.cells.tolist()))
    assert 64 <= len(found.cells) <= 100
    whole = shapely.union_all([s.footprint for s in scenes])
    for lon, lat, numbers in zip(found.lon, found.lat, map(found.scenes_of, range(len(found))), strict=True):
        grid = local_grid(lon, lat, gsd_m=1, size_px=32)
        outline = footprint(grid.transform, 32, 32, grid.crs)
        assert whole.buffer(1e-7).covers(outline)
        assert set(numbers) >= {i for i, s in enumerate(scenes) if s.footprint.buffer(-1e-7).intersects(outline)}
    assert set(np.diff(found.first).tolist()) == {4, 8}  # chips over the seam need both halves of each date


def test_budgets_ask_for_quarters(archive: Path, archive_settings: Callable[..., CurateSettings], tmp_path: Path) -> None:
    west = {"name": "west", "places": 9, "regions": ["West"], "min_quarters": 4}
    budgets = [west, {"name": "rest", "places": 12}]
    drawn = begin_archive(archive_settings(draw={"budgets": budgets}), tmp_path, Workers(0, SILENT))
    cells = pq.read_table(tmp_path / "cells.parquet").to_pandas()
    assert cells[cells["drawn"]].groupby("budget").size().to_dict() == {"west": 9, "rest": 12}
    assert (cells["region"].eq("West") == cells["budget"].eq("west")).all()
    assert drawn.counts["places_drawn"] == 21
    scenes = read_scenes(archive / "catalog" / "catalog.parquet")
    assert set(find_candidates(scenes, cells_of(scenes, CellGrid(40)), 32.0, 1).n_quarters.tolist()) == {4}
    spring = [scene for scene in scenes if scene.quarter == 2]
    assert set(find_candidates(spring, cells_of(spring, CellGrid(40)), 32.0, 1).n_quarters.tolist()) == {1}


def test_a_budget_whose_quarters_the_archive_lacks_leaves_nothing(
    archive: Path, archive_settings: Callable[..., CurateSettings], tmp_path: Path
) -> None:
    table = pq.read_table(archive / "catalog" / "catalog.parquet")
    part = tmp_path / "part" / "catalog.parquet"
    part.parent.mkdir()
    pq.write_table(table.filter(pc.equal(table["quarter"], 2)), part)
    budgets = [{"name": "all", "places": 9, "min_quarters": 2}]
    with pytest.raises(DataError, match="in enough quarters"):
        begin_archive(archive_settings(catalog=part.parent, draw={"budgets": budgets}), tmp_path, Workers(0, SILENT))


def test_several_places_in_a_cell(archive: Path) -> None:
    scenes = read_scenes(archive / "catalog" / "catalog.parquet")
    grid = CellGrid(160)
    found = find_candidates(scenes, cells_of(scenes, grid), 32.0, 4)
    assert set(found.slots.tolist()) == {0, 1, 2, 3}
    assert np.array_equal(grid.ids(found.lon, found.lat), found.cells)
    boxes = chip_boxes(found.lon, found.lat, 32.0)
    pairs = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    assert (pairs[0] == pairs[1]).all()


@pytest.mark.parametrize("per_cell", [1, 4])
def test_places_are_spread_by_a_hash_within_their_slots(per_cell: int) -> None:
    grid, side_m = CellGrid(1000), 672 * 0.75 if per_cell == 1 else 300.0
    ids = grid.within(shapely.box(8.0, 46.0, 8.6, 46.2))
    plain = place_centres(grid, ids, side_m, per_cell)
    spread = place_centres(grid, ids, side_m, per_cell, jitter=1.0, seed=3)
    boxes = chip_boxes(*spread, side_m)
    cells = shapely.box(*np.repeat(grid.bounds(ids), per_cell, axis=0).T)
    assert shapely.covers(shapely.buffer(cells, 1e-9), boxes).all()
    assert len(shapely.STRtree(boxes).query(boxes, predicate="overlaps")[0]) == 0
    moved = (spread[1] - plain[1]) * 111_000
    room = 1000 / np.sqrt(per_cell) - side_m
    assert np.abs(moved).max() == pytest.approx(room / 2, rel=0.1)  # 10 % for the turn of the chip
    assert np.std(moved) == pytest.approx(room / np.sqrt(12), rel=0.15)
    few = np.sort(np.random.default_rng(0).permutation(len(ids))[:50])
    alone = place_centres(grid, ids[few], side_m, per_cell, jitter=1.0, seed=3)
    at = (few[:, None] * per_cell + np.arange(per_cell)).ravel()
    assert np.array_equal(alone[0], spread[0][at]) and np.array_equal(alone[1], spread[1][at])
    assert not np.array_equal(place_centres(grid, ids, side_m, per_cell, jitter=1.0, seed=4)[0], spread[0])


def test_a_chip_larger_than_its_cell_stays_in_the_middle() -> None:
    grid = CellGrid(200)
    ids = grid.within(shapely.box(8.0, 46.0, 8.05, 46.02))
    for still, moved in zip(place_centres(grid, ids, 300.0, 1), place_centres(grid, ids, 300.0, 1, jitter=1.0), strict=True):
        assert np.array_equal(still, moved)


@pytest.mark.parametrize("side_m", [20.0, 32.0])
def test_hold_out_keeps_a_chips_side_away(archive: Path, side_m: float) -> None:
    scenes = read_scenes(archive / "catalog" / "catalog.parquet")
    found = find_candidates(scenes, cells_of(scenes, CellGrid(40)), side_m, 1)
    held = archive / "layers" / "held.geojson"
    away = outside_hold_out(found.lon, found.lat, held, side_m)
    polygon = gpd.read_file(held).to_crs("EPSG:32650").geometry.iloc[0]
    for lon, lat, kept in zip(found.lon, found.lat, away, strict=True):
        grid = local_grid(lon, lat, gsd_m=1, size_px=int(side_m), crs="EPSG:32650")
        distance = shapely.box(*grid.bounds).distance(polygon)
        assert distance >= side_m if kept else distance < side_m + 3
    assert 0 < away.sum() < len(away)


def test_polygons_that_say_nothing_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.geojson").write_text("{")
    with pytest.raises(DataError, match="cannot be read as features"):
        read_polygons(tmp_path / "broken.geojson")
    gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs=4326).to_file(tmp_path / "point.geojson")
    with pytest.raises(DataError, match="holds no polygon"):
        read_polygons(tmp_path / "point.geojson")
    with pytest.raises(DataError, match="cannot be read as features"):
        read_polygons(tmp_path / "absent.gpkg")
