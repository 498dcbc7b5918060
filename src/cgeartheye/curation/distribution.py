"""What a curation did to the distribution of places and chips, counted once for the report and for whoever asks later."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cgeartheye.curation.selection import Selection
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.writer import write_table

SCHEMA: Final = pa.schema(
    [
        ("measure", pa.string()),
        ("name", pa.string()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("available", pa.int64()),
        ("drawn", pa.int64()),
        ("good", pa.int64()),
        ("kept", pa.int64()),
    ],
    metadata={"schema_version": "1"},
)
_BINS: Final = 32
_OF_CELLS: Final = ("land_cover", "region", "elevation_bin", "stratum")
_NONE: Final = "none"


@dataclass(frozen=True)
class _Count:
    """One row: how many cells were available and drawn (None where cells have no such measure), places or chips good, kept."""

    name: str
    counts: tuple[int | None, int | None, int, int]
    edges: tuple[float | None, float | None] = (None, None)


def write_distributions(out: Path, rows: pa.Table, selection: Selection, settings: CurateSettings) -> None:
    """Write ``balance.parquet``: before and after, by class, region, elevation bin, stratum, seasons a place and quality.

    Cells and places are counted for the first five, chips for each ``q_`` column.

    Args:
        out: the stage's folder, which for an archive holds ``cells.parquet``.
        rows: of all good chips, a place's adjacent.
        selection: of the places, in the same order.
        settings: of the stage.
    """
    starts = np.flatnonzero(rows["date_index"].to_numpy() == 0)
    chip_kept = np.repeat(selection.kept, np.diff(starts, append=len(rows)))
    first = rows.select(["cell", "land_cover", "region", "stratum"]).take(starts)
    table: list[dict[str, Any]] = []
    if settings.source == "archive":
        for measure in _OF_CELLS:
            bins = measure == "elevation_bin"
            values = _elevation_bins(out / "cells.parquet", first["cell"]) if bins else first[measure]
            table += _rows(measure, _of_cells(out / "cells.parquet", measure, values, selection.kept, settings))
        table += _rows("seasons", _seasons(rows, starts, selection.kept))
    for name in [name for name in rows.column_names if name.startswith("q_")]:
        values = np.asarray(rows[name].to_numpy(), np.float64)
        table += _rows(name, _binned(values, chip_kept))
    write_table(out / "balance.parquet", pa.Table.from_pylist(table, schema=SCHEMA))


def _rows(measure: str, counts: Iterable[_Count]) -> list[dict[str, Any]]:
    return [dict(zip(SCHEMA.names, (measure, one.name, *one.edges, *one.counts), strict=True)) for one in counts]


def _elevation_bins(path: Path, cells: pa.ChunkedArray) -> pa.Array:
    """Return the elevation bin of each place's cell, as the draw has it."""
    known = pq.read_table(path, columns=["cell", "elevation_bin"]).combine_chunks()
    return known["elevation_bin"].take(pc.index_in(cells, value_set=known["cell"].combine_chunks()))


def _of_cells(
    path: Path,
    measure: str,
    values: Any,  # noqa: ANN401 - pyarrow is untyped
    kept: NDArray[np.bool_],
    settings: CurateSettings,
) -> list[_Count]:
    cells = pq.read_table(path, columns=[measure, "drawn"])
    available, drawn = _tally(cells[measure]), _tally(cells.filter(cells["drawn"])[measure])
    good, left = _tally(values), _tally(values.filter(pa.array(kept)))
    names = {*available, *good}
    if measure == "elevation_bin":
        order = sorted(names, key=lambda name: (name == _NONE, int(name) if name != _NONE else 0))
    else:
        order = sorted(names, key=lambda name: (-available.get(name, 0), name))
    found = []
    for name in order:
        counts = (available.get(name, 0), drawn.get(name, 0), good.get(name, 0), left.get(name, 0))
        found.append(_Count(name, counts, _edges(name, settings) if measure == "elevation_bin" else (None, None)))
    return found


def _edges(name: str, settings: CurateSettings) -> tuple[float | None, float | None]:
    if name == _NONE:
        return None, None
    low = settings.elevation_start_m + int(name) * settings.elevation_bin_m
    return low, low + settings.elevation_bin_m


def _tally(values: Any) -> Mapping[str, int]:  # noqa: ANN401 - pyarrow
    found = pc.value_counts(values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values)
    return {_NONE if entry["values"] is None else str(entry["values"]): int(entry["counts"]) for entry in found.to_pylist()}


def _seasons(rows: pa.Table, starts: NDArray[np.int64], kept: NDArray[np.bool_]) -> list[_Count]:
    """Count places by how many different quarters their dates fall in."""
    present = np.bitwise_or.reduceat(np.left_shift(1, rows["quarter"].to_numpy().astype(np.int64)), starts)
    seasons = np.bitwise_count(present & 0b11110).astype(np.int64)  # quarter 0 is an undated chip
    good, left = (np.bincount(seasons[chosen], minlength=5) for chosen in (np.ones(len(kept), bool), kept))
    return [_Count(str(n), (None, None, int(good[n]), int(left[n])), (float(n), float(n))) for n in range(5) if good[n]]


def _binned(values: NDArray[np.float64], kept: NDArray[np.bool_]) -> list[_Count]:
    """Count chips in equal steps between the least and the greatest value; one step where all are equal."""
    finite = np.isfinite(values)
    if not finite.any():
        return []
    low, high = float(values[finite].min()), float(values[finite].max())
    edges = np.linspace(low, high, _BINS + 1) if high > low else np.array([low, high])
    at = np.clip(np.searchsorted(edges, values[finite], side="right") - 1, 0, len(edges) - 2)
    good, left = (np.bincount(found, minlength=len(edges) - 1) for found in (at, at[kept[finite]]))
    return [
        _Count(f"{edges[i]:.4g}", (None, None, int(good[i]), int(left[i])), (float(edges[i]), float(edges[i + 1])))
        for i in range(len(edges) - 1)
    ]
