"""What the layers say of cells: region, land cover, elevation, budget, weight - as numbers, for millions of cells at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from cgeartheye.curation.layers import Cells, read_polygons, read_regions, read_vectors
from cgeartheye.curation.zonal import class_counts, is_coarse, look_up, means, under_centres
from cgeartheye.errors import DataError
from cgeartheye.settings.curate import CLASSES, CurateSettings
from cgeartheye.settings.curate_draw import BudgetSettings, WeightSettings

NONE: Final = "none"
"""Region, class or elevation bin of a cell about which a layer says nothing."""
NO_BIN: Final = np.iinfo(np.int16).min
"""Elevation bin of a cell of unknown elevation."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Described:
    """What the layers say of n cells.

    Args:
        regions: names that ``region`` counts.
        region: (n,) int32, -1 for none.
        classes: names that ``land_cover`` counts, in the order that decides ties.
        land_cover: (n,) int8, -1 for none.
        shares: (n, classes) float32, share of each class among the counted pixels; None where every cell took one value.
        elevation_m: (n,) float32, NaN where unknown.
        elevation_bin: (n,) int16, :data:`NO_BIN` where unknown.
        budget: (n,) int16, number of the budget it belongs to.
        weight: (n,) float32 >= 0, or None where all weigh the same.
    """

    regions: tuple[str, ...]
    region: NDArray[np.int32]
    classes: tuple[str, ...]
    land_cover: NDArray[np.int8]
    shares: NDArray[np.float32] | None
    elevation_m: NDArray[np.float32]
    elevation_bin: NDArray[np.int16]
    budget: NDArray[np.int16]
    weight: NDArray[np.float32] | None

    def __len__(self) -> int:
        return len(self.region)

    def take(self, chosen: NDArray[Any]) -> Described:
        """Return what is said of some of the cells, by mask (n,) or positions."""
        shares = None if self.shares is None else self.shares[chosen]
        weight = None if self.weight is None else self.weight[chosen]
        bins, budget = self.elevation_bin[chosen], self.budget[chosen]
        covers = self.land_cover[chosen]
        heights = self.elevation_m[chosen]
        return Described(self.regions, self.region[chosen], self.classes, covers, shares, heights, bins, budget, weight)

    @property
    def class_shares(self) -> NDArray[np.float32]:
        """(n, classes) float32, rows sum to 1, or to 0 where nothing was counted."""
        if self.shares is not None:
            return self.shares
        single: NDArray[np.float32] = (self.land_cover[:, None] == np.arange(len(self.classes))).astype(np.float32)
        return single


def describe_cells(cells: Cells, settings: CurateSettings) -> Described:
    """Look cells up in the layers of the settings; a layer that is not given says nothing of any cell.

    Raises:
        DataError: if a layer cannot be read, or the regions lack the column that names them.
    """
    names, region = _regions(cells, settings)
    classes = class_names(settings)
    land_cover, shares = _land_cover(cells, settings, classes)
    elevation, bins = _elevation(cells, settings)
    budget = _budgets(cells, settings.draw.budgets, names, region)
    weight = _weights(cells, settings.draw.weights) if settings.draw.weights else None
    return Described(names, region, classes, land_cover, shares, elevation, bins, budget, weight)


def class_names(settings: CurateSettings) -> tuple[str, ...]:
    """Return the classes of the settings: those of the report in its order, then others by name."""
    named = set(settings.land_cover_classes.values())
    return (*(name for name in CLASSES if name in named), *sorted(named - set(CLASSES)))


def in_area(cells: Cells, path: Path) -> NDArray[np.bool_]:
    """Return (n,) bool, True where a cell's centre lies in one of a file's polygons."""
    return read_regions(path, None, cells.grid).paint(cells) >= 0


def meeting(cells: Cells, path: Path) -> NDArray[np.bool_]:
    """Return (n,) bool, True where any of a cell's area meets one of a file's polygons, borders included.

    Raises:
        DataError: if the file cannot be read or holds no polygon.
    """
    found = np.zeros(len(cells), bool)
    shapes = shapely.get_parts(read_polygons(path).geometry.to_numpy())
    near = _touched(cells, shapes) if len(cells) else np.empty(0, np.int64)
    boxes = shapely.box(*cells.grid.bounds(cells.ids[near]).T)
    found[near[shapely.STRtree(boxes).query(shapes, predicate="intersects")[1]]] = True
    return found


def _regions(cells: Cells, settings: CurateSettings) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    if settings.regions is None:
        return (), np.full(len(cells), -1, np.int32)
    found = read_regions(settings.regions, settings.region_field, cells.grid)
    return found.names, found.paint(cells)


def _land_cover(
    cells: Cells, settings: CurateSettings, classes: tuple[str, ...]
) -> tuple[NDArray[np.int8], NDArray[np.float32] | None]:
    if settings.land_cover is None:
        return np.full(len(cells), -1, np.int8), None
    codes = {code: classes.index(name) for code, name in settings.land_cover_classes.items()}
    if is_coarse(settings.land_cover, cells.grid):
        values, known = under_centres(settings.land_cover, cells)
        found = look_up(values, codes).astype(np.int8, copy=False)
        return np.where(known, found, np.int8(-1)), None
    counts = class_counts(settings.land_cover, cells, codes, len(classes))
    shares = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype(np.float32)
    return classify(counts, classes, settings.land_cover_minimum), shares


def classify(counts: Ints, classes: Sequence[str], minimum: Mapping[str, float]) -> NDArray[np.int8]:
    """Return the class of each cell: one whose share reaches its minimum, tried in the order of ``minimum``, else the majority.

    Args:
        counts: (n, classes) int64, pixels of each class.
        classes: names of the columns; ties of the majority go to the earlier one.
        minimum: share from which a class wins against the majority.

    Returns: (n,) int8 numbers of classes, -1 where nothing was counted.
    """
    found: NDArray[np.int8] = counts.argmax(axis=1).astype(np.int8)
    total = counts.sum(axis=1)
    for name in reversed([name for name in minimum if name in classes]):
        number = classes.index(name)
        found[counts[:, number] >= minimum[name] * total] = number
    found[total == 0] = -1
    return found


def _elevation(cells: Cells, settings: CurateSettings) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    if settings.elevation is None:
        return np.full(len(cells), np.nan, np.float32), np.full(len(cells), NO_BIN, np.int16)
    if is_coarse(settings.elevation, cells.grid):
        values, known = under_centres(settings.elevation, cells)
        heights = values.astype(np.float64)
        heights[~known] = np.nan
    else:
        heights = means(settings.elevation, cells)
    steps = np.floor((heights - settings.elevation_start_m) / settings.elevation_bin_m)
    known = np.isfinite(steps)
    steps = np.clip(steps if known.all() else np.where(known, steps, NO_BIN), NO_BIN, np.iinfo(np.int16).max)
    return heights.astype(np.float32), steps.astype(np.int16)


def _budgets(
    cells: Cells, budgets: Sequence[BudgetSettings], names: tuple[str, ...], region: NDArray[np.int32]
) -> NDArray[np.int16]:
    """Return the first budget that names each cell, (n,) int16, -1 where none does; 0 everywhere if there are none."""
    found = np.full(len(cells), -1 if budgets else 0, np.int16)
    for number in range(len(budgets) - 1, -1, -1):
        budget = budgets[number]
        if budget.area is not None:
            found[in_area(cells, budget.area)] = number
        elif budget.regions:
            unknown = sorted(set(budget.regions) - set(names))
            if unknown:
                remedy = f"write the names as in curate.regions, column curate.region_field, such as {', '.join(names[:3])}"
                raise DataError(
                    f"the budget {budget.name!r} names regions that are none: {', '.join(unknown)}",
                    where="curate.draw.budgets",
                    remedy=remedy,
                )
            found[np.isin(region, [names.index(name) for name in budget.regions])] = number
        else:
            found[:] = number
    return found


def _weights(cells: Cells, layers: Sequence[WeightSettings]) -> NDArray[np.float32]:
    weight = np.ones(len(cells))
    for layer in layers:
        value = _raster_value(cells, layer.layer) if layer.measure == "mean" else _vector_value(cells, layer)
        weight *= np.minimum(layer.base + value / layer.scale, layer.most)
    return weight.astype(np.float32)


def _raster_value(cells: Cells, path: Path) -> Floats:
    if is_coarse(path, cells.grid):
        values, known = under_centres(path, cells)
        return np.where(known, np.nan_to_num(np.maximum(values, 0)), 0).astype(np.float64)
    return np.maximum(np.nan_to_num(means(path, cells)), 0)


def _vector_value(cells: Cells, layer: WeightSettings) -> Floats:
    """Return share covered, metres of lines or number of points of each cell, (n,)."""
    total = np.zeros(len(cells))
    if not len(cells):
        return total
    shapes = shapely.get_parts(read_vectors(layer.layer, cells.extent).geometry.to_numpy())
    kind = {"share": 2, "length": 1, "count": 0}[layer.measure]
    shapes = shapes[shapely.get_dimensions(shapes) == kind]
    if layer.measure == "count":
        at = cells.find(*shapely.get_coordinates(shapes).T)
        np.add.at(total, at[at >= 0], 1)
        return total
    near = _touched(cells, shapes)
    boxes = shapely.box(*cells.grid.bounds(cells.ids[near]).T)
    shape, box = shapely.STRtree(boxes).query(shapes, predicate="intersects")
    parts = shapely.intersection(shapes[shape], boxes[box])
    if layer.measure == "share":
        np.add.at(total, near[box], shapely.area(parts) / shapely.area(boxes[box]))
        return np.minimum(total, 1)
    np.add.at(total, near[box], _length_m(parts))
    return total


def _touched(cells: Cells, shapes: NDArray[np.object_]) -> Ints:
    """Return the positions of cells that lie in the bounds of a shape, so that polygons are made of these alone."""
    west, south, east, north = shapely.bounds(shapes).T if len(shapes) else np.empty((4, 0))
    low, high = cells.grid.locate(west, south)[0], cells.grid.locate(east, north)[0]
    shape = np.repeat(np.arange(len(low)), high - low + 1)
    row = np.arange(len(shape)) - np.repeat(np.cumsum(high - low + 1) - (high - low + 1), high - low + 1) + low[shape]
    count = cells.grid.columns(row)
    first, last = (np.clip(np.floor((lon[shape] + 180) / 360 * count), 0, count - 1).astype(np.int64) for lon in (west, east))
    marks = np.zeros(len(cells) + 1, np.int64)
    np.add.at(marks, np.searchsorted(cells.ids, (row << 32) + first), 1)
    np.add.at(marks, np.searchsorted(cells.ids, (row << 32) + last, side="right"), -1)
    return np.flatnonzero(np.cumsum(marks[:-1]) > 0)


def _length_m(lines: NDArray[np.object_]) -> Floats:
    """Return lengths in metres of short lines in degrees, (n,), on a sphere that is flat within a cell."""
    parts, owner = shapely.get_parts(lines, return_index=True)  # else the gaps between the parts of one would count
    points, part = shapely.get_coordinates(parts, return_index=True)
    same = part[1:] == part[:-1]
    step = np.diff(points, axis=0)[same] * 111_195.0
    middle = np.radians((points[1:, 1] + points[:-1, 1])[same] / 2)
    total = np.zeros(len(lines))
    np.add.at(total, owner[part[1:][same]], np.hypot(step[:, 0] * np.cos(middle), step[:, 1]))
    return total
