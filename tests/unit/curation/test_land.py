"""A small world of 200-km cells: the draw without scenes, its pieces, budgets, weights, distances and edges."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from cgeartheye.curation import curate
from cgeartheye.curation.candidates import chip_boxes
from cgeartheye.curation.drawing import priorities
from cgeartheye.curation.land import describe_piece, pieces_of
from cgeartheye.curation.piece_draw import drawn_blocks, plan_pieces
from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.settings.curate import CurateSettings

CELL_M = 200_000.0
GRID = CellGrid(CELL_M)
PIXEL = 360 / 73  # an odd number, so that no centre of a cell lies between pixels
Make = Callable[..., CurateSettings]
COVER = np.random.default_rng(3).choice(np.array([10, 30, 80, 50, 0], np.uint8), (37, 73), p=[0.4, 0.3, 0.15, 0.05, 0.1])
HEIGHT = np.random.default_rng(4).integers(0, 500, (37, 73)).astype(np.int16)


@pytest.fixture
def world(tmp_path: Path, tif: Callable[..., Path]) -> Make:
    """Settings over a world of 5-degree pixels, four regions, and a hold-out on both sides of the antimeridian."""
    cover = tif(tmp_path / "cover.tif", COVER, -180.0, 90.0, gsd=PIXEL, crs="EPSG:4326")
    height = tif(tmp_path / "height.tif", HEIGHT, -180.0, 90.0, gsd=PIXEL, crs="EPSG:4326", nodata=-9999)
    boxes = [shapely.box(west, south, west + 180, south + 90) for west in (-180, 0) for south in (-90, 0)]
    gpd.GeoDataFrame({"name": ["a", "b", "c", "d"]}, geometry=boxes, crs=4326).to_file(tmp_path / "regions.geojson")
    held = shapely.MultiPolygon([shapely.box(170, -10, 180, 10), shapely.box(-180, -10, -178, 10)])
    gpd.GeoDataFrame(geometry=[held], crs=4326).to_file(tmp_path / "held.geojson")

    def make(**changed: object) -> CurateSettings:
        given = {
            "source": "land",
            "land_cover": cover,
            "elevation": height,
            "regions": tmp_path / "regions.geojson",
            "cell_m": CELL_M,
            "places": 1500,
            "workers": 0,
        }
        return CurateSettings.model_validate({**given, **changed})

    return make


def drawn(settings: CurateSettings, out: Path) -> set[int]:
    curate(settings, out)
    return set(pq.read_table(out / "cells.parquet")["cell"].to_pylist())


def described() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """All land cells with class code and stratum, one cell at a time from its centre."""
    ids = GRID.in_rows(0, GRID.rows)
    lon, lat = GRID.centres(ids)
    row, column = np.floor((90 - lat) / PIXEL).astype(int), np.floor((lon + 180) / PIXEL).astype(int)
    code = COVER[row, column]
    names = {10: "forest", 30: "grassland", 80: "water", 50: "built-up"}
    land = code > 0
    keys = [
        f"{'abcd'[2 * (x >= 0) + (y >= 0)]}/{names[int(c)]}/{(int(h) + 500) // 200}"
        for x, y, c, h in zip(lon[land], lat[land], code[land], HEIGHT[row, column][land], strict=True)
    ]
    return ids[land], code[land], keys


def test_all_land_is_counted_and_drawn_as_a_direct_computation_says(world: Make, tmp_path: Path) -> None:
    settings = world(seed=5)
    found = drawn(settings, tmp_path / "out")
    ids, code, keys = described()
    assert len(found) == 1500
    strata = pq.read_table(tmp_path / "out" / "strata.parquet").to_pylist()
    assert [row["stratum"] for row in strata] == sorted(set(keys))
    rank = priorities(ids, 5)
    for row in strata:
        mine = np.array([key == row["stratum"] for key in keys])
        assert row["cells"] == row["cap"] == mine.sum()
        of_class = (code == code[mine][0]).sum()
        assert row["alpha"] == pytest.approx(max(1, 1500 / 4 * mine.sum() / of_class))
        assert set(ids[mine][np.argsort(rank[mine])[: row["drawn"]]].tolist()) == found & set(ids[mine].tolist())
    funnel = json.loads((tmp_path / "out" / "funnel.json").read_text())["steps"]
    assert funnel == {"cells": len(ids), "strata": len(strata), "cells_drawn": 1500}


def test_pieces_in_any_number_and_order_draw_the_same(world: Make, tmp_path: Path) -> None:
    settings = world(draw={"min_distance_m": 250_000.0})
    results = []
    for rows, sectors, order in ((10**6, 1, 1), (GRID.rows // 2 + 1, 1, -1), (17, 3, -1)):
        folders = []
        for number, piece in enumerate(pieces_of(GRID, rows=rows, sectors=sectors)):
            folders.append(tmp_path / f"{rows}_{sectors}" / str(number))
            describe_piece(settings, piece, folders[-1])
        plan, n_cells = plan_pieces(folders[::order], settings)
        results.append(
            (n_cells, np.sort(np.concatenate([block.ids[chosen] for _, block, chosen in drawn_blocks(folders, plan)])).tolist())
        )
    assert results[0] == results[1] == results[2]


def test_the_folder_of_a_piece_that_a_killed_run_left_is_removed(world: Make, tmp_path: Path) -> None:
    whole = drawn(world(), tmp_path / "whole")
    torn = tmp_path / "out" / ".work" / "cells" / ".000003.tmp"
    curate(world(work={"part": "1/50"}), tmp_path / "out")
    torn.mkdir()
    (torn / "ids.npy").write_bytes(b"half")
    assert drawn(world(), tmp_path / "out") == whole
    assert not torn.exists()


def test_a_smaller_total_is_a_part_of_a_larger_one(world: Make, tmp_path: Path) -> None:
    far = {"min_distance_m": 300_000.0}
    for name, more in (("near", {}), ("far", {"draw": far})):
        small, large = (drawn(world(places=m, **more), tmp_path / f"{name}{m}") for m in (300, 900))
        tables = (pq.read_table(tmp_path / f"{name}{m}" / "strata.parquet") for m in (300, 900))
        grows = np.greater_equal(*(table["drawn"].to_numpy() for table in reversed(list(tables))))
        keys = pq.read_table(tmp_path / f"{name}300" / "strata.parquet")["stratum"].to_numpy()[grows]
        rows = pq.read_table(tmp_path / f"{name}300" / "cells.parquet").to_pylist()
        assert {row["cell"] for row in rows if row["stratum"] in keys} <= large
        assert len(small) == 300 and 850 < len(large) <= 900 and grows.mean() > 0.9


def test_drawn_cells_keep_their_distance(world: Make, tmp_path: Path) -> None:
    found = drawn(world(places=200, draw={"min_distance_m": 900_000.0}), tmp_path / "out")
    lon, lat = np.radians(GRID.centres(np.array(sorted(found))))
    points = 6_371_000 * np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1) + 1e9 * np.eye(len(points))
    assert 190 < len(found) <= 200
    assert gaps.min() > 900_000 * 0.993  # a sphere against the ellipsoid
    table = pq.read_table(tmp_path / "out" / "strata.parquet")
    assert (table["drawn"].to_numpy() >= 1).all()  # distance costs no stratum its one cell where there is room


def test_too_large_a_distance_draws_what_fits_and_says_so(world: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = drawn(world(draw={"min_distance_m": 1_000_000.0}), out)
    assert 150 < len(found) < 1500
    assert sum(pq.read_table(out / "strata.parquet")["drawn"].to_pylist()) == len(found)


def test_budgets_draw_in_their_own_areas(world: Make, tmp_path: Path) -> None:
    budgets = [
        {"name": "east", "places": 400, "regions": ["c", "d"], "min_quarters": 4},
        {"name": "elsewhere", "places": 700},
    ]
    out = tmp_path / "out"
    drawn(world(places=None, draw={"budgets": budgets}), out)
    rows = pq.read_table(out / "cells.parquet").to_pylist()
    assert sum(row["budget"] == "east" for row in rows) == 400 and len(rows) == 1100
    assert all((row["lon"] >= 0) == (row["budget"] == "east") == (row["min_quarters"] == 4) for row in rows)
    strata = pq.read_table(out / "strata.parquet").to_pylist()
    east = [row for row in strata if row["budget"] == "east"]
    forest = sum(row["cells"] for row in east if row["land_cover"] == "forest")
    for row in east:
        if row["land_cover"] == "forest":  # N_p counts the cells of the budget's own area
            assert row["alpha"] == pytest.approx(max(1, 400 / 4 * row["cells"] / forest))
    with pytest.raises(DataError, match="names regions that are none: atlantis"):
        drawn(world(places=None, draw={"budgets": [{"name": "x", "places": 9, "regions": ["atlantis"]}]}), tmp_path / "no")


def test_hold_outs_are_gone_before_counting_on_both_sides_of_the_antimeridian(world: Make, tmp_path: Path) -> None:
    settings = world(hold_out=tmp_path / "held.geojson", places=None, chip_px=1000, gsd_m=100)
    found = np.array(sorted(drawn(settings, tmp_path / "out")))
    ids, _, _ = described()
    away = np.isin(ids, found)
    near = ~away
    lon, lat = GRID.centres(ids)
    held = gpd.read_file(tmp_path / "held.geojson").geometry.iloc[0]
    for turn in (-360, 0, 360):
        assert not shapely.intersects(held, chip_boxes(lon[away] + turn, lat[away], 100_000.0)).any()
        near &= ~shapely.intersects(held, chip_boxes(lon + turn, lat, 3 * 100_000.0))
    assert not near.any() and len(found) < len(ids)  # what was dropped lies within a chip's side
    total = sum(pq.read_table(tmp_path / "out" / "strata.parquet")["cells"].to_pylist())
    assert total == len(found)


def test_cells_that_meet_an_excluded_footprint_are_never_drawn(world: Make, tmp_path: Path) -> None:
    """Footprints smaller than a cell, over the antimeridian, on a border of cells, and at a pole."""
    ids, _, keys = described()
    corner = GRID.bounds(ids[len(ids) // 2])[:2]  # of four cells
    prints = [shapely.box(10.1, 45.1, 10.2, 45.2), shapely.box(179.9, 60.0, 180.4, 60.1), shapely.Point(corner).buffer(1e-6)]
    prints.append(shapely.box(-180, 89.99, 180, 90))
    path = tmp_path / "benchmark.geojson"
    gpd.GeoDataFrame(geometry=prints, crs=4326).to_file(path)
    out = tmp_path / "out"
    found = drawn(world(exclude=[path], places=None), out)
    west, south, east, north = GRID.bounds(ids).T
    met = np.zeros(len(ids), bool)
    for shape in prints:
        a, b, c, d = shape.bounds
        for turn in (-360, 0, 360):
            met |= (west <= c + turn) & (east >= a + turn) & (south <= d) & (north >= b)
    assert 8 <= met.sum() < 40
    assert found == set(ids[~met].tolist())
    steps = json.loads((out / "funnel.json").read_text())["steps"]
    summary = json.loads((out / "manifest.json").read_text())["summary"]
    assert steps["cells_excluded"] == summary["excluded"]["cells"] == met.sum() and steps["cells"] == (~met).sum()
    strata = pq.read_table(out / "strata.parquet").to_pylist()
    assert {row["stratum"]: row["cells"] for row in strata} == Counter(np.array(keys)[~met].tolist())  # gone before counting
    with pytest.raises(DataError, match="no pictures to compare"):
        drawn(world(exclude=[tmp_path]), tmp_path / "no")


def test_more_places_than_cells_draw_the_world(world: Make, tmp_path: Path) -> None:
    ids, _, _ = described()
    for number, more in enumerate(({}, {"draw": {"min_distance_m": 1.0}}, {"shortage": "keep_shares"})):
        found = drawn(world(places=10**9, **more), tmp_path / str(number))
        assert found == set(ids.tolist())


def test_fewer_places_than_strata_is_refused_or_leaves_the_smallest_empty(world: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"strata each give at least one cell.*but only 5"):
        drawn(world(places=5), tmp_path / "no")
    found = drawn(world(places=5, draw={"small_budget": "empty_strata"}), tmp_path / "yes")
    strata = pq.read_table(tmp_path / "yes" / "strata.parquet").to_pylist()
    assert len(found) == 5 == sum(row["drawn"] for row in strata)
    assert min(row["alpha"] for row in strata) == 1.0
    weakest = max(
        row["cells"] / sum(r["cells"] for r in strata if r["land_cover"] == row["land_cover"])
        for row in strata
        if not row["drawn"]
    )
    assert all(
        row["cells"] / sum(r["cells"] for r in strata if r["land_cover"] == row["land_cover"]) >= weakest - 1e-9
        for row in strata
        if row["drawn"]
    )


def test_an_area_limits_the_land(world: Make, tmp_path: Path) -> None:
    area = tmp_path / "area.geojson"
    gpd.GeoDataFrame(geometry=[shapely.box(170.3, -20.3, 189.7, 20.3)], crs=4326).to_file(area)  # over the antimeridian
    found = np.array(sorted(drawn(world(draw={"area": area}, places=None), tmp_path / "out")))
    ids, _, _ = described()
    lon, lat = GRID.centres(ids)
    assert found.tolist() == ids[(np.abs(lon) > 170.3) & (np.abs(lat) < 20.3)].tolist()


def test_no_land_is_an_error(world: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no cell of the area"):
        drawn(world(land_cover_classes={99: "forest"}, land_cover_minimum={}), tmp_path / "out")


def test_heavier_cells_come_first_and_weight_0_never(world: Make, tmp_path: Path, tif: Callable[..., Path]) -> None:
    lights = np.zeros((37, 73), np.float32)
    lights[:, 24:48], lights[:, 48:] = 1, 4
    path = tif(tmp_path / "lights.tif", lights, -180.0, 90.0, gsd=PIXEL, crs="EPSG:4326", nodata=-1)
    draw = {"weights": [{"layer": path, "base": 0.0}]}
    settings = world(draw=draw, regions=None, elevation=None, land_cover_classes={10: "forest", 30: "forest"}, places=1200)
    lon, _ = GRID.centres(np.array(sorted(drawn(settings, tmp_path / "out"))))
    first, second = -180 + 24 * PIXEL, -180 + 48 * PIXEL
    assert (lon > first).all()
    ids, code, _ = described()
    where = GRID.centres(ids[np.isin(code, [10, 30])])[0]
    middle, east = (where > first) & (where < second), where > second
    # Poisson-like drawing without replacement: a cell of weight w is in with 1 - exp(-w t)
    share = ((lon < second).sum() / middle.sum(), (lon > second).sum() / east.sum())
    assert np.log1p(-share[1]) / np.log1p(-share[0]) == pytest.approx(4, rel=0.2)
