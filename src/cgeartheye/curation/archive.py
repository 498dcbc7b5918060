"""`source: archive`: from catalogue and layers to the places whose chips are to be cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from cgeartheye.curation.candidates import Candidates, find_candidates, outside_hold_out
from cgeartheye.curation.covariates import NONE, Described, in_area
from cgeartheye.curation.described import describe_in_pieces
from cgeartheye.curation.exclusion import outside_excluded
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.parts import cut_list
from cgeartheye.curation.pieces import Workers
from cgeartheye.curation.places import PlaceBlock, Spot
from cgeartheye.curation.reuse import work_folder
from cgeartheye.curation.strata import Drawn, cells_table, draw_cells
from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid, split
from cgeartheye.geometry.curve import along_curve
from cgeartheye.rasters.scenes import Scene, read_scenes
from cgeartheye.seeding import derive
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.writer import write_table

Ints = NDArray[np.int64]
CATALOG_NAME: Final = "catalog.parquet"


@dataclass(frozen=True)
class Begun:
    """The work that the draw decided on: blocks of places, and the funnel so far."""

    tasks: Sequence[PlaceBlock]
    counts: dict[str, int]


def begin_archive(settings: CurateSettings, out: Path, workers: Workers) -> Begun:
    """Find cells, describe and draw them; write ``cells.parquet`` and ``strata.parquet``.

    Raises:
        DataError: if the catalogue is empty, no chip fits a scene, or several dates nowhere overlap.
    """
    scenes = _scenes(settings)
    gsd_m = settings.gsd_m or float(np.median([scene.gsd_m for scene in scenes]))
    side_m = settings.chip_px * gsd_m
    grid, jitter = CellGrid(settings.cell_m), settings.chips.jitter
    found = find_candidates(scenes, grid, side_m, settings.places_per_cell, jitter=jitter, seed=settings.seed)
    counts = {"scenes": len(scenes), "cells_covered": len(np.unique(found.cells))}
    _refuse_disjoint(found, scenes, settings, side_m)
    if settings.hold_out is not None:
        found = found.take(outside_hold_out(found.lon, found.lat, settings.hold_out, side_m))
    counts["cells_outside_hold_out"] = len(np.unique(found.cells))
    if any(not path.is_dir() for path in settings.exclude):
        found = found.take(outside_excluded(found, settings, side_m))
        counts["cells_excluded"] = counts["cells_outside_hold_out"] - len(np.unique(found.cells))
    if not len(found.cells):
        where = str(settings.hold_out or "curate.exclude")
        raise DataError("hold-out and exclusion leave no cell", where=where, remedy="make their polygons smaller")
    found, cells, described = _describe(found, settings, work_folder(out), workers)
    counts["cells_in_budgets"] = len(cells)
    drawn = draw_cells(cells, described, settings)
    write_table(out / "cells.parquet", cells_table(cells, described, drawn.strata, drawn.chosen, settings))
    write_table(out / "strata.parquet", drawn.plan.table([budget.name for budget in settings.draw.budgets]))
    chosen = found.take(drawn.chosen[np.searchsorted(cells.ids, found.cells)])
    n_strata = len(drawn.plan.keys)
    counts |= {"strata": n_strata, "cells_drawn": int(drawn.chosen.sum()), "places_drawn": len(chosen.cells)}
    places = f"{len(chosen.cells)} places of {n_strata} strata"
    workers.progress.say(f"{counts['cells_covered']} cells in {len(scenes)} scenes: {places}")
    return Begun(PlaceBlocks(chosen, (cells, described, drawn), scenes, settings, gsd_m), counts)


def _describe(found: Candidates, settings: CurateSettings, work: Path, workers: Workers) -> tuple[Candidates, Cells, Described]:
    """Describe the cells of candidates; drop those outside the area and the budgets, or seen in too few quarters."""
    cells = Cells(CellGrid(settings.cell_m), np.unique(found.cells))
    if settings.draw.area is not None:
        cells = cells.take(in_area(cells, settings.draw.area))
        found = found.take(np.isin(found.cells, cells.ids))
        _refuse_none(cells)
    described = describe_in_pieces(cells, settings, work, workers)
    if settings.draw.budgets:
        least = np.array([*(budget.min_quarters for budget in settings.draw.budgets), 5])  # the last is for budget -1
        found = found.take(found.n_quarters >= least[described.budget[np.searchsorted(cells.ids, found.cells)]])
        kept = np.isin(cells.ids, found.cells)
        cells, described = cells.take(kept), described.take(kept)
        _refuse_none(cells)
    return found, cells, described


def _refuse_none(cells: Cells) -> None:
    if not len(cells):
        raise DataError(
            "no cell that scenes cover lies in the area and the budgets, in enough quarters",
            where="curate.draw",
            remedy="widen curate.draw.area, add a budget without regions and area, or lower min_quarters",
        )


def _scenes(settings: CurateSettings) -> list[Scene]:
    if settings.catalog is None:
        raise DataError("no catalogue is given", where="curate.catalog")
    path = settings.catalog / CATALOG_NAME if settings.catalog.is_dir() else settings.catalog
    scenes = sorted(read_scenes(path), key=lambda scene: (scene.date, scene.id))
    if not scenes:
        raise DataError(
            "the catalogue holds no scene", where=str(path), remedy="left_out.json beside it says why scenes were left out"
        )
    return scenes


def _refuse_disjoint(found: Candidates, scenes: Sequence[Scene], settings: CurateSettings, side_m: float) -> None:
    """Stop where no chip fits a scene, or where dates never meet although seasons were hoped for."""
    if not len(found.cells):
        raise DataError(
            f"no chip of {settings.chip_px} px ({side_m:.0f} m) around a cell's centre fits into any of {len(scenes)} scenes",
            where=str(settings.catalog),
            remedy="set a smaller curate.chip_px or curate.cell_m",
        )
    dates = {scene.date for scene in scenes}
    wanted = settings.min_dates or min(2, len(dates))
    if found.n_dates.max() < wanted:
        raise DataError(
            f"the {len(dates)} dates of {len(scenes)} scenes do not overlap: "
            f"no place has more than {found.n_dates.max()} of {wanted} dates wanted",
            where=str(settings.catalog),
            remedy="check dates and georeference in the catalogue, or set curate.min_dates: 1 to curate single dates",
        )


class PlaceBlocks(Sequence[PlaceBlock]):
    """The list of pieces: blocks of places that lie together and know only the scenes they need.

    A block is put together when it is asked for, so that ten million places are arrays until then, and not objects.

    Args:
        chosen: the drawn places.
        known: the cells that hold them, ascending, what they are, and their strata.
        scenes: of the catalogue.
        settings: of the stage.
        gsd_m: pixel of the chips.
    """

    def __init__(
        self,
        chosen: Candidates,
        known: tuple[Cells, Described, Drawn],
        scenes: Sequence[Scene],
        settings: CurateSettings,
        gsd_m: float,
    ) -> None:
        self._chosen = chosen.take(np.lexsort((chosen.slots, chosen.cells, along_curve(chosen.lon, chosen.lat))))
        cells, self._described, drawn = known
        self._at = np.searchsorted(cells.ids, self._chosen.cells)
        self._strata = drawn.strata
        self._regions = (*self._described.regions, NONE)  # the last is that of -1
        self._classes = (*self._described.classes, NONE)
        self._scenes, self._settings, self._gsd_m = scenes, settings, gsd_m
        self._runs = list(cut_list(range(len(self._at)), settings.work.piece_places, self._number_of))

    def _number_of(self, place: int) -> int:
        return derive(0, "end of a piece", int(self._chosen.cells[place]))

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, number: int) -> PlaceBlock: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[PlaceBlock]: ...
    def __getitem__(self, number: int | slice) -> PlaceBlock | Sequence[PlaceBlock]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        spots = tuple(self._spot(place) for place in self._runs[number])
        needed = sorted({scene for spot in spots for scene in spot.scenes})
        return PlaceBlock(spots, {scene: self._scenes[scene] for scene in needed}, self._settings, self._gsd_m)

    def _spot(self, place: int) -> Spot:
        chosen, described, at = self._chosen, self._described, int(self._at[place])
        row, column = (int(part[0]) for part in split(chosen.cells[place : place + 1]))
        slot = f"_{chosen.slots[place]}" if self._settings.places_per_cell > 1 else ""
        elevation = float(described.elevation_m[at])
        return Spot(
            name=f"c{row}_{column}{slot}",
            lon=float(chosen.lon[place]),
            lat=float(chosen.lat[place]),
            cell=int(chosen.cells[place]),
            region=self._regions[described.region[at]],
            land_cover=self._classes[described.land_cover[at]],
            elevation_m=None if math.isnan(elevation) else elevation,
            stratum=self._strata[at].as_py(),
            scenes=chosen.scenes[place],
        )
