"""`source: land`: a draw over all the cells of an area, up to all land, from layers alone.

The grid is cut into pieces of some hundred thousand cells. Each is described and counted by itself and stored whole; then
quotas are planned from the sums, and the pieces are read again to find the drawn cells. Which pieces there are, and in
what order they are made, changes nothing: memory is that of one piece and of the strata.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from cgeartheye.curation.candidates import outside_hold_out
from cgeartheye.curation.covariates import describe_cells
from cgeartheye.curation.described import ROWS, SECTORS, folder_of, read_notes, write_piece
from cgeartheye.curation.exclusion import meets_excluded
from cgeartheye.curation.layers import Cells, read_regions
from cgeartheye.curation.piece_draw import plan_pieces, write_cells
from cgeartheye.curation.pieces import Workers
from cgeartheye.files import write_json
from cgeartheye.geometry.cells import CellGrid, join
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.writer import write_table

_CHIP_GSD_M: Final = 0.75
"""Pixel of the chips that hold-outs are kept away from where none is set: that of the archive this is made for [report]."""


@dataclass(frozen=True)
class Piece:
    """A part of the grid: rows ``first`` to ``stop - 1``, and in each of them one of ``sectors`` equal parts of its columns."""

    first: int
    stop: int
    sector: int = 0
    sectors: int = 1

    def cells(self, grid: CellGrid, area: Path | None = None) -> Cells:
        """Return its cells, or those whose centres lie in one of a file's polygons."""
        rows = np.arange(self.first, self.stop)
        low, high = (grid.columns(rows) * number // self.sectors for number in (self.sector, self.sector + 1))
        if area is not None:
            return Cells(grid, read_regions(area, None, grid).within(rows, low, high))
        return Cells(grid, np.concatenate([join(r, np.arange(a, b)) for r, a, b in zip(rows, low, high, strict=True)]))


def pieces_of(grid: CellGrid, *, rows: int = ROWS, sectors: int = SECTORS) -> list[Piece]:
    """Return pieces that together hold every cell of the grid once."""
    return [Piece(r, min(r + rows, grid.rows), s, sectors) for r in range(0, grid.rows, rows) for s in range(sectors)]


def draw_land(settings: CurateSettings, out: Path, work: Path, workers: Workers) -> dict[str, Any]:
    """Draw cells; write ``cells.parquet`` (those drawn), ``strata.parquet`` and ``funnel.json``.

    Returns: what the manifest quotes.

    Raises:
        DataError: if no cell is land, or fewer places are wanted than there are strata and that is refused.
    """
    folders = describe_land(settings, work, workers)
    plan, n_cells = plan_pieces(folders, settings)
    excluded = sum(read_notes(folder)["excluded"] for folder in folders)
    budgets = [budget.name for budget in settings.draw.budgets]
    write_table(out / "strata.parquet", plan.table(budgets))
    write_cells(out / "cells.parquet", folders, plan, settings, all_cells=False)
    counts = {"cells": n_cells, "strata": len(plan.keys), "cells_drawn": int(plan.given.sum())}
    if settings.exclude:
        counts["cells_excluded"] = excluded
    write_json(out / "funnel.json", {"schema_version": 1, "steps": counts})
    headline = f"{counts['cells_drawn']:,} of {n_cells:,} cells drawn from {len(plan.keys):,} strata"
    said = {"cells": excluded} if settings.exclude else None
    return {"headline": headline, "factor": plan.quotas.factor, "funnel": counts, "excluded": said}


def describe_land(settings: CurateSettings, work: Path, workers: Workers) -> list[Path]:
    """Describe and count the pieces that are made here; return the folders of all, in order."""
    pieces = pieces_of(CellGrid(settings.cell_m))
    folders = [folder_of(work, number) for number in range(len(pieces))]
    workers.run(describe_piece, folders, lambda number: (settings, pieces[number], folders[number]), title="cells")
    return folders


def describe_piece(settings: CurateSettings, piece: Piece, folder: Path) -> None:
    """Describe and count the land cells of a piece; ``folder`` appears when all of it is written."""
    cells = piece.cells(CellGrid(settings.cell_m), settings.draw.area)
    if settings.hold_out is not None:
        side_m = settings.chip_px * (settings.gsd_m or _CHIP_GSD_M)
        cells = cells.take(outside_hold_out(*cells.grid.centres(cells.ids), settings.hold_out, side_m))
    described = describe_cells(cells, settings)
    land = described.budget >= 0
    if settings.land_cover is not None:
        land &= described.land_cover >= 0
    met = meets_excluded(cells, settings)
    excluded = int((land & met).sum())
    land &= ~met
    if not land.all():
        cells, described = cells.take(land), described.take(land)
    write_piece(folder, cells, described, seed=settings.seed, notes={"excluded": excluded})
