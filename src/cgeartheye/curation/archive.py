"""`source: archive`: from catalogue and layers to the places whose chips are to be cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cgeartheye.curation.candidates import Candidates, find_candidates, outside_hold_out
from cgeartheye.curation.covariates import NONE, Described, describe_cells, in_area
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.places import PlaceBlock, Spot
from cgeartheye.curation.strata import Drawn, cells_table, draw_cells
from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid, split
from cgeartheye.progress import Progress
from cgeartheye.rasters.scenes import Scene, read_scenes
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.writer import write_table

PLACES_PER_PIECE: Final = 16
CATALOG_NAME: Final = "catalog.parquet"


@dataclass(frozen=True)
class Begun:
    """The work that the draw decided on: blocks of places, and the funnel so far."""

    tasks: list[PlaceBlock]
    counts: dict[str, int]


def begin_archive(settings: CurateSettings, out: Path, progress: Progress) -> Begun:
    """Find cells, describe and draw them; write ``cells.parquet`` and ``strata.parquet``.

    Raises:
        DataError: if the catalogue is empty, no chip fits a scene, or several dates nowhere overlap.
    """
    scenes = _scenes(settings)
    gsd_m = settings.gsd_m or float(np.median([scene.gsd_m for scene in scenes]))
    side_m = settings.chip_px * gsd_m
    found = find_candidates(scenes, CellGrid(settings.cell_m), side_m, settings.places_per_cell)
    counts = {"scenes": len(scenes), "cells_covered": len(np.unique(found.cells))}
    _refuse_disjoint(found, scenes, settings, side_m)
    if settings.hold_out is not None:
        found = found.take(outside_hold_out(found.lon, found.lat, settings.hold_out, side_m))
    counts["cells_outside_hold_out"] = len(np.unique(found.cells))
    if not len(found.cells):
        raise DataError("the hold-out leaves no cell", where=str(settings.hold_out), remedy="make its polygons smaller")
    found, cells, described = _describe(found, settings)
    counts["cells_in_budgets"] = len(cells)
    drawn = draw_cells(cells, described, settings)
    write_table(out / "cells.parquet", cells_table(cells, described, drawn.strata, drawn.chosen, settings))
    write_table(out / "strata.parquet", drawn.plan.table([budget.name for budget in settings.draw.budgets]))
    chosen = found.take(drawn.chosen[np.searchsorted(cells.ids, found.cells)])
    n_strata = len(drawn.plan.keys)
    counts |= {"strata": n_strata, "cells_drawn": int(drawn.chosen.sum()), "places_drawn": len(chosen.cells)}
    progress.say(f"{counts['cells_covered']} cells in {len(scenes)} scenes: {len(chosen.cells)} places of {n_strata} strata")
    return Begun(_blocks(_spots(chosen, cells, described, drawn, settings), scenes, settings, gsd_m), counts)


def _describe(found: Candidates, settings: CurateSettings) -> tuple[Candidates, Cells, Described]:
    """Describe the cells of candidates; drop those outside the area and the budgets, or seen in too few quarters."""
    cells = Cells(CellGrid(settings.cell_m), np.unique(found.cells))
    if settings.draw.area is not None:
        cells = cells.take(in_area(cells, settings.draw.area))
        found = found.take(np.isin(found.cells, cells.ids))
    described = describe_cells(cells, settings)
    if settings.draw.budgets:
        least = np.array([*(budget.min_quarters for budget in settings.draw.budgets), 5])  # the last is for budget -1
        found = found.take(found.n_quarters >= least[described.budget[np.searchsorted(cells.ids, found.cells)]])
        kept = np.isin(cells.ids, found.cells)
        cells, described = cells.take(kept), described.take(kept)
    if not len(cells):
        raise DataError(
            "no cell that scenes cover lies in the area and the budgets, in enough quarters",
            where="curate.draw",
            remedy="widen curate.draw.area, add a budget without regions and area, or lower min_quarters",
        )
    return found, cells, described


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


def _spots(chosen: Candidates, cells: Cells, described: Described, drawn: Drawn, settings: CurateSettings) -> list[Spot]:
    """Return the drawn places in order of cell."""
    regions, classes = (*described.regions, NONE), (*described.classes, NONE)  # -1 is the last
    at = np.searchsorted(cells.ids, chosen.cells)
    rows, columns = split(chosen.cells)
    spots = []
    for i, cell in enumerate(at.tolist()):
        slot = f"_{chosen.slots[i]}" if settings.places_per_cell > 1 else ""
        elevation = float(described.elevation_m[cell])
        spots.append(
            Spot(
                name=f"c{rows[i]}_{columns[i]}{slot}",
                lon=float(chosen.lon[i]),
                lat=float(chosen.lat[i]),
                cell=int(chosen.cells[i]),
                region=regions[described.region[cell]],
                land_cover=classes[described.land_cover[cell]],
                elevation_m=None if math.isnan(elevation) else elevation,
                stratum=drawn.strata[cell].as_py(),
                scenes=chosen.scenes[i],
            )
        )
    return spots


def _blocks(spots: Sequence[Spot], scenes: Sequence[Scene], settings: CurateSettings, gsd_m: float) -> list[PlaceBlock]:
    """Cut places into blocks that know only the scenes they need."""
    blocks = [spots[i : i + PLACES_PER_PIECE] for i in range(0, len(spots), PLACES_PER_PIECE)]
    return [PlaceBlock(tuple(block), _needed(block, scenes), settings, gsd_m) for block in blocks]


def _needed(block: Sequence[Spot], scenes: Sequence[Scene]) -> dict[int, Scene]:
    return {number: scenes[number] for number in sorted({number for spot in block for number in spot.scenes})}
