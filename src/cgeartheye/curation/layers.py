"""Layers on disk: one raster or a folder of tiles, and polygons of regions as stretches of cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import CellGrid, join, split
from cgeartheye.geometry.crs import LONLAT, Affine6, footprint, pixel_size_m, same_crs, split_antimeridian
from cgeartheye.rasters.reader import open_raster

_SUFFIXES: Final = {".tif", ".tiff", ".jp2"}
_DEGREE_M: Final = 111_319.5
"""A degree of the equator."""
Box = tuple[float, float, float, float]
WORLD: Final[Box] = (-180.0, -90.0, 180.0, 90.0)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Cells in order of id."""

    grid: CellGrid
    ids: Ints

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def places(self) -> tuple[Ints, Ints]:
        """Rows and columns, (n,) each."""
        return split(self.ids)

    @cached_property
    def extent(self) -> Box:
        """West, south, east, north of all of them together, degrees."""
        row, starts = self.runs
        width = 360 / self.grid.columns(row)
        height = self.grid.row_height_deg
        first, last = (self.places[1][at] for at in (starts, np.append(starts[1:], len(self.ids)) - 1))
        west, east = float((first * width).min()) - 180, float(((last + 1) * width).max()) - 180
        return west, float(row[0]) * height - 90, east, float(row[-1] + 1) * height - 90

    @cached_property
    def runs(self) -> tuple[Ints, Ints]:
        """Rows that occur, ascending, and the position of the first cell of each."""
        row = self.places[0]
        starts = np.flatnonzero(np.diff(row, prepend=-1))
        return row[starts], starts

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return what is told of each row that occurs for each of its cells, (rows,) -> (n,)."""
        return np.repeat(values, np.diff(self.runs[1], append=len(self.ids)))

    def find(self, lon: Floats, lat: Floats) -> Ints:
        """Return the position of the cell of each point, -1 where it is none of these; any shape."""
        return self.position(*self.grid.locate(lon, lat))

    def position(self, row: Ints | int, column: Ints) -> Ints:
        """Return the position of cells by row and column, -1 where it is none of these; any shape."""
        wanted = join(row, column)
        position = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        return np.where(self.ids[position] == wanted, position, -1)

    def take(self, chosen: NDArray[Any]) -> Cells:
        """Return some of them, by mask (n,) or ascending positions."""
        return Cells(self.grid, self.ids[chosen])


@dataclass(frozen=True)
class Tile:
    """A raster of a layer: its file, boxes in degrees (two at the antimeridian), and the longer side of a pixel in metres."""

    path: Path
    boxes: tuple[Box, ...]
    pixel_m: float


def tiles(path: Path) -> tuple[Tile, ...]:
    """Return the rasters of a layer, in order of name: the file itself, or those of a folder.

    Raises:
        DataError: if there is none, or one cannot be read or has no place on Earth.
    """
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise DataError("holds no .tif, .tiff or .jp2 file", where=str(path), remedy="give the folder that holds the tiles")
    return _read_tiles(tuple((file, _changed(file)) for file in files))


def near_tiles(path: Path, cells: Cells) -> list[Path]:
    """Return the files of a layer that may hold one of the cells, in order of name."""
    if not len(cells):
        return []
    west, south, east, north = cells.extent
    return [
        tile.path
        for tile in tiles(path)
        if any(w <= east and e >= west and s <= north and n >= south for w, s, e, n in tile.boxes)
    ]


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=16)
def _read_tiles(files: tuple[tuple[Path, int], ...]) -> tuple[Tile, ...]:
    return tuple(_tile(file) for file, _ in files)


def _tile(path: Path) -> Tile:
    with open_raster(path) as raster:
        transform, crs = raster.georeference
        outline = (transform, raster.width, raster.height, crs)
        return Tile(path, _boxes(*outline), _pixel_m(*outline))


def _boxes(transform: Affine6, width: int, height: int, crs: str) -> tuple[Box, ...]:
    if same_crs(crs, LONLAT) and abs(transform[0]) * width > 359:
        return (WORLD,)  # a whole turn: its outline meets itself
    try:
        outline = footprint(transform, width, height, crs)
    except ValueError:  # reaches beyond what its projection can show
        return (WORLD,)
    return tuple((float(w), float(s), float(e), float(n)) for w, s, e, n in (p.bounds for p in shapely.get_parts(outline)))


def _pixel_m(transform: Affine6, width: int, height: int, crs: str) -> float:
    if same_crs(crs, LONLAT):
        return max(abs(transform[0]), abs(transform[4])) * _DEGREE_M
    return max(pixel_size_m(transform, width, height, crs))


@dataclass(frozen=True)
class Regions:
    """Named areas as stretches of cells, in order of row.

    Args:
        names: of the regions, ascending.
        region: (m,) number of each stretch's name.
        first: (m,) id of its first cell.
        stop: (m,) id after its last cell.
    """

    names: tuple[str, ...]
    region: Ints
    first: Ints
    stop: Ints

    def within(self, rows: Ints, low: Ints, high: Ints) -> Ints:
        """Return the sorted ids of the cells of any region in consecutive rows, columns ``low`` to ``high - 1`` of each."""
        begin, end = np.searchsorted(self.first >> 32, [rows[0], rows[-1] + 1])
        first, stop = self.first[begin:end], self.stop[begin:end]
        at = (first >> 32) - rows[0]
        first, stop = np.maximum(first, join(rows, low)[at]), np.minimum(stop, join(rows, high)[at])
        order = np.argsort(first, kind="stable")
        first, stop = first[order], stop[order]
        first[1:] = np.maximum(first[1:], np.maximum.accumulate(stop)[:-1])  # regions may overlap
        lengths = np.maximum(stop - first, 0)
        return np.repeat(first - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())

    def paint(self, cells: Cells) -> NDArray[np.int32]:
        """Return the number of the region that holds each cell's centre, (n,); the first by name where several do, else -1."""
        found = np.full(len(cells), -1, np.int32)
        if not len(cells):
            return found
        low, high = (np.searchsorted(self.first >> 32, row) for row in (cells.ids[0] >> 32, (cells.ids[-1] >> 32) + 1))
        here = slice(int(low), int(high))
        starts, stops = np.searchsorted(cells.ids, self.first[here]), np.searchsorted(cells.ids, self.stop[here])
        some = np.flatnonzero(starts < stops)
        some = some[np.argsort(-self.region[here][some], kind="stable")]
        for start, stop, number in zip(*(a[some].tolist() for a in (starts, stops, self.region[here])), strict=True):
            found[start:stop] = number
        return found


def read_regions(path: Path, field: str | None, grid: CellGrid) -> Regions:
    """Read named polygons as stretches of cells; without a ``field`` all are one region.

    Raises:
        DataError: if the file cannot be read or lacks the column.
    """
    return _read_regions(path, _changed(path), field, grid)


@lru_cache(maxsize=16)
def _read_regions(path: Path, _: int, field: str | None, grid: CellGrid) -> Regions:
    frame = read_polygons(path)
    if field is not None and field not in frame.columns:
        known = ", ".join(str(name) for name in frame.columns if name != frame.geometry.name)
        remedy = f"set curate.region_field to one of: {known}"
        raise DataError(f"has no column {field!r}", where=str(path), remedy=remedy)
    labels = ["inside"] * len(frame) if field is None else frame[field].astype(str).tolist()
    names = tuple(sorted(set(labels)))
    parts = [(grid.spans(area), names.index(label)) for area, label in zip(frame.geometry, labels, strict=True)]
    row, first, stop = (np.concatenate([part[i] for part, _ in parts]) for i in range(3))
    number = np.concatenate([np.full(len(part[0]), label, np.int64) for part, label in parts])
    order = np.flatnonzero(first < stop)
    order = order[np.argsort(row[order], kind="stable")]
    return Regions(names, number[order], join(row, first)[order], join(row, stop)[order])


def read_polygons(path: Path) -> gpd.GeoDataFrame:
    """Read polygons in degrees (EPSG:4326), cut at the antimeridian, from GeoJSON, GeoPackage or GeoParquet.

    Raises:
        DataError: if the file cannot be read, has no coordinate system, or holds no polygon.
    """
    frame = read_vectors(path)
    frame = frame[frame.geom_type.isin(["Polygon", "MultiPolygon"])]
    if frame.empty:
        raise DataError("holds no polygon", where=str(path), remedy="leave the setting out if there is nothing to tell")
    areas = shapely.make_valid(frame.geometry.to_numpy())
    beyond = np.abs(shapely.bounds(areas)[:, [0, 2]]).max(axis=1) > 180
    areas[beyond] = [split_antimeridian(area) for area in areas[beyond]]
    return frame.set_geometry(areas)


def read_vectors(path: Path, box: Box | None = None) -> gpd.GeoDataFrame:
    """Read features in degrees (EPSG:4326), all or those that meet a box in degrees.

    Raises:
        DataError: if the file cannot be read or has no coordinate system.
    """
    try:
        if path.suffix == ".parquet":
            frame = gpd.read_parquet(path)
        else:
            frame = gpd.read_file(path, bbox=None if box is None else gpd.GeoSeries([shapely.box(*box)], crs=LONLAT))
    except (DataSourceError, OSError, ValueError) as error:
        raise DataError(f"cannot be read as features ({error})", where=str(path)) from error
    if frame.crs is None:
        raise DataError("has no coordinate reference system", where=str(path), remedy="write one into the file")
    frame = frame[frame.geometry.notna()].to_crs(LONLAT)
    return frame if box is None else frame[frame.intersects(shapely.box(*box))]
