"""`source: archive`: from catalogue and layers to the places whose chips are to be cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from cgeartheye.curation.candidates import Candidates, find_candidates, outside_hold_out
from cgeartheye.curation.exclusion import outside_excluded
from cgeartheye.curation.places import PlaceBlock, Spot
from cgeartheye.curation.strata import Described, cells_table, describe_cells, draw_cells
from cgeartheye.curation.zonal import Cells
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
        found = found.take(outside_hold_out(found, settings.hold_out, side_m))
    found = found.take(outside_excluded(found, settings, side_m))
    counts["cells_outside_hold_out"] = len(np.unique(found.cells))
    if not len(found.cells):
        raise DataError("the hold-out leaves no cell", where=str(settings.hold_out), remedy="make its polygons smaller")
    cells = Cells(CellGrid(settings.cell_m), np.unique(found.cells))
    described = describe_cells(cells, settings)
    drawn = draw_cells(cells.ids, described, settings)
    write_table(out / "cells.parquet", cells_table(cells, described, drawn.chosen, seed=settings.seed))
    write_table(out / "strata.parquet", drawn.strata)
    position = np.searchsorted(cells.ids, found.cells)
    chosen = found.take(drawn.chosen[position])
    counts |= {"strata": len(drawn.strata), "cells_drawn": int(drawn.chosen.sum()), "places_drawn": len(chosen.cells)}
    progress.say(
        f"{counts['cells_covered']} cells in {len(scenes)} scenes: {len(chosen.cells)} places of {len(drawn.strata)} strata"
    )
    return Begun(_blocks(chosen, cells, described, scenes, (settings, gsd_m)), counts)


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


def _blocks(
    chosen: Candidates, cells: Cells, described: Described, scenes: Sequence[Scene], common: tuple[CurateSettings, float]
) -> list[PlaceBlock]:
    """Cut places, in order of cell, into blocks that know only the scenes they need."""
    settings, gsd_m = common
    strata = described.strata
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
                region=str(described.region[cell]),
                land_cover=str(described.land_cover[cell]),
                elevation_m=None if math.isnan(elevation) else elevation,
                stratum=str(strata[cell]),
                scenes=chosen.scenes[i],
            )
        )
    blocks = [spots[i : i + PLACES_PER_PIECE] for i in range(0, len(spots), PLACES_PER_PIECE)]
    return [PlaceBlock(tuple(block), _needed(block, scenes), settings, gsd_m) for block in blocks]


def _needed(block: Sequence[Spot], scenes: Sequence[Scene]) -> dict[int, Scene]:
    return {number: scenes[number] for number in sorted({number for spot in block for number in spot.scenes})}
