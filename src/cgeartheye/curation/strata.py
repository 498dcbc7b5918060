"""Describe cells by region, land cover and elevation, and draw from the strata these make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from cgeartheye.curation.candidates import read_polygons
from cgeartheye.curation.quotas import Quotas, draw, plan_quotas, priorities
from cgeartheye.curation.zonal import Cells, class_counts, means
from cgeartheye.errors import DataError
from cgeartheye.settings.curate import CLASSES, CurateSettings

NONE: Final = "none"
"""Region, class or elevation bin of a cell about which a layer says nothing."""

Ints = NDArray[np.int64]
Texts = NDArray[np.str_]


@dataclass(frozen=True)
class Described:
    """What the layers say of n cells.

    Args:
        region: (n,) names.
        land_cover: (n,) classes.
        shares: (n, classes) float64, share of each class among the counted pixels.
        classes: names of the columns of ``shares``, in the order that decides ties.
        elevation_m: (n,) float64, NaN where unknown.
        elevation_bin: (n,) text, number of the bin or "none".
    """

    region: Texts
    land_cover: Texts
    shares: NDArray[np.float64]
    classes: tuple[str, ...]
    elevation_m: NDArray[np.float64]
    elevation_bin: Texts

    @property
    def strata(self) -> Texts:
        """Keys ``region/class/bin`` of the cells' strata, (n,)."""
        joined = zip(self.region, self.land_cover, self.elevation_bin, strict=True)
        return np.array([f"{region}/{cover}/{step}" for region, cover, step in joined])


def describe_cells(cells: Cells, settings: CurateSettings) -> Described:
    """Look cells up in the layers of the settings; a layer that is not given says "none" everywhere.

    Raises:
        DataError: if a layer cannot be read, or the regions lack the column that names them.
    """
    n = len(cells.ids)
    classes = _class_names(settings)
    shares, land_cover = np.zeros((n, len(classes))), np.full(n, NONE, dtype=object)
    if settings.land_cover is not None:
        codes = {code: classes.index(name) for code, name in settings.land_cover_classes.items()}
        counts = class_counts(settings.land_cover, cells, codes, len(classes))
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        land_cover = classify(shares, classes, settings.land_cover_minimum)
    elevation = np.full(n, np.nan) if settings.elevation is None else means(settings.elevation, cells)
    steps = np.floor((elevation - settings.elevation_start_m) / settings.elevation_bin_m)
    bins = np.array([NONE if np.isnan(step) else str(int(step)) for step in steps], dtype=object)
    return Described(_regions(cells, settings), land_cover.astype(str), shares, classes, elevation, bins.astype(str))


def _class_names(settings: CurateSettings) -> tuple[str, ...]:
    named = set(settings.land_cover_classes.values())
    return (*(name for name in CLASSES if name in named), *sorted(named - set(CLASSES)))


def classify(shares: NDArray[np.float64], classes: tuple[str, ...], minimum: dict[str, float]) -> NDArray[np.object_]:
    """Return the class of each cell: one whose share reaches its minimum, tried in the order of ``minimum``, else the majority.

    Args:
        shares: (n, classes) float64, rows sum to 1 or are 0 where nothing was counted.
        classes: names of the columns; ties of the majority go to the earlier one.
        minimum: share from which a class wins against the majority.

    Returns: (n,) names, "none" where nothing was counted.
    """
    names = np.array(classes, dtype=object)
    found: NDArray[np.object_] = names[shares.argmax(axis=1)]
    for name in reversed([name for name in minimum if name in classes]):
        found[shares[:, classes.index(name)] >= minimum[name]] = name
    found[shares.sum(axis=1) == 0] = NONE
    return found


def _regions(cells: Cells, settings: CurateSettings) -> Texts:
    """Return the region that holds each cell's centre; of overlapping ones the first by name."""
    names = np.full(len(cells.ids), NONE, dtype=object)
    if settings.regions is None:
        return names.astype(str)
    frame = read_polygons(settings.regions)
    if settings.region_field not in frame.columns:
        known = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name)
        remedy = f"set curate.region_field to one of: {known}"
        raise DataError(f"has no column {settings.region_field!r}", where=str(settings.regions), remedy=remedy)
    frame = frame.assign(_name=frame[settings.region_field].astype(str)).sort_values("_name", kind="stable")
    points = shapely.points(*cells.grid.centres(cells.ids))
    region, cell = shapely.STRtree(points).query(frame.geometry.to_numpy(), predicate="intersects")
    for number, position in sorted(zip(region.tolist(), cell.tolist(), strict=True), reverse=True):
        names[position] = frame["_name"].iloc[number]
    return names.astype(str)


@dataclass(frozen=True)
class Draw:
    """A finished draw over n cells.

    Args:
        chosen: (n,) bool.
        strata: table published as ``strata.parquet``: key, parts, cells, alpha, capped, floored, drawn.
        factor: by which alpha was multiplied.
    """

    chosen: NDArray[np.bool_]
    strata: pa.Table
    factor: float


def draw_cells(ids: Ints, described: Described, settings: CurateSettings) -> Draw:
    """Draw cells by the sampling formula; every cell if no number of places is set.

    Raises:
        DataError: if there are more strata than places wanted.
    """
    keys, first, numbers, sizes = np.unique(described.strata, return_index=True, return_inverse=True, return_counts=True)
    classes = described.land_cover[first].tolist()
    total = len(ids) if settings.places is None else max(1, settings.places // settings.places_per_cell)
    quotas = plan_quotas(sizes.astype(np.int64), classes, total, shares=settings.shares, shortage=settings.shortage)
    chosen = draw(ids, numbers.astype(np.int64), quotas.drawn, seed=settings.seed)
    return Draw(chosen, _strata_table(keys, first, described, sizes, quotas), quotas.factor)


def _strata_table(keys: Texts, first: Ints, described: Described, sizes: Ints, quotas: Quotas) -> pa.Table:
    return pa.table(
        {
            "stratum": pa.array(keys.tolist(), pa.string()),
            "region": pa.array(described.region[first].tolist(), pa.string()),
            "land_cover": pa.array(described.land_cover[first].tolist(), pa.string()),
            "elevation_bin": pa.array(described.elevation_bin[first].tolist(), pa.string()),
            "cells": pa.array(sizes, pa.int64()),
            "alpha": pa.array(quotas.alpha, pa.float64()),
            "capped": pa.array(quotas.capped, pa.bool_()),
            "floored": pa.array(quotas.floored, pa.bool_()),
            "drawn": pa.array(quotas.drawn, pa.int64()),
        }
    )


def cells_table(cells: Cells, described: Described, drawn: NDArray[np.bool_], *, seed: int) -> pa.Table:
    """Return ``cells.parquet``: one row a candidate cell with its layers, stratum, priority and whether it was ``drawn`` (n,)."""
    lon, lat = cells.grid.centres(cells.ids)
    columns = {
        "cell": pa.array(cells.ids, pa.int64()),
        "lon": pa.array(lon, pa.float64()),
        "lat": pa.array(lat, pa.float64()),
        "region": pa.array(described.region.tolist(), pa.string()),
        "land_cover": pa.array(described.land_cover.tolist(), pa.string()),
        "elevation_m": pa.array(described.elevation_m, pa.float64(), from_pandas=True),
        "elevation_bin": pa.array(described.elevation_bin.tolist(), pa.string()),
        "stratum": pa.array(described.strata.tolist(), pa.string()),
        "priority": pa.array(priorities(cells.ids, seed), pa.uint64()),
        "drawn": pa.array(drawn, pa.bool_()),
    }
    for number, name in enumerate(described.classes):
        columns[f"share_{name}"] = pa.array(described.shares[:, number], pa.float64())
    return pa.table(columns)
