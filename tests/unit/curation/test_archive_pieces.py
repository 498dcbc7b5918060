"""An archive's places, found piece by piece of the grid: the same as in one pass, by any jobs, after an interruption."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.curation.archive import begin_archive
from cgeartheye.curation.archive_pieces import DrawnPlaces, find_piece, read_places, scenes_by_piece
from cgeartheye.curation.candidates import cells_of, chip_boxes, find_candidates, place_centres
from cgeartheye.curation.covariates import describe_cells
from cgeartheye.curation.described import ROWS, SECTORS, folder_of, numbers_of
from cgeartheye.curation.land import pieces_of
from cgeartheye.curation.parts import Part
from cgeartheye.curation.piece_draw import plan_pieces
from cgeartheye.curation.pieces import Workers
from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.geometry.crs import split_antimeridian
from cgeartheye.progress import SILENT
from cgeartheye.settings.curate import CurateSettings

GRID = CellGrid(20_000)
SIDE_M = 9_000.0
PIXEL = 0.1


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tif: Callable[..., Path]) -> CurateSettings:
    """Settings with layers of the whole world, two places a cell."""
    root = tmp_path_factory.mktemp("layers")
    random = np.random.default_rng(0)
    cover = random.choice(np.array([10, 30, 50, 80, 0], np.uint8), (1800, 3600))
    height = random.integers(-100, 4000, (1800, 3600)).astype(np.int16)
    boxes = [shapely.box(-180, -90, -20, 90), shapely.box(-20, -90, 180, 90)]
    gpd.GeoDataFrame({"name": ["a", "b"]}, geometry=boxes, crs=4326).to_file(root / "regions.geojson")
    return CurateSettings.model_validate(
        {
            "land_cover": tif(root / "cover.tif", cover, -180.0, 90.0, gsd=PIXEL, crs="EPSG:4326"),
            "elevation": tif(root / "height.tif", height, -180.0, 90.0, gsd=PIXEL, crs="EPSG:4326", nodata=-9999),
            "regions": root / "regions.geojson",
            "cell_m": GRID.cell_m,
            "places_per_cell": 2,
            "chips": {"jitter": 0.5},
            "seed": 3,
        }
    )


def scene(west: float, south: float, width: float, height: float, day: int) -> Any:
    area = split_antimeridian(shapely.box(west, south, west + width, min(south + height, 90)))
    return SimpleNamespace(footprint=area, date=dt.date(2023, 1 + day % 12, 1 + day // 12))


def archive_of(seed: int, n: int) -> list[Any]:
    """Scenes everywhere, many at the antimeridian, at poles and at borders of pieces."""
    random = np.random.default_rng(seed)
    borders = [-180, -108, -36, 36, 108, 180]
    found = []
    for _ in range(n):
        west = random.choice(borders) - random.uniform(0, 4) if random.random() < 0.7 else random.uniform(-180, 170)
        south = random.choice([random.uniform(-90, 88), 88.5, -90.0, ROWS * GRID.row_height_deg * 4 - 91])
        size = random.uniform(0.3, 6, 2)
        found.append(scene(float(west), float(south), float(size[0]), float(size[1]), int(random.integers(0, 8))))
    return found


def in_pieces(scenes: Sequence[Any], chosen: CurateSettings, work: Path, order: int = 1) -> list[Path]:
    folders = []
    for number, near in list(scenes_by_piece(scenes, GRID, SIDE_M).items())[::order]:
        folders.append(folder_of(work, number))
        find_piece(chosen, [scenes[i] for i in near.tolist()], near, SIDE_M, number, folders[-1])
    return sorted(folders)


def rows(places: DrawnPlaces) -> list[tuple[Any, ...]]:
    names = ("cells", "slots", "lon", "lat", "region", "land_cover", "elevation_m")
    columns = [getattr(places, name).tolist() for name in names]
    strata = [places.strata[number] for number in places.stratum]
    scenes = [places.scenes_of(place) for place in range(len(places))]
    return sorted(zip(*columns, strata, scenes, strict=True))


def test_cells_belong_to_the_pieces_that_a_draw_from_land_is_made_of() -> None:
    pieces = pieces_of(GRID)
    ids = GRID.in_rows(0, GRID.rows)
    numbers = numbers_of(GRID, ids)
    assert numbers.max() == len(pieces) - 1
    for number in (0, 3, 7, len(pieces) - 1):
        assert np.array_equal(ids[numbers == number], pieces[number].cells(GRID).ids)


@given(st.lists(st.integers(0, GRID.rows - 1), min_size=1, max_size=5), st.floats(0, 0.999))
def test_a_piece_number_is_that_of_rows_and_sector(some: list[int], along: float) -> None:
    row = np.array(sorted(set(some)))
    count = GRID.columns(row)
    column = (along * count).astype(np.int64)
    found = numbers_of(GRID, (row << 32) + column)
    sector = found % SECTORS
    assert (found // SECTORS == row // ROWS).all()
    assert ((count * sector // SECTORS <= column) & (column < count * (sector + 1) // SECTORS)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_places_are_those_that_one_look_at_all_scenes_finds(world: CurateSettings, tmp_path: Path, seed: int) -> None:
    """Chips are compared with the union of a date one by one; layers are looked up for all cells at once."""
    scenes = archive_of(seed, 60)
    folders = in_pieces(scenes, world, tmp_path, order=-1)
    assert len(folders) > 10
    plan, n_cells = plan_pieces(folders, world)
    found = read_places(folders, plan)
    cells = cells_of(scenes, GRID)
    lon, lat = place_centres(GRID, cells.ids, SIDE_M, 2, jitter=0.5, seed=3)
    boxes = chip_boxes(lon, lat, SIDE_M)
    dates = sorted({one.date for one in scenes})
    inside = np.zeros((len(dates), len(boxes)), bool)
    for number, date in enumerate(dates):
        area = shapely.union_all([one.footprint.buffer(1e-8, join_style="mitre") for one in scenes if one.date == date])
        shapely.prepare(area)
        inside[number] = shapely.contains(area, boxes)
    expected = []
    at = np.flatnonzero(inside.any(axis=0))
    described = describe_cells(cells, world)
    for place in at.tolist():
        cell, slot = divmod(place, 2)
        meet = [
            number
            for number, one in enumerate(scenes)
            if inside[dates.index(one.date), place] and one.footprint.intersects(boxes[place])
        ]
        of_cell = (described.region[cell], described.land_cover[cell], described.elevation_m[cell])
        expected.append((cells.ids[cell], slot, lon[place], lat[place], *(value.item() for value in of_cell), tuple(meet)))
    assert n_cells == len({one[0] for one in expected})
    assert [(*one[:7], one[8]) for one in rows(found)] == sorted(expected)
    assert len(np.unique(np.array([one[0] for one in expected]) >> 32)) > 50


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12))
def test_a_piece_is_given_every_scene_that_meets_its_chips(seed: int, n: int) -> None:
    scenes = archive_of(seed, n)
    near = scenes_by_piece(scenes, GRID, SIDE_M)
    found = find_candidates(scenes, cells_of(scenes, GRID), SIDE_M, 1)
    pieces = numbers_of(GRID, found.cells)
    for place, piece in enumerate(pieces.tolist()):
        assert set(found.scenes_of(place)) <= set(near[piece].tolist())


def test_a_part_of_the_places_is_drawn_by_their_cells(world: CurateSettings, tmp_path: Path) -> None:
    scenes = archive_of(2, 40)
    whole = world.model_copy(update={"places": None})
    folders = in_pieces(scenes, whole, tmp_path)
    everything = rows(read_places(folders, plan_pieces(folders, whole)[0]))
    some = world.model_copy(update={"places": 800})
    plan, _ = plan_pieces(folders, some)
    found = rows(read_places(folders, plan))
    assert len({row[0] for row in found}) == 400 == plan.given.sum()  # two places a cell
    assert set(found) < set(everything)
    assert {row for row in everything if row[0] in {one[0] for one in found}} == set(found)


def counted(monkeypatch: pytest.MonkeyPatch, then: Callable[[list[int]], None] = lambda _: None) -> list[int]:
    """Let every piece that is made be noted, and something be done before it is."""
    made: list[int] = []

    def find(*arguments: Any) -> None:
        made.append(arguments[4])
        then(made)
        find_piece(*arguments)

    monkeypatch.setattr("cgeartheye.curation.archive.find_piece", find)
    return made


def test_pieces_that_are_there_are_read_and_a_lost_one_is_made_anew(
    archive_settings: Callable[..., CurateSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, made = archive_settings(), counted(monkeypatch)
    whole = begin_archive(chosen, tmp_path, Workers(0, SILENT))
    n, lost = len(made), made[0]
    shutil.rmtree(folder_of(tmp_path / ".work", lost))
    again = begin_archive(chosen, tmp_path, Workers(0, SILENT))
    assert made[n:] == [lost]
    assert again.counts == whole.counts and list(again.tasks) == list(whole.tasks)


def test_jobs_of_an_array_find_each_piece_once_and_have_all(
    archive_settings: Callable[..., CurateSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second part runs while the first is at its first piece, which both of them then make."""
    # a piece of ROWS rows of 5 m: the archive lies in several
    chosen = archive_settings(cell_m=5, places=300)
    whole = begin_archive(chosen, tmp_path / "whole", Workers(0, SILENT))

    def other_part(made: list[int]) -> None:
        if len(made) == 1:
            again = begin_archive(chosen, tmp_path / "parts", Workers(0, SILENT, part=Part(2, 2)))
            assert list(again.tasks) == list(whole.tasks)

    made = counted(monkeypatch, other_part)
    found = begin_archive(chosen, tmp_path / "parts", Workers(0, SILENT, part=Part(1, 2)))
    assert list(found.tasks) == list(whole.tasks) and found.counts == whole.counts
    assert len(set(made)) > 1 and len(made) == len(set(made)) + 1
    assert not list((tmp_path / "parts" / ".work").rglob(".*"))


def test_a_draw_that_is_refused_leaves_nothing_that_other_settings_would_be_refused_for(
    archive_settings: Callable[..., CurateSettings], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="strata"):
        begin_archive(archive_settings(places=2), tmp_path, Workers(0, SILENT))
    assert not list(tmp_path.iterdir())
