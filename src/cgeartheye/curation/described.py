"""What the layers say of cells, made piece by piece of the grid and stored: by many processes, once, over any interruption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.curation.covariates import Described, describe_cells
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.pieces import Workers
from cgeartheye.files import atomic_folder, read_json, write_json
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.settings.curate import CurateSettings

ROWS: Final = 128
"""Rows of cells in a piece [ours]."""
SECTORS: Final = 5
"""Pieces side by side around the world [ours]."""
_ARRAYS: Final = ("region", "land_cover", "shares", "elevation_m", "elevation_bin", "budget", "weight")
_NAMES: Final = "names.json"

Ints = NDArray[np.int64]


def folder_of(work: Path, number: int) -> Path:
    """Return where a piece of the grid is stored."""
    return work / "cells" / f"{number:06d}"


def write_described(
    folder: Path, described: Described, more: Mapping[str, NDArray[Any]], notes: Mapping[str, Any] | None = None
) -> None:
    """Store what is said of the cells of a piece, with more arrays and notes; ``folder`` appears when all of it is written."""
    arrays = {name: values for name in _ARRAYS if (values := getattr(described, name)) is not None} | dict(more)
    with atomic_folder(folder) as temporary:
        for name, values in arrays.items() if len(described) else ():
            np.save(temporary / f"{name}.npy", values)
        names = {"regions": described.regions, "classes": described.classes}
        write_json(temporary / _NAMES, {**names, **(notes or {})})


def read_notes(folder: Path) -> dict[str, Any]:
    """Return the notes of a stored piece."""
    notes: dict[str, Any] = read_json(folder / _NAMES)
    return notes


def read_described(folder: Path, chosen: NDArray[np.bool_] | None = None) -> Described:
    """Return what is said of the cells of a stored piece that has any, or of those chosen by mask."""
    notes = read_notes(folder)
    stored: dict[str, Any] = {
        name: np.load(path, mmap_mode="r")[slice(None) if chosen is None else chosen]
        if (path := folder / f"{name}.npy").exists()
        else None
        for name in _ARRAYS
    }
    return Described(regions=tuple(notes["regions"]), classes=tuple(notes["classes"]), **stored)


def describe_in_pieces(cells: Cells, settings: CurateSettings, work: Path, workers: Workers) -> Described:
    """Describe any cells, piece by piece of the grid that holds some; what another process or run has described is read.

    Jobs of an array need all of them: each describes its own share, then what is missing when its turn comes.

    Args:
        cells: in order of id, at least one; the same in every run that uses ``work``.
        settings: name the layers.
        work: folder of the stage's unfinished work.
        workers: describe the pieces.

    Raises:
        DataError: if a layer cannot be read.
    """
    numbers = piece_numbers(cells)
    order = np.argsort(numbers, kind="stable")
    present, starts = np.unique(numbers[order], return_index=True)
    groups = np.split(order, starts[1:])
    folders = [folder_of(work, number) for number in present.tolist()]

    def arguments(number: int) -> tuple[Any, ...]:
        return settings, cells.ids[groups[number]], folders[number]

    workers.run(_describe, folders, arguments, title="cells", all_needed=True)
    return _joined(folders, groups)


def piece_numbers(cells: Cells) -> Ints:
    """Return the number of the piece of the grid that holds each cell, (n,) int64, rows of pieces first."""
    row, column = cells.places
    sector = ((column + 1) * SECTORS - 1) // cells.grid.columns(row)
    return np.asarray(row // ROWS * SECTORS + sector)


def _describe(settings: CurateSettings, ids: Ints, folder: Path) -> None:
    write_described(folder, describe_cells(Cells(CellGrid(settings.cell_m), ids), settings), {})


def _joined(folders: Sequence[Path], groups: Sequence[Ints]) -> Described:
    """Put together what is said of the cells at the positions of each group."""
    first = read_described(folders[0])
    n = sum(map(len, groups))
    whole = {name: np.empty((n, *part.shape[1:]), part.dtype) for name in _ARRAYS if (part := getattr(first, name)) is not None}
    for folder, at in zip(folders, groups, strict=True):
        part = read_described(folder)
        for name, values in whole.items():
            values[at] = getattr(part, name)
    stored: dict[str, Any] = {name: whole.get(name) for name in _ARRAYS}
    return Described(regions=first.regions, classes=first.classes, **stored)
