"""The cell grid: rows of equal height on the WGS84 ellipsoid, each cut into columns of equal area.

No projection, hence no zone seams and no stretched cells: between 60 S and 84 N every 1-km cell has its area within
0.02 % and sides within 2 % of each other. A cell is known by one int64, ``row * 2**32 + column``.

Longitudes and latitudes are degrees on WGS84 (EPSG:4326, longitude first).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely.geometry.base import BaseGeometry

from cgeartheye.errors import ShapeError
from cgeartheye.geometry.scanlines import Rows, spans

MAJOR_AXIS_M: Final = 6378137.0
"""Semi-major axis of WGS84."""
_FLATTENING: Final = 1 / 298.257223563
_E2: Final = _FLATTENING * (2 - _FLATTENING)
_E: Final = math.sqrt(_E2)
MERIDIAN_M: Final = 20003931.4586
"""Length of a WGS84 meridian from pole to pole."""
_COLUMN_BITS: Final = 32
_BLOCK: Final = 2**20
TIE: Final = 1e-9
"""Share of a cell or pixel within which a centre counts as lying on a border, and hence east of it in every layer."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CellGrid:
    """The grid of cells of about ``cell_m`` x ``cell_m`` metres that covers the Earth.

    Args:
        cell_m: side of a cell in metres, 1 to 1,000,000.

    Raises:
        ShapeError: if ``cell_m`` is outside its range.
    """

    cell_m: float

    def __post_init__(self) -> None:
        if not 1 <= self.cell_m <= 1_000_000:
            raise ShapeError(f"cell_m is {self.cell_m}; cells are 1 m to 1,000 km wide")

    @property
    def rows(self) -> int:
        """Number of rows from the South Pole to the North Pole; 20,004 at 1 km."""
        return round(MERIDIAN_M / self.cell_m)

    @property
    def row_height_deg(self) -> float:
        """Height of every row in degrees of latitude."""
        return 180 / self.rows

    def row_area_m2(self, rows: ArrayLike) -> Floats:
        """Return the exact area on the ellipsoid of whole rows, (n,) int -> (n,) float64 m2."""
        index = np.asarray(rows, dtype=np.int64)
        south, north = (np.radians(self._latitude(edge)) for edge in (index, index + 1))
        return math.pi * MAJOR_AXIS_M**2 * (1 - _E2) * (_authalic(north) - _authalic(south))

    def columns(self, rows: ArrayLike) -> Ints:
        """Return the number of columns of each row, (n,) int -> (n,) int64, at least 1."""
        index = np.asarray(rows, dtype=np.int64)
        if index.size > 1 and (first := int(index.min())) + index.size > (last := int(index.max())):
            return self._count(np.arange(first, last + 1))[index - first]  # many points, few rows
        return self._count(index)

    def _count(self, rows: Ints) -> Ints:
        return np.maximum(1, np.rint(self.row_area_m2(rows) / self.cell_m**2)).astype(np.int64)

    def locate(self, lon: ArrayLike, lat: ArrayLike) -> tuple[Ints, Ints]:
        """Return row and column of points, both (n,) int64; longitudes wrap, so that -180 and +180 are one meridian."""
        lat_deg = np.asarray(lat, dtype=np.float64)
        wrapped = (np.asarray(lon, dtype=np.float64) + 180) % 360
        row = np.clip(np.floor((lat_deg + 90) / 180 * self.rows), 0, self.rows - 1).astype(np.int64)
        count = self.columns(row)
        column = np.minimum(np.floor(wrapped / 360 * count).astype(np.int64), count - 1)
        return row, column

    def ids(self, lon: ArrayLike, lat: ArrayLike) -> Ints:
        """Return the cell ids of points, (n,) int64."""
        row, column = self.locate(lon, lat)
        return join(row, column)

    def bounds(self, ids: ArrayLike) -> Floats:
        """Return west, south, east, north of cells in degrees, (n,) int64 -> (n, 4) float64; none crosses +-180."""
        row, column = split(ids)
        width = 360 / self.columns(row)
        west = -180 + column * width
        return np.stack([west, self._latitude(row), np.minimum(west + width, 180), self._latitude(row + 1)], axis=-1)

    def centres(self, ids: ArrayLike) -> tuple[Floats, Floats]:
        """Return longitude and latitude of the cells' centres in degrees, each (n,) float64."""
        row, column = split(ids)
        return -180 + (column + 0.5) * 360 / self.columns(row), self._latitude(row + 0.5)

    def area_m2(self, ids: ArrayLike) -> Floats:
        """Return the exact areas of cells on the ellipsoid, (n,) int64 -> (n,) float64 m2."""
        row, _ = split(ids)
        return self.row_area_m2(row) / self.columns(row)

    def in_rows(self, first: int, stop: int) -> Ints:
        """Return the sorted ids of all cells of rows ``first`` to ``stop - 1``, (n,) int64."""
        rows = np.arange(first, stop)
        return _stretches(rows, np.zeros(len(rows), np.int64), self.columns(rows))

    def spans(self, area: BaseGeometry, first: int = 0, stop: int | None = None) -> tuple[Ints, Ints, Ints]:
        """Return the stretches of cells whose centres lie in an area: rows, first columns, columns after the last, (m,) each.

        A centre on a border belongs to the area north or east of it, so that areas side by side never share a cell.

        Args:
            area: polygon or multi-polygon in degrees; one over the antimeridian must be split there.
            first: lowest row that is asked for.
            stop: row after the highest; default: all.
        """
        _, south, _, north = area.bounds if not area.is_empty else (0.0, 0.0, 0.0, 0.0)
        low, high = self.locate([0, 0], [south, north])[0]
        rows = Rows(self.row_height_deg, max(first, int(low)), min(self.rows if stop is None else stop, int(high) + 1))
        if area.is_empty or rows.first >= rows.stop:
            none = np.empty(0, np.int64)
            return none, none, none
        row, west, east = spans(area, rows)
        count = self.columns(row)
        at = ((lon + 180) / 360 * count - (0.5 + TIE) for lon in (west, east))
        begin, end = (np.clip(np.ceil(column), 0, count).astype(np.int64) for column in at)
        return row, begin, end

    def within(self, area: BaseGeometry, *, whole: bool = False) -> Ints:
        """Return the sorted ids of the cells that lie in an area, (n,) int64.

        Args:
            area: polygon or multi-polygon in degrees; one over the antimeridian must be split there.
            whole: the whole cell must lie in the area; otherwise its centre suffices.
        """
        ids: Ints = np.unique(_stretches(*self.spans(area)))
        if not whole:
            return ids
        shapely.prepare(area)
        blocks = [ids[start : start + _BLOCK] for start in range(0, len(ids), _BLOCK)]  # polygons of few cells at a time
        inside = [shapely.covers(area, shapely.box(*self.bounds(block).T)) for block in blocks]
        chosen: NDArray[np.bool_] = np.concatenate([np.empty(0, bool), *inside])
        return np.asarray(ids[chosen])

    def _latitude(self, edge: ArrayLike) -> Floats:
        return np.asarray(edge, dtype=np.float64) * 180 / self.rows - 90


def join(row: ArrayLike, column: ArrayLike) -> Ints:
    """Return ids of (row, column) pairs, both (n,) int64."""
    return (np.asarray(row, dtype=np.int64) << _COLUMN_BITS) + np.asarray(column, dtype=np.int64)


def split(ids: ArrayLike) -> tuple[Ints, Ints]:
    """Return (row, column) of ids, both (n,) int64."""
    values = np.asarray(ids, dtype=np.int64)
    return values >> _COLUMN_BITS, values & (2**_COLUMN_BITS - 1)


def _stretches(rows: Ints, first: Ints, stop: Ints) -> Ints:
    """Return the ids of columns first .. stop - 1 of each row, one stretch after another."""
    lengths = stop - first
    starts = np.cumsum(lengths) - lengths
    return np.repeat(join(rows, first) - starts, lengths) + np.arange(lengths.sum())


def _authalic(phi: Floats) -> Floats:
    """Return q(phi), so that pi a^2 (1-e^2) (q2 - q1) is the area between two parallels (Snyder 1987, eq. 3-12)."""
    sine = np.sin(phi)
    return sine / (1 - _E2 * sine**2) + np.arctanh(_E * sine) / _E
