"""Pieces of the grid that an archive's scenes cover: their places, found, filtered and described each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from cgeartheye.curation.candidates import Candidates, Covered, cells_of, find_candidates, outside_hold_out, take_runs
from cgeartheye.curation.covariates import Described, describe_cells, in_area
from cgeartheye.curation.described import ROWS, SECTORS, numbers_of, read_array, read_described, write_piece
from cgeartheye.curation.exclusion import outside_excluded
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.piece_draw import drawn_blocks
from cgeartheye.curation.strata import Plan
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.rasters.scenes import Scene
from cgeartheye.settings.curate import CurateSettings

Ints = NDArray[np.int64]


def scenes_by_piece(scenes: Sequence[Scene], grid: CellGrid, side_m: float) -> dict[int, Ints]:
    """Return for each piece of the grid that may hold places the positions of the scenes that may meet their chips, ascending."""
    boxes, piece = _surroundings(grid, side_m)
    near, scene = shapely.STRtree([scene.footprint for scene in scenes]).query(boxes, predicate="intersects")
    pairs = np.unique(np.column_stack([piece[near], scene]), axis=0)
    present, starts = np.unique(pairs[:, 0], return_index=True)
    return dict(zip(present.tolist(), np.split(pairs[:, 1], starts[1:]), strict=True))


def _surroundings(grid: CellGrid, side_m: float) -> tuple[NDArray[np.object_], Ints]:
    """Return boxes in degrees that hold all chips of each piece, some of them a turn to the west or east, and whose they are."""
    piece = np.arange(-(-grid.rows // ROWS) * SECTORS)
    row, sector = piece // SECTORS * ROWS, piece % SECTORS
    up = (1.5 * grid.cell_m + 2 * side_m) / 110_000
    south = row * grid.row_height_deg - 90 - up
    north = np.minimum(row + ROWS, grid.rows) * grid.row_height_deg - 90 + up
    top = np.maximum(np.abs(south), np.abs(north))
    across = np.where(top > 89, 360.0, up / np.cos(np.radians(np.minimum(top, 89))))
    west, east = sector * 360 / SECTORS - 180 - across, (sector + 1) * 360 / SECTORS - 180 + across
    turns = np.repeat([-360, 0, 360], len(piece))
    west, south, east, north = (np.tile(edge, 3) for edge in (west, south, east, north))
    return shapely.box(west + turns, south, east + turns, north), np.tile(piece, 3)


def find_piece(settings: CurateSettings, scenes: Sequence[Scene], numbers: Ints, side_m: float, piece: int, folder: Path) -> None:
    """Find the places of a piece, leave out what must be, describe the cells of the others, and store all in ``folder``.

    Args:
        settings: of the stage.
        scenes: that may meet one of its chips.
        numbers: (s,) their positions in the catalogue.
        side_m: side of a chip.
        piece: its number.
        folder: appears when all of it is written.
    """
    grid = CellGrid(settings.cell_m)
    cells = cells_of(scenes, grid)
    own = cells.take(numbers_of(grid, cells.ids) == piece)
    per_cell, jitter = settings.places_per_cell, settings.chips.jitter
    found = find_candidates(scenes, own, side_m, per_cell, jitter=jitter, seed=settings.seed)
    notes = {"covered": _n_cells(found), "most_dates": int(found.n_dates.max(initial=0))}
    if settings.hold_out is not None:
        found = found.take(outside_hold_out(found.lon, found.lat, settings.hold_out, side_m))
    notes["outside_hold_out"] = _n_cells(found)
    found = found.take(outside_excluded(found, settings, side_m))
    notes["not_excluded"] = _n_cells(found)
    found, cells, described = _describe(found, grid, settings)
    at = np.searchsorted(cells.ids, found.cells)
    places = {"cell": at, "slot": found.slots, "lon": found.lon, "lat": found.lat, "first": found.first}
    arrays = {f"place_{name}": values for name, values in places.items()}
    arrays["place_scenes"] = numbers[found.scenes].astype(np.int32)
    write_piece(folder, cells, described, seed=settings.seed, arrays=arrays, notes=notes)


def _n_cells(found: Candidates) -> int:
    return len(np.unique(found.cells))


def _describe(found: Candidates, grid: CellGrid, settings: CurateSettings) -> tuple[Candidates, Cells, Described]:
    """Describe the cells of candidates; drop those outside the area and the budgets, or seen in too few quarters."""
    cells = Cells(grid, np.unique(found.cells))
    if settings.draw.area is not None and len(cells):
        cells = cells.take(in_area(cells, settings.draw.area))
        found = found.take(np.isin(found.cells, cells.ids))
    described = describe_cells(cells, settings)
    if settings.draw.budgets:
        least = np.array([*(budget.min_quarters for budget in settings.draw.budgets), 5])  # the last is for budget -1
        found = found.take(found.n_quarters >= least[described.budget[np.searchsorted(cells.ids, found.cells)]])
        kept = np.isin(cells.ids, found.cells)
        cells, described = cells.take(kept), described.take(kept)
    return found, cells, described


@dataclass(frozen=True)
class DrawnPlaces(Covered):
    """The n drawn places, in the order in which pieces hold them; their scenes are positions in the catalogue.

    Args:
        region, land_cover, stratum: (n,) numbers that count ``regions``, ``classes`` and ``strata``; -1 for none.
        elevation_m: (n,) float32, NaN where unknown.
        regions, classes, strata: names.
    """

    region: NDArray[np.int32]
    land_cover: NDArray[np.int8]
    stratum: NDArray[np.int32]
    elevation_m: NDArray[np.float32]
    regions: tuple[str, ...]
    classes: tuple[str, ...]
    strata: tuple[str, ...]


def read_places(folders: list[Path], plan: Plan) -> DrawnPlaces:
    """Return the places of the drawn cells of all pieces."""
    parts: dict[str, list[NDArray[Any]]] = {}
    n_scenes = 0
    names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    for folder, block, drawn in drawn_blocks(folders, plan):
        cell = read_array(folder, "place_cell")
        at = np.flatnonzero(drawn[cell])
        first, scenes = take_runs(read_array(folder, "place_first"), read_array(folder, "place_scenes"), at)
        described = read_described(folder, drawn)
        names = described.regions, described.classes
        number = (np.cumsum(drawn) - 1)[cell[at]]
        found = {name: getattr(described, name)[number] for name in ("region", "land_cover", "elevation_m")}
        found |= {"cells": block.ids[cell[at]], "stratum": block.stratum[cell[at]].astype(np.int32)}
        found |= {"slots": read_array(folder, "place_slot")[at], "scenes": scenes, "first": first[:-1] + n_scenes}
        found |= {name: read_array(folder, f"place_{name}")[at] for name in ("lon", "lat")}
        n_scenes += len(scenes)
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    parts["first"].append(np.array([n_scenes]))
    columns: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
    return DrawnPlaces(**columns, regions=names[0], classes=names[1], strata=tuple(plan.keys))
