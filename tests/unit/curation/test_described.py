"""What layers say of cells is the same in one piece, in many, by many, and after an interruption."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.curation.covariates import Described, describe_cells
from cgeartheye.curation.described import ROWS, SECTORS, describe_in_pieces, folder_of, piece_numbers
from cgeartheye.curation.land import pieces_of
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.parts import Part
from cgeartheye.curation.pieces import Workers
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.progress import SILENT
from cgeartheye.settings.curate import CurateSettings

GRID = CellGrid(40_000)
PIXEL = 0.2


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory, tif: Callable[..., Path]) -> CurateSettings:
    root = tmp_path_factory.mktemp("layers")
    random = np.random.default_rng(0)
    cover = random.choice(np.array([10, 30, 50, 80, 0], np.uint8), (900, 1800))
    height = random.integers(-100, 4000, (900, 1800)).astype(np.int16)
    boxes = [shapely.box(-180, -90, -20, 90), shapely.box(-20, -90, 180, 90)]
    gpd.GeoDataFrame({"name": ["a", "b"]}, geometry=boxes, crs=4326).to_file(root / "regions.geojson")
    return CurateSettings.model_validate(
        {
            "source": "land",
            "land_cover": tif(root / "cover.tif", cover, -180.0, 90.0, gsd=PIXEL, crs="EPSG:4326"),
            "elevation": tif(root / "height.tif", height, -180.0, 90.0, gsd=PIXEL, crs="EPSG:4326", nodata=-9999),
            "regions": root / "regions.geojson",
            "cell_m": GRID.cell_m,
            "draw": {"weights": [{"layer": root / "cover.tif", "measure": "mean", "scale": 10}]},
            "workers": 0,
        }
    )


@pytest.fixture(scope="module")
def some() -> Cells:
    """A tenth of the world's cells, with both sides of the antimeridian and both poles."""
    ids = GRID.in_rows(0, GRID.rows)
    return Cells(GRID, ids[(np.random.default_rng(1).random(len(ids)) < 0.1) | (ids >> 32 < 2) | (ids >> 32 > GRID.rows - 3)])


def _same(one: Described, other: Described) -> None:
    for field in fields(Described):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        assert type(mine) is type(theirs), field.name
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)


def test_cells_belong_to_the_pieces_that_a_draw_from_land_is_made_of() -> None:
    pieces = pieces_of(GRID)
    cells = Cells(GRID, GRID.in_rows(0, GRID.rows))
    numbers = piece_numbers(cells)
    assert numbers.max() == len(pieces) - 1
    for number in (0, 3, 7, len(pieces) - 1):
        assert np.array_equal(cells.ids[numbers == number], pieces[number].cells(GRID).ids)
    assert len(pieces) == -(-GRID.rows // ROWS) * SECTORS


def test_pieces_say_what_one_pass_says(layers: CurateSettings, some: Cells, tmp_path: Path) -> None:
    whole = describe_cells(some, layers)
    assert whole.shares is not None and whole.weight is not None
    _same(describe_in_pieces(some, layers, tmp_path, Workers(0, SILENT)), whole)


def test_what_is_there_is_read_and_what_was_lost_is_made_anew(
    layers: CurateSettings, some: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = describe_in_pieces(some, layers, tmp_path, Workers(0, SILENT))
    made: list[int] = []

    def counted(cells: Cells, settings: CurateSettings) -> Described:
        made.append(len(cells))
        return describe_cells(cells, settings)

    monkeypatch.setattr("cgeartheye.curation.described.describe_cells", counted)
    lost = folder_of(tmp_path, int(piece_numbers(some)[0]))
    shutil.rmtree(lost)
    lost.with_name(f".{lost.name}.01234567.tmp").mkdir()  # a killed run's
    _same(describe_in_pieces(some, layers, tmp_path, Workers(0, SILENT)), whole)
    assert made == [int((piece_numbers(some) == piece_numbers(some)[0]).sum())]


def test_jobs_of_an_array_describe_each_piece_once_and_have_all(
    layers: CurateSettings, some: Cells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second part runs while the first has described half of its own share."""
    whole = describe_cells(some, layers)
    made: list[int] = []

    def first_half_then_the_other_part(cells: Cells, settings: CurateSettings) -> Described:
        made.append(int(piece_numbers(cells)[0]))
        if len(made) == 5:
            _same(describe_in_pieces(some, layers, tmp_path, Workers(0, SILENT, part=Part(2, 2))), whole)
        return describe_cells(cells, settings)

    monkeypatch.setattr("cgeartheye.curation.described.describe_cells", first_half_then_the_other_part)
    _same(describe_in_pieces(some, layers, tmp_path, Workers(0, SILENT, part=Part(1, 2))), whole)
    n_pieces = len(pieces_of(GRID))
    assert sorted(set(made)) == list(range(n_pieces))
    assert len(made) == n_pieces + 1  # the one that was under way in the first part
    assert not list(tmp_path.rglob(".*"))


@given(st.lists(st.integers(0, GRID.rows - 1), min_size=1, max_size=5), st.floats(0, 0.999))
def test_a_piece_number_is_that_of_rows_and_sector(rows: list[int], along: float) -> None:
    row = np.array(sorted(set(rows)))
    count = GRID.columns(row)
    column = (along * count).astype(np.int64)
    found = piece_numbers(Cells(GRID, (row << 32) + column))
    sector = found % SECTORS
    assert (found // SECTORS == row // ROWS).all()
    assert ((count * sector // SECTORS <= column) & (column < count * (sector + 1) // SECTORS)).all()
