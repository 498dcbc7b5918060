"""`source: archive`: from catalogue and layers to the places whose chips are to be cut."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, overload

import numpy as np

from cgeartheye.curation.archive_pieces import DrawnPlaces, find_piece, read_places, scenes_by_piece
from cgeartheye.curation.covariates import NONE
from cgeartheye.curation.described import CELLS, folder_of, read_notes
from cgeartheye.curation.parts import cut_list
from cgeartheye.curation.piece_draw import plan_pieces, write_cells
from cgeartheye.curation.pieces import Workers
from cgeartheye.curation.places import PlaceBlock, Spot
from cgeartheye.curation.reuse import work_folder
from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid, split
from cgeartheye.geometry.curve import along_curve
from cgeartheye.rasters.scenes import Scene, read_scenes
from cgeartheye.seeding import derive
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.writer import write_table

CATALOG_NAME: Final = "catalog.parquet"


@dataclass(frozen=True)
class Begun:
    """The work that the draw decided on: blocks of places, and the funnel so far."""

    tasks: Sequence[PlaceBlock]
    counts: dict[str, int]


def begin_archive(settings: CurateSettings, out: Path, workers: Workers) -> Begun:
    """Find cells, describe and draw them; write ``cells.parquet`` and ``strata.parquet``.

    Jobs of an array need all pieces of the grid: each makes its own share, then what is missing when its turn comes.

    Raises:
        DataError: if the catalogue is empty, no chip fits a scene, or several dates nowhere overlap.
    """
    scenes = _scenes(settings)
    gsd_m = settings.gsd_m or float(np.median([scene.gsd_m for scene in scenes]))
    folders = _find_pieces(scenes, settings, settings.chip_px * gsd_m, work_folder(out), workers)
    try:
        counts = _count(folders, scenes, settings, settings.chip_px * gsd_m)
        plan, counts["cells_in_budgets"] = plan_pieces(folders, settings)
    except DataError:
        if workers.part is None:
            _forget(work_folder(out))
        raise
    write_cells(out / "cells.parquet", folders, plan, settings, all_cells=True)
    write_table(out / "strata.parquet", plan.table([budget.name for budget in settings.draw.budgets]))
    places = read_places(folders, plan)
    n_strata = len(plan.keys)
    counts |= {"strata": n_strata, "cells_drawn": int(plan.given.sum()), "places_drawn": len(places)}
    said = f"{len(places)} places of {n_strata} strata"
    workers.progress.say(f"{counts['cells_covered']} cells in {len(scenes)} scenes: {said}")
    return Begun(PlaceBlocks(places, scenes, settings, gsd_m), counts)


def _find_pieces(scenes: Sequence[Scene], settings: CurateSettings, side_m: float, work: Path, workers: Workers) -> list[Path]:
    """Make all pieces of the grid that may hold places; return their folders in order."""
    near = scenes_by_piece(scenes, CellGrid(settings.cell_m), side_m)
    numbers = sorted(near)
    folders = [folder_of(work, number) for number in numbers]

    def arguments(at: int) -> tuple[Any, ...]:
        some = near[numbers[at]]
        return settings, [scenes[i] for i in some.tolist()], some, side_m, numbers[at], folders[at]

    workers.run(find_piece, folders, arguments, title="cells", all_needed=True)
    return folders


def _forget(work: Path) -> None:
    """Remove the pieces of the grid, so that they are no reason to refuse other settings where nothing else was made."""
    shutil.rmtree(work / CELLS, ignore_errors=True)
    with contextlib.suppress(OSError):
        work.rmdir()


def _count(folders: Sequence[Path], scenes: Sequence[Scene], settings: CurateSettings, side_m: float) -> dict[str, int]:
    """Return the funnel up to here; raises DataError, see :func:`begin_archive`, where a step leaves nothing."""
    notes = [read_notes(folder) for folder in folders]
    counts = {"scenes": len(scenes), "cells_covered": sum(note["covered"] for note in notes)}
    _refuse_disjoint(counts["cells_covered"], max((note["most_dates"] for note in notes), default=0), scenes, settings, side_m)
    counts["cells_outside_hold_out"] = sum(note["outside_hold_out"] for note in notes)
    free = sum(note["not_excluded"] for note in notes)
    if any(not path.is_dir() for path in settings.exclude):
        counts["cells_excluded"] = counts["cells_outside_hold_out"] - free
    if not free:
        where = str(settings.hold_out or "curate.exclude")
        raise DataError("hold-out and exclusion leave no cell", where=where, remedy="make their polygons smaller")
    if not any(note["strata"] for note in notes):
        raise DataError(
            "no cell that scenes cover lies in the area and the budgets, in enough quarters",
            where="curate.draw",
            remedy="widen curate.draw.area, add a budget without regions and area, or lower min_quarters",
        )
    return counts


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


def _refuse_disjoint(n_cells: int, most_dates: int, scenes: Sequence[Scene], settings: CurateSettings, side_m: float) -> None:
    """Stop where no chip fits a scene, or where dates never meet although seasons were hoped for."""
    if not n_cells:
        raise DataError(
            f"no chip of {settings.chip_px} px ({side_m:.0f} m) around a cell's centre fits into any of {len(scenes)} scenes",
            where=str(settings.catalog),
            remedy="set a smaller curate.chip_px or curate.cell_m",
        )
    dates = {scene.date for scene in scenes}
    wanted = settings.min_dates or min(2, len(dates))
    if most_dates < wanted:
        raise DataError(
            f"the {len(dates)} dates of {len(scenes)} scenes do not overlap: "
            f"no place has more than {most_dates} of {wanted} dates wanted",
            where=str(settings.catalog),
            remedy="check dates and georeference in the catalogue, or set curate.min_dates: 1 to curate single dates",
        )


class PlaceBlocks(Sequence[PlaceBlock]):
    """The list of pieces: blocks of places that lie together and know only the scenes they need.

    A block is put together when it is asked for, so that ten million places are arrays until then, and not objects.

    Args:
        places: that were drawn.
        scenes: of the catalogue.
        settings: of the stage.
        gsd_m: pixel of the chips.
    """

    def __init__(self, places: DrawnPlaces, scenes: Sequence[Scene], settings: CurateSettings, gsd_m: float) -> None:
        self._places = places
        self._order = np.lexsort((places.slots, places.cells, along_curve(places.lon, places.lat)))
        self._regions, self._classes = (*places.regions, NONE), (*places.classes, NONE)  # the last is that of -1
        self._scenes, self._settings, self._gsd_m = scenes, settings, gsd_m
        self._runs = list(cut_list(range(len(places)), settings.work.piece_places, self._number_of))

    def _number_of(self, at: int) -> int:
        return derive(0, "end of a piece", int(self._places.cells[self._order[at]]))

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, number: int) -> PlaceBlock: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[PlaceBlock]: ...
    def __getitem__(self, number: int | slice) -> PlaceBlock | Sequence[PlaceBlock]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        spots = tuple(self._spot(int(self._order[at])) for at in self._runs[number])
        needed = sorted({scene for spot in spots for scene in spot.scenes})
        return PlaceBlock(spots, {scene: self._scenes[scene] for scene in needed}, self._settings, self._gsd_m)

    def _spot(self, place: int) -> Spot:
        places = self._places
        row, column = (int(part[0]) for part in split(places.cells[place : place + 1]))
        slot = f"_{places.slots[place]}" if self._settings.places_per_cell > 1 else ""
        elevation = float(places.elevation_m[place])
        return Spot(
            name=f"c{row}_{column}{slot}",
            lon=float(places.lon[place]),
            lat=float(places.lat[place]),
            cell=int(places.cells[place]),
            region=self._regions[places.region[place]],
            land_cover=self._classes[places.land_cover[place]],
            elevation_m=None if math.isnan(elevation) else elevation,
            stratum=places.strata[places.stratum[place]],
            scenes=places.scenes_of(place),
        )
