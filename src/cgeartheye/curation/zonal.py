"""Statistics of layers by cell, streamed: a window of the layer is read, its pixels are added to their cells, it is forgotten.

A pixel belongs to the cell that holds its centre; a cell that tiles or windows cut gets its parts from each of them,
added before anything is decided. Layers in degrees, north or south up, go strip by strip: the pixels of one row of cells
are summed down their columns, then the columns of each cell. Others are projected pixel by pixel. A layer whose pixels
are larger than the cells is looked up under the cells' centres instead, and so is a cell that holds no pixel's centre.

A layer is one raster, or a folder of rasters (tiles) which may differ in size and system.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from cgeartheye.curation.layers import Cells, near_tiles, tiles
from cgeartheye.geometry.cells import TIE, CellGrid
from cgeartheye.geometry.crs import LONLAT, Affine6, apply, invert, same_crs, transformer
from cgeartheye.rasters.reader import Raster, open_raster, read_raw, read_values

WINDOW_PX: Final = 2048
"""Least width of a window that is read at once, and its height; whole blocks of the file."""
_NODE_PX: Final = 32
"""Pixels between points that are projected exactly; the others are interpolated, within 0.02 px."""
_STRIP_PX: Final = 255
"""Rows whose pixels of one class are counted in 8 bits."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Tally(Protocol):
    """What pixels are added to."""

    def strip(self, values: NDArray[Any], nodata: float | None, starts: Ints, positions: Ints) -> None:
        """Add pixels (h, w): from column ``starts[i]`` on they belong to the cell at ``positions[i]``, or to none if -1."""

    def points(self, positions: Ints, values: NDArray[Any]) -> None:
        """Add single valid pixels, (m,) each."""


class ClassTally:
    """Pixels of each class in each of n cells.

    Args:
        n: cells.
        codes: code -> number of its class; other codes are not counted.
        n_classes: number of classes.
    """

    def __init__(self, n: int, codes: Mapping[int, int], n_classes: int) -> None:
        self.counts = np.zeros((n, n_classes), np.int64)
        self._codes = dict(codes)

    def strip(self, values: NDArray[Any], nodata: float | None, starts: Ints, positions: Ints) -> None:
        """Add (h, w) pixels, see :class:`Tally`; a comparison and a sum a code: both are a few instructions for 64 pixels."""
        inside = positions >= 0
        for top in range(0, len(values), _STRIP_PX):
            part = values[top : top + _STRIP_PX]
            for code, number in self._codes.items():
                if code != nodata:
                    down = np.add.reduce((part == code).view(np.uint8), axis=0, dtype=np.uint8)
                    count = np.add.reduceat(down, starts, dtype=np.int64)
                    np.add.at(self.counts, (positions[inside], np.full(int(inside.sum()), number)), count[inside])

    def points(self, positions: Ints, values: NDArray[Any]) -> None:
        """Add (h, w) or (m,) pixels, see :class:`Tally`."""
        number = look_up(values, self._codes)
        known = number >= 0
        _add(self.counts.reshape(-1), positions[known] * self.counts.shape[1] + number[known])


class MeanTally:
    """Sum and number of pixels in each of ``n`` cells."""

    def __init__(self, n: int) -> None:
        self.sums, self.counts = np.zeros(n), np.zeros(n, np.int64)

    def strip(self, values: NDArray[Any], nodata: float | None, starts: Ints, positions: Ints) -> None:
        """Add (h, w) or (m,) pixels, see :class:`Tally`."""
        valid = np.isfinite(values) if values.dtype.kind == "f" else None
        if nodata is not None:
            there = values != nodata
            valid = there if valid is None else valid & there
        if valid is None or valid.all():
            down, number = values, np.full(values.shape[1], len(values))
        else:
            down, number = np.where(valid, values, 0), np.add.reduce(valid, axis=0, dtype=np.int64)
        sums = np.add.reduce(down, axis=0, dtype=np.int64 if values.dtype.kind in "iu" else np.float64)
        inside = positions >= 0
        np.add.at(self.sums, positions[inside], np.add.reduceat(sums, starts)[inside])
        np.add.at(self.counts, positions[inside], np.add.reduceat(number, starts)[inside])

    def points(self, positions: Ints, values: NDArray[Any]) -> None:
        """Add (h, w) or (m,) pixels, see :class:`Tally`."""
        finite = np.isfinite(values)
        _add(self.sums, positions[finite], values[finite].astype(np.float64))
        _add(self.counts, positions[finite])

    @property
    def means(self) -> Floats:
        """(n,) float64, NaN where there is no data."""
        return np.where(self.counts > 0, self.sums / np.maximum(self.counts, 1), np.nan)


def class_counts(path: Path, cells: Cells, codes: Mapping[int, int], n_classes: int) -> Ints:
    """Count the pixels of each class in each cell.

    Args:
        path: raster of codes, or a folder of them.
        cells: n cells.
        codes: code -> number of its class; other codes are not counted.
        n_classes: number of classes.

    Returns: (n, n_classes) int64.
    """
    tally = ClassTally(len(cells), codes, n_classes)
    _stream(path, cells, tally)
    return tally.counts


def means(path: Path, cells: Cells) -> Floats:
    """Return each cell's mean value of a layer, (n,) float64, NaN where there is no data."""
    tally = MeanTally(len(cells))
    _stream(path, cells, tally)
    return tally.means


def look_up(values: NDArray[Any], codes: Mapping[int, int]) -> Ints:
    """Return the number of the class of each value, -1 for codes that are not named, (...) -> (...)."""
    known = np.array(sorted(codes), np.int64)
    numbers = np.array([codes[code] for code in known.tolist()], np.int64)
    if values.dtype == np.uint8:
        table = np.full(256, -1, np.int64)
        table[known[(known >= 0) & (known < 256)]] = numbers[(known >= 0) & (known < 256)]
        return np.asarray(table[values])
    code = values.astype(np.int64)
    at = np.minimum(np.searchsorted(known, code), len(known) - 1)
    found: Ints = np.where((known[at] == code) & (values == code), numbers[at], -1)
    return found


def is_coarse(path: Path, grid: CellGrid) -> bool:
    """Tell whether a layer's pixels are at least as large as the cells, so that it is looked up under their centres."""
    return tiles(path)[0].pixel_m >= grid.cell_m


def under_centres(path: Path, cells: Cells) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the value under each cell's centre and whether there is one, (n,) each; of overlapping tiles the first counts."""
    values: NDArray[Any] = np.zeros(len(cells), np.uint8)
    known = np.zeros(len(cells), bool)
    for tile in near_tiles(path, cells):
        missing = np.flatnonzero(~known)
        with open_raster(tile) as raster:
            values = values.astype(np.promote_types(values.dtype, raster.dataset.dtypes[0]), copy=False)
            for at, part in _at_centres(raster, cells if len(missing) == len(known) else cells.take(missing)):
                if len(at) == len(known):
                    return part, np.ones(len(known), bool)
                values[missing[at]], known[missing[at]] = part, True
    return values, known


def _add(totals: NDArray[Any], positions: Ints, weights: Floats | None = None) -> None:
    """Add 1 (or a weight) at each position; only the touched stretch of ``totals`` is visited."""
    if positions.size:
        first = int(positions.min())
        added = np.bincount(positions - first, weights=weights)
        totals[first : first + len(added)] += added.astype(totals.dtype)


def _stream(path: Path, cells: Cells, tally: Tally) -> None:
    """Add the pixels of all tiles, then what lies under the centres of cells that hold no pixel's centre."""
    seen = np.zeros(len(cells), bool)
    near = near_tiles(path, cells)
    for tile in near:
        with open_raster(tile) as raster:
            transform, crs = raster.georeference
            if same_crs(crs, LONLAT) and transform[1] == transform[3] == 0:
                _by_strips(raster, cells, tally, seen)
            else:
                _by_points(raster, cells, tally, seen)
    for tile in near:
        missing = np.flatnonzero(~seen)
        if missing.size:
            with open_raster(tile) as raster:
                for at, values in _at_centres(raster, cells.take(missing)):
                    tally.points(missing[at], values)
                    seen[missing[at]] = True


def _by_strips(raster: Raster, cells: Cells, tally: Tally, seen: NDArray[np.bool_]) -> None:
    plain = set(raster.dataset.mask_flag_enums[0]) <= {MaskFlags.all_valid, MaskFlags.nodata}
    for window in _windows(raster, cells):
        strips = [strip for strip in _strips(raster, window, cells) if (strip[3] >= 0).any()]
        if not strips:
            continue
        values, valid = (read_raw(raster, window), None) if plain else read_values(raster, window)
        for top, bottom, starts, positions in strips:
            seen[positions[positions >= 0]] = True
            part = values[top:bottom]
            if valid is None:
                tally.strip(part, raster.dataset.nodata, starts, positions)
            else:
                columns = np.broadcast_to(np.repeat(positions, np.diff(starts, append=part.shape[1])), part.shape)
                inside = valid[top:bottom] & (columns >= 0)
                tally.points(columns[inside], part[inside])


def _strips(raster: Raster, window: Window, cells: Cells) -> Iterator[tuple[int, int, Ints, Ints]]:
    """Yield for each row of cells in a window its first and last + 1 pixel row, where its cells begin, and their positions."""
    a, _, west, _, e, north = raster.georeference[0]
    lat = north + e * (window.row_off + np.arange(window.height) + 0.5)
    lon = west + a * (window.col_off + np.arange(window.width) + 0.5)
    rows = cells.grid.locate(np.zeros(len(lat)), lat)[0]
    tops = np.flatnonzero(np.diff(rows, prepend=-1))
    low, high = cells.places[0][[0, -1]]
    for top, bottom in zip(tops.tolist(), [*tops[1:].tolist(), len(rows)], strict=True):
        if low <= (row := int(rows[top])) <= high:
            columns = cells.grid.locate(lon, np.full(len(lon), lat[top]))[1]
            starts = np.flatnonzero(np.diff(columns, prepend=-1))
            yield top, bottom, starts, cells.position(row, columns[starts])


def _by_points(raster: Raster, cells: Cells, tally: Tally, seen: NDArray[np.bool_]) -> None:
    transform, crs = raster.georeference
    for window in _windows(raster, cells):
        position = cells.find(*_lonlat(window, transform, crs))
        if not (position >= 0).any():
            continue
        values, valid = read_values(raster, window)
        seen[position[position >= 0]] = True
        inside = (position >= 0) & valid
        tally.points(position[inside], values[inside])


def _windows(raster: Raster, cells: Cells) -> Iterator[Window]:
    """Yield windows of the blocks of the raster that may hold a cell, in reading order."""
    west, south, east, north = cells.extent
    along = np.linspace(0, 1, 21)
    edges = [(west + along * (east - west), np.full(21, lat)) for lat in (south, north)]
    edges += [(np.full(21, lon), south + along * (north - south)) for lon in (west, east)]
    lon, lat = (np.concatenate(values) for values in zip(*edges, strict=True))
    transform, crs = raster.georeference
    x, y = transformer(LONLAT, crs).transform(lon, lat)
    column, row = apply(invert(transform), x, y)
    if not (np.isfinite(column).all() and np.isfinite(row).all()):
        column, row = np.array([0, raster.width]), np.array([0, raster.height])
    ends = (transform[2], transform[2] + transform[0] * raster.width)
    if same_crs(crs, LONLAT) and (abs(ends[1] - ends[0]) > 180 or min(ends) < -180 or max(ends) > 180):
        column = np.array([0, raster.width])  # the cells may lie beyond its seam
    width, height = _window_size(raster)
    block_height, block_width = raster.dataset.block_shapes[0]
    first, last = _span(row, raster.height, block_height)
    left, right = _span(column, raster.width, block_width)
    for top in range(first, last, height):
        for start in range(left, right, width):
            yield Window(start, top, min(width, right - start), min(height, last - top))


def _window_size(raster: Raster) -> tuple[int, int]:
    block_height, block_width = raster.dataset.block_shapes[0]
    if block_width >= raster.width:  # stored in strips, which cost as much for a part as for the whole
        return raster.width, max(block_height, WINDOW_PX**2 // raster.width // block_height * block_height)
    return block_width * -(-WINDOW_PX // block_width), block_height * -(-WINDOW_PX // block_height)


def _span(values: Floats, size: int, block: int) -> tuple[int, int]:
    """Return the whole blocks around ``values``, a pixel wider, inside 0 .. size: pieces side by side read few of them twice."""
    first, last = np.clip([np.floor(values.min()) - 1, np.ceil(values.max()) + 1], 0, size).astype(np.int64).tolist()
    return first // block * block, min(size, -(-last // block) * block)


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


def _at_centres(raster: Raster, cells: Cells) -> Iterator[tuple[Ints, NDArray[Any]]]:
    """Yield positions of cells and the valid values under their centres, part by part of the raster."""
    column, row = _pixels_of(raster, cells)
    chosen = np.arange(len(cells))
    if column.min() < 0 or column.max() >= raster.width or row.min() < 0 or row.max() >= raster.height:
        inside = (column >= 0) & (column < raster.width) & (row >= 0) & (row < raster.height)
        chosen = np.flatnonzero(inside)
        column, row = column[chosen], row[chosen]
    if not chosen.size:
        return
    for here in _blocks(column, row):
        top, left = int(row[here].min()), int(column[here].min())
        size = (int(column[here].max()) - left + 1, int(row[here].max()) - top + 1)
        values, valid = read_values(raster, Window(left, top, *size))
        at = (row[here] - top) * size[0] + (column[here] - left)
        if valid.all():
            yield chosen[here], values.ravel()[at]
        else:
            good = valid.ravel()[at]
            yield chosen[here][good], values.ravel()[at[good]]


def _pixels_of(raster: Raster, cells: Cells) -> tuple[Ints, Ints]:
    """Return column and row, (n,) each, of the pixel under each cell's centre; they may lie outside the raster."""
    transform, crs = raster.georeference
    if not (same_crs(crs, LONLAT) and transform[1] == transform[3] == 0):
        x, y = transformer(LONLAT, crs).transform(*cells.grid.centres(cells.ids))
        u, v = apply(invert(transform), x, y)
        lost = ~(np.isfinite(u) & np.isfinite(v))
        return tuple(np.where(lost, -1, np.floor(np.where(lost, 0, w))).astype(np.int64) for w in (u, v))  # type: ignore[return-value]
    a, _, west, _, e, north = transform
    rows, _ = cells.runs
    down = np.floor(((rows + 0.5) * cells.grid.row_height_deg - 90 - north) / e).astype(np.int64)
    across = cells.places[1] + 0.5  # of millions of cells: nothing is computed twice, and in place
    across *= cells.spread(360 / cells.grid.columns(rows))
    across -= 180 + west
    if west < -180 or west + a * raster.width > 180 + 1e-9:
        across %= 360
    across /= a
    across += TIE if a > 0 else -TIE  # as regions do: else a centre between pixels has the region of one, the class of the other
    return np.floor(across, out=across).astype(np.int64), cells.spread(down)


def _blocks(column: Ints, row: Ints) -> Iterator[Any]:
    """Yield selections of pixels that lie close enough to one another to be read at once."""
    if (np.ptp(column) + 1) * (np.ptp(row) + 1) <= WINDOW_PX**2:
        yield slice(None)
        return
    block = (row // WINDOW_PX << 32) + column // WINDOW_PX
    for number in np.unique(block):
        yield block == number
