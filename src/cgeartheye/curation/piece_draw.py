"""The draw over pieces of the grid that are described on disk: memory is that of one piece and of the strata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cgeartheye.curation.described import read_block, read_blocks, read_described, strata_of
from cgeartheye.curation.drawing import Block
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.strata import Census, Plan, cells_table, plan_draw, texts
from cgeartheye.errors import DataError
from cgeartheye.files import atomic_path
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.settings.curate import CurateSettings


def plan_pieces(folders: list[Path], settings: CurateSettings) -> tuple[Plan, int]:
    """Plan the draw over described pieces, in any order and division; also return the number of their cells.

    Raises:
        DataError: if there is no cell, or fewer places are wanted than there are strata and that is refused.
    """
    census = Census(tuple(budget.name for budget in settings.draw.budgets))
    for folder in folders:
        strata = strata_of(folder)
        if strata:
            census.add(strata, np.load(folder / "sizes.npy"), np.load(folder / "counts.npy"))
    if not census.cells:
        remedy = "check curate.land_cover, curate.land_cover_classes and curate.draw.area"
        raise DataError("no cell of the area has a class of land cover", where="curate.land_cover", remedy=remedy)
    order = {stratum: number for number, stratum in enumerate(census.strata)}
    plan = plan_draw(census, lambda: read_blocks(folders, order), settings, CellGrid(settings.cell_m))
    return plan, sum(census.cells.values())


def drawn_blocks(folders: list[Path], plan: Plan) -> Iterator[tuple[Path, Block, NDArray[np.bool_]]]:
    """Yield each piece that has cells: its folder, its cells with strata numbered as in the plan, and which are drawn."""
    order = {stratum: number for number, stratum in enumerate(plan.strata)}
    for folder in folders:
        block = read_block(folder, order)
        if block is not None:
            yield folder, block, plan.selection.drawn(block)


def write_cells(path: Path, folders: list[Path], plan: Plan, settings: CurateSettings, *, all_cells: bool) -> None:
    """Write ``cells.parquet`` piece by piece, in order of piece, ids ascending within each.

    Args:
        path: of the file.
        folders: of the pieces.
        plan: of the draw.
        settings: of the stage.
        all_cells: those that are not drawn too.
    """
    grid = CellGrid(settings.cell_m)
    with atomic_path(path) as temporary:
        writer: pq.ParquetWriter | None = None
        for folder, block, drawn in drawn_blocks(folders, plan):
            chosen = np.ones(len(drawn), bool) if all_cells else drawn
            if not chosen.any():
                continue
            strata = texts(plan.keys, block.stratum[chosen])
            described = read_described(folder, chosen)
            table = cells_table(Cells(grid, block.ids[chosen]), described, strata, drawn[chosen], settings)
            if writer is None:
                writer = pq.ParquetWriter(temporary, table.schema, compression="zstd")
            writer.write_table(table)
        if writer is not None:
            writer.close()
