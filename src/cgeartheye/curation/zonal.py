"""Statistics of layers by cell, streamed: a window of the layer is read, its pixels are added to their cells, it is forgotten.

A pixel belongs to the cell that holds its centre. A cell in which no pixel centre lies (the layer is coarser than the
cells) takes the pixel under its own centre.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from cgeartheye.geometry.cells import CellGrid, join
from cgeartheye.geometry.crs import LONLAT, Affine6, apply, invert, transformer
from cgeartheye.rasters.reader import Raster, open_raster, read_values

WINDOW_PX: Final = 1024
_NODE_PX: Final = 32
"""Pixels between points that are projected exactly; the others are interpolated, within 0.02 px."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Cells in order of id."""

    grid: CellGrid
    ids: Ints

    def find(self, lon: Floats, lat: Floats) -> Ints:
        """Return the position of the cell of each point, -1 where it is none of these; any shape."""
        row = np.clip((lat + 90) / 180 * self.grid.rows, 0, self.grid.rows - 1).astype(np.int64)
        first = int(row.min())
        columns = self.grid.columns(np.arange(first, int(row.max()) + 1))[row - first]
        column = np.minimum(((lon + 180) % 360 / 360 * columns).astype(np.int64), columns - 1)
        wanted = join(row, column)
        position = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.where(self.ids[position] == wanted, position, -1)


def class_counts(path: Path, cells: Cells, codes: Mapping[int, int], n_classes: int) -> Ints:
    """Count the pixels of each class in each cell.

    Args:
        path: raster of codes.
        cells: n cells.
        codes: code -> number of its class; other codes are not counted.
        n_classes: number of classes.

    Returns: (n, n_classes) int64.
    """
    known = np.array(sorted(codes), np.int64)
    numbers = np.array([codes[code] for code in known.tolist()], np.int64)
    counts = np.zeros(len(cells.ids) * n_classes, np.int64)
    for position, values in _pixels(path, cells):
        code = values.astype(np.int64)
        at = np.minimum(np.searchsorted(known, code), len(known) - 1)
        right = known[at] == code
        _add(counts, position[right] * n_classes + numbers[at[right]])
    return counts.reshape(-1, n_classes)


def means(path: Path, cells: Cells) -> Floats:
    """Return each cell's mean value of a raster, (n,) float64, NaN where there is no data."""
    sums, counts = np.zeros(len(cells.ids)), np.zeros(len(cells.ids), np.int64)
    for position, values in _pixels(path, cells):
        finite = np.isfinite(values)
        _add(sums, position[finite], values[finite].astype(np.float64))
        _add(counts, position[finite])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _add(totals: NDArray[Any], positions: Ints, weights: Floats | None = None) -> None:
    """Add 1 (or a weight) at each position; only the touched stretch of ``totals`` is visited."""
    if positions.size:
        first = int(positions.min())
        added = np.bincount(positions - first, weights=weights)
        totals[first : first + len(added)] += added


def _pixels(path: Path, cells: Cells) -> Iterator[tuple[Ints, NDArray[Any]]]:
    """Yield (positions of cells, values) of the valid pixels, window by window, then those under centres of empty cells."""
    seen = np.zeros(len(cells.ids), bool)
    with open_raster(path) as raster:
        transform, crs = raster.georeference
        for window in _windows(raster, cells, transform, crs):
            lon, lat = _lonlat(window, transform, crs)
            position = cells.find(lon, lat)
            if not (position >= 0).any():
                continue
            values, valid = read_values(raster, window)
            seen[position[position >= 0]] = True
            inside = (position >= 0) & valid
            yield position[inside], values[inside]
        yield from _under_centres(raster, cells, np.flatnonzero(~seen))


def _windows(raster: Raster, cells: Cells, transform: Affine6, crs: str) -> Iterator[Window]:
    """Yield the windows of the raster that may hold a cell, in reading order."""
    if not len(cells.ids):
        return
    west, south, east, north = cells.grid.bounds(cells.ids).T
    along = np.linspace(0, 1, 21)
    edges = [(west.min() + along * (east.max() - west.min()), np.full(21, lat)) for lat in (south.min(), north.max())]
    edges += [(np.full(21, lon), south.min() + along * (north.max() - south.min())) for lon in (west.min(), east.max())]
    lon, lat = (np.concatenate(values) for values in zip(*edges, strict=True))
    x, y = transformer(LONLAT, crs).transform(lon, lat)
    column, row = apply(invert(transform), x, y)
    if not (np.isfinite(column).all() and np.isfinite(row).all()):
        column, row = np.array([0, raster.width]), np.array([0, raster.height])
    first, last = _span(row, raster.height)
    left, right = _span(column, raster.width)
    for top in range(first // WINDOW_PX * WINDOW_PX, last, WINDOW_PX):
        for start in range(left // WINDOW_PX * WINDOW_PX, right, WINDOW_PX):
            yield Window(start, top, min(WINDOW_PX, raster.width - start), min(WINDOW_PX, raster.height - top))


def _span(values: Floats, size: int) -> tuple[int, int]:
    """Return the whole numbers around ``values``, a pixel wider, inside 0 .. size."""
    return int(np.clip(np.floor(values.min()) - 1, 0, size)), int(np.clip(np.ceil(values.max()) + 1, 0, size))


def _lonlat(window: Window, transform: Affine6, crs: str) -> tuple[Floats, Floats]:
    """Return longitude and latitude of the window's pixel centres, each (H, W)."""
    rows, columns = (_nodes(int(size)) for size in (window.height, window.width))
    grid_column, grid_row = np.meshgrid(columns + window.col_off, rows + window.row_off)
    x, y = apply(transform, grid_column.ravel(), grid_row.ravel())
    lon, lat = (np.reshape(v, grid_row.shape) for v in transformer(crs, LONLAT).transform(x, y))
    lon = lon[0, 0] + (lon - lon[0, 0] + 180) % 360 - 180  # neighbours on both sides of +-180 come together
    down, across = _weights(rows, int(window.height)), _weights(columns, int(window.width)).T
    return down @ lon @ across, down @ lat @ across


def _nodes(size: int) -> Floats:
    return np.linspace(0, size, max(2, -(-size // _NODE_PX) + 1))


def _weights(nodes: Floats, size: int) -> Floats:
    """Return the matrix (size, nodes) that interpolates linearly from nodes to pixel centres."""
    centres = np.arange(size) + 0.5
    right = np.clip(np.searchsorted(nodes, centres), 1, len(nodes) - 1)
    share = (centres - nodes[right - 1]) / (nodes[right] - nodes[right - 1])
    weights = np.zeros((size, len(nodes)))
    weights[np.arange(size), right - 1] = 1 - share
    weights[np.arange(size), right] = share
    return weights


def _under_centres(raster: Raster, cells: Cells, empty: Ints) -> Iterator[tuple[Ints, NDArray[Any]]]:
    if not empty.size:
        return
    transform, crs = raster.georeference
    x, y = transformer(LONLAT, crs).transform(*cells.grid.centres(cells.ids[empty]))
    column, row = (np.floor(v) for v in apply(invert(transform), x, y))
    inside = (column >= 0) & (column < raster.width) & (row >= 0) & (row < raster.height)
    chosen, column, row = empty[inside], column[inside].astype(np.int64), row[inside].astype(np.int64)
    block = row // WINDOW_PX * (raster.width // WINDOW_PX + 1) + column // WINDOW_PX
    for number in np.unique(block):
        here = block == number
        top, left = int(row[here].min()), int(column[here].min())
        size = (int(column[here].max()) - left + 1, int(row[here].max()) - top + 1)
        values, valid = read_values(raster, Window(left, top, *size))
        at = (row[here] - top, column[here] - left)
        yield chosen[here][valid[at]], values[at][valid[at]]
