"""Pieces of the grid on disk: their cells, what the layers say of them, and the counts that a draw needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.curation.covariates import Described
from cgeartheye.curation.drawing import Block
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.strata import Stratum, count_block, renumber
from cgeartheye.files import atomic_folder, read_json, write_json
from cgeartheye.geometry.cells import CellGrid

ROWS: Final = 128
"""Rows of cells in a piece [ours]."""
SECTORS: Final = 5
"""Pieces side by side around the world [ours]."""
_ARRAYS: Final = ("region", "land_cover", "shares", "elevation_m", "elevation_bin", "budget", "weight")
_NOTES: Final = "names.json"
CELLS: Final = "cells"
"""Folder of the pieces."""

Ints = NDArray[np.int64]


def folder_of(work: Path, number: int) -> Path:
    """Return where a piece is stored."""
    return work / CELLS / f"{number:06d}"


def numbers_of(grid: CellGrid, ids: Ints) -> Ints:
    """Return the number of the piece that holds each cell, (n,) int64: :data:`SECTORS` for each :data:`ROWS` rows."""
    row, column = ids >> 32, ids & (2**32 - 1)
    return np.asarray(row // ROWS * SECTORS + ((column + 1) * SECTORS - 1) // grid.columns(row))


def write_piece(
    folder: Path,
    cells: Cells,
    described: Described,
    *,
    seed: int,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    notes: Mapping[str, Any],
) -> None:
    """Count the cells of a piece and store them; ``folder`` appears when all of it is written.

    Args:
        folder: of the piece.
        cells: its n cells.
        described: what the layers say of them.
        seed: of the draw.
        arrays: more arrays, (m, ...) each, which are left out where there is no cell.
        notes: more notes, plain JSON.
    """
    block, strata, sizes, counts = count_block(described, cells.ids, seed)
    stored = {name: values for name in _ARRAYS if (values := getattr(described, name)) is not None}
    stored |= {"ids": block.ids, "stratum": block.stratum.astype(np.int32), "sizes": sizes, "counts": counts.astype(np.int32)}
    names = {"regions": described.regions, "classes": described.classes, "strata": strata if len(cells) else []}
    with atomic_folder(folder) as temporary:
        for name, values in {**stored, **(arrays or {})}.items() if len(cells) else ():
            np.save(temporary / f"{name}.npy", values)
        write_json(temporary / _NOTES, {**names, **notes})


def read_notes(folder: Path) -> dict[str, Any]:
    """Return the notes of a piece."""
    notes: dict[str, Any] = read_json(folder / _NOTES)
    return notes


def strata_of(folder: Path) -> list[Stratum]:
    """Return what a piece's own numbers of strata stand for; none if it has no cell."""
    return [Stratum(*parts) for parts in read_notes(folder)["strata"]]


def read_array(folder: Path, name: str) -> NDArray[Any]:
    """Return an array of a piece that has cells, (n, ...) for its n cells or places, mapped from disk."""
    found: NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return found


def read_described(folder: Path, chosen: NDArray[np.bool_]) -> Described:
    """Return what is said of those cells of a piece that are chosen, by mask (n,)."""
    notes = read_notes(folder)
    stored: dict[str, Any] = {
        name: read_array(folder, name)[chosen] if (folder / f"{name}.npy").exists() else None for name in _ARRAYS
    }
    return Described(regions=tuple(notes["regions"]), classes=tuple(notes["classes"]), **stored)


def read_block(folder: Path, order: Mapping[Stratum, int]) -> Block | None:
    """Return a piece's cells with numbers of strata in the order of all, or None if it has no cell."""
    strata = strata_of(folder)
    if not strata:
        return None
    number = renumber(strata, order)[np.load(folder / "stratum.npy")]
    weight = folder / "weight.npy"
    return Block(np.load(folder / "ids.npy"), number, np.load(weight) if weight.exists() else None)


def read_blocks(folders: list[Path], order: Mapping[Stratum, int]) -> Iterator[Block]:
    """Yield the cells of pieces that have any, in order."""
    return (block for folder in folders if (block := read_block(folder, order)) is not None)
