"""Strata: cells grouped by region, class and elevation bin (and budget), counted block by block, and planned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cgeartheye.curation.covariates import NO_BIN, NONE, Described
from cgeartheye.curation.drawing import Block, Blocks, Cuts, Listed, Spacing, draw_apart, find_cuts, histogram, priorities
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.quotas import Quotas, Rules, plan_quotas
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.settings.curate import CurateSettings

_DENSE: Final = 2**23
"""Combinations up to which strata are counted in a table instead of by sorting."""

Ints = NDArray[np.int64]


class Stratum(NamedTuple):
    """What the cells of a stratum have in common; its text is its key, by which ties are decided."""

    budget: int
    region: str
    land_cover: str
    elevation_bin: str

    def key(self, budgets: Sequence[str]) -> str:
        """Return ``region/class/bin``, with the budget before it where there are any."""
        parts = (budgets[self.budget], *self[1:]) if budgets else self[1:]
        return "/".join(parts)


def group_cells(described: Described) -> tuple[Ints, list[Stratum]]:
    """Return the number of each cell's stratum, (n,) int64, and what these numbers stand for; only strata that occur."""
    known = described.elevation_bin != NO_BIN
    least = int(described.elevation_bin[known].min()) if known.any() else 0
    bins = np.where(known, described.elevation_bin.astype(np.int32) - least + 1, 0)
    sizes = (int(bins.max(initial=0)) + 1, len(described.classes) + 1, len(described.regions) + 1)
    code = described.region + np.int64(1)
    if described.budget.any():
        code += described.budget.astype(np.int64) * sizes[2]
    for size, numbers, shift in ((sizes[1], described.land_cover, 1), (sizes[0], bins, 0)):
        code *= size
        code += numbers
        code += shift
    if int(code.max(initial=0)) < _DENSE:
        present = np.flatnonzero(np.bincount(code))
        number = np.zeros(int(code.max(initial=0)) + 1, np.int64)
        number[present] = np.arange(len(present))
        return number[code], [_stratum(described, one, sizes, least) for one in present.tolist()]
    present, numbers = np.unique(code, return_inverse=True)
    return numbers.astype(np.int64), [_stratum(described, one, sizes, least) for one in present.tolist()]


def _stratum(described: Described, code: int, sizes: tuple[int, int, int], least: int) -> Stratum:
    code, step = divmod(code, sizes[0])
    code, cover = divmod(code, sizes[1])
    budget, region = divmod(code, sizes[2])
    return Stratum(
        budget,
        described.regions[region - 1] if region else NONE,
        described.classes[cover - 1] if cover else NONE,
        str(step - 1 + least) if step else NONE,
    )


@dataclass
class Census:
    """Cells of each stratum, added up over blocks.

    Args:
        budgets: names of the budgets, if any.
        cells: stratum -> number of cells.
        drawable: stratum -> (BINS,) int64, drawable cells in each bin of priorities.
    """

    budgets: tuple[str, ...]
    cells: dict[Stratum, int] = field(default_factory=dict)
    drawable: dict[Stratum, Ints] = field(default_factory=dict)

    def add(self, strata: Sequence[Stratum], sizes: Ints, counts: Ints) -> None:
        """Add a block's strata: (s,) their cells and (s, BINS) what :func:`histogram` says."""
        for stratum, size, bins in zip(strata, sizes.tolist(), counts, strict=True):
            self.cells[stratum] = self.cells.get(stratum, 0) + size
            self.drawable[stratum] = self.drawable[stratum] + bins if stratum in self.drawable else bins.astype(np.int64)

    @property
    def strata(self) -> list[Stratum]:
        """All strata in order of their keys."""
        return sorted(self.cells, key=lambda stratum: stratum.key(self.budgets))


@dataclass(frozen=True)
class Plan:
    """What is to be drawn of S strata, in order of their keys.

    Args:
        strata: what they are.
        keys: their texts.
        cells: (S,) cells that exist.
        cap: (S,) cells that can be drawn.
        quotas: by the formula; ``factor`` is that of the budget with most strata.
        given: (S,) cells drawn; fewer than the quota only where the least distance left no room.
        selection: which cells they are.
    """

    strata: list[Stratum]
    keys: list[str]
    cells: Ints
    cap: Ints
    quotas: Quotas
    given: Ints
    selection: Cuts | Listed

    def table(self, budgets: Sequence[str]) -> pa.Table:
        """Return ``strata.parquet``: published alpha, cap and draw of each stratum side by side."""
        return pa.table(
            {
                "stratum": pa.array(self.keys, pa.string()),
                **({"budget": pa.array([budgets[s.budget] for s in self.strata], pa.string())} if budgets else {}),
                "region": pa.array([s.region for s in self.strata], pa.string()),
                "land_cover": pa.array([s.land_cover for s in self.strata], pa.string()),
                "elevation_bin": pa.array([s.elevation_bin for s in self.strata], pa.string()),
                "cells": pa.array(self.cells, pa.int64()),
                "alpha": pa.array(self.quotas.alpha, pa.float64()),
                "cap": pa.array(self.cap, pa.int64()),
                "capped": pa.array(self.quotas.capped, pa.bool_()),
                "floored": pa.array(self.quotas.floored, pa.bool_()),
                "drawn": pa.array(self.given, pa.int64()),
            }
        ).replace_schema_metadata({"schema_version": "2"})


def plan_draw(census: Census, blocks: Blocks, settings: CurateSettings, grid: CellGrid) -> Plan:
    """Plan how many cells each stratum gives, and find which.

    Args:
        census: of all blocks.
        blocks: all cells, with numbers of strata in the order of ``census.strata``.
        settings: of the draw.
        grid: of the cells.

    Raises:
        DataError: if fewer places are wanted than there are strata and that is refused.
    """
    strata = census.strata
    cells = np.array([census.cells[stratum] for stratum in strata], np.int64)
    counts = np.stack([census.drawable[stratum] for stratum in strata])
    cap = counts.sum(axis=1)
    quotas = _quotas(strata, cells, cap, settings)
    keys = [stratum.key(census.budgets) for stratum in strata]
    if not settings.draw.min_distance_m:
        cuts = find_cuts(blocks, counts, quotas.drawn, settings.seed)
        return Plan(strata, keys, cells, cap, quotas, quotas.drawn, cuts)
    spacing = Spacing(grid, settings.draw.min_distance_m, quotas.share)
    listed, given = draw_apart(blocks, counts, quotas.drawn, settings.seed, spacing)
    return Plan(strata, keys, cells, cap, quotas, given, listed)


def _quotas(strata: Sequence[Stratum], cells: Ints, cap: Ints, settings: CurateSettings) -> Quotas:
    """Apply the formula to each budget by itself."""
    draw = settings.draw
    rules = Rules(shares=settings.shares, shortage=settings.shortage, small_budget=draw.small_budget)
    covers = np.array([stratum.land_cover for stratum in strata], dtype=object)
    totals = [b.places for b in draw.budgets] or [int(cap.sum()) if settings.places is None else settings.places]
    owner = np.array([stratum.budget for stratum in strata])
    columns = {name: np.zeros(len(cells)) for name in ("alpha", "share", "capped", "floored", "drawn")}
    factor, most = 1.0, 0
    for number, wanted in enumerate(totals):
        own = np.flatnonzero(owner == number)
        if not own.size:
            continue
        total = wanted if settings.places is None and not draw.budgets else max(1, wanted // settings.places_per_cell)
        part = plan_quotas(cells[own], covers[own].tolist(), total, caps=cap[own], rules=rules)
        for name, values in columns.items():
            values[own] = getattr(part, name)
        columns["share"][own] *= total / sum(totals)
        factor, most = (part.factor, own.size) if own.size > most else (factor, most)
    capped, floored = (columns[name].astype(bool) for name in ("capped", "floored"))
    return Quotas(columns["alpha"], columns["share"], factor, capped, floored, columns["drawn"].astype(np.int64))


def count_block(described: Described, ids: Ints, seed: int) -> tuple[Block, list[Stratum], Ints, Ints]:
    """Group a block of cells and count it.

    Returns: the block with its own numbers of strata, what these stand for, (s,) cells of each, and what
    :func:`histogram` says.
    """
    number, strata = group_cells(described)
    block = Block(ids, number, described.weight)
    return block, strata, np.bincount(number, minlength=len(strata)), histogram(block, len(strata), seed)


def renumber(strata: Sequence[Stratum], number_of: Mapping[Stratum, int]) -> Ints:
    """Return the overall number of each of a block's strata, (s,)."""
    return np.array([number_of[stratum] for stratum in strata], np.int64)


def cells_table(
    cells: Cells, described: Described, strata: pa.Array, drawn: NDArray[np.bool_], settings: CurateSettings
) -> pa.Table:
    """Return ``cells.parquet``: one row a cell with its layers, stratum, (n,) text, priority, and whether ``drawn``, (n,)."""
    lon, lat = cells.grid.centres(cells.ids)
    steps, step = np.unique(described.elevation_bin, return_inverse=True)
    bins = [NONE if one == NO_BIN else str(one) for one in steps.tolist()]
    budgets = settings.draw.budgets
    columns: dict[str, Any] = {
        "cell": pa.array(cells.ids, pa.int64()),
        "lon": pa.array(lon, pa.float64()),
        "lat": pa.array(lat, pa.float64()),
        "region": texts((*described.regions, NONE), described.region),
        "land_cover": texts((*described.classes, NONE), described.land_cover),
        "elevation_m": pa.array(described.elevation_m, pa.float32(), from_pandas=True),
        "elevation_bin": texts(bins, step),
        "stratum": strata,
        "priority": pa.array(priorities(cells.ids, settings.seed, described.weight), pa.uint64()),
        "drawn": pa.array(drawn, pa.bool_()),
    }
    if budgets:
        columns["budget"] = texts(tuple(budget.name for budget in budgets), described.budget)
        columns["min_quarters"] = pa.array(np.array([b.min_quarters for b in budgets])[described.budget], pa.int8())
    if described.weight is not None:
        columns["weight"] = pa.array(described.weight, pa.float32())
    for number, name in enumerate(described.classes):
        columns[f"share_{name}"] = pa.array(described.class_shares[:, number], pa.float32())
    return pa.table(columns)


def texts(names: Sequence[str], numbers: NDArray[Any]) -> pa.Array:
    """Return names by number, (n,) text; -1 is the last."""
    index = np.where(numbers < 0, len(names) - 1, numbers).astype(np.int32)
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(names, pa.string())).cast(pa.string())
