"""Which cells can be sampled: their chip lies inside the footprints of a date, and away from what is held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from cgeartheye.errors import DataError
from cgeartheye.geometry.cells import MAJOR_AXIS_M, CellGrid
from cgeartheye.geometry.crs import LONLAT, split_antimeridian, utm_crs
from cgeartheye.rasters.scenes import Scene

_E2: Final = 0.00669437999014
"""Squared eccentricity of WGS84."""
_SEAM_DEG: Final = 1e-8
"""Footprints of one date are joined across gaps below 1 mm, which rounding leaves between neighbours."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Candidates:
    """Places that could be sampled, in order of cell and slot.

    Args:
        cells: (n,) int64 ids.
        slots: (n,) int64, number of the place in its cell.
        lon: (n,) degrees, centre.
        lat: (n,) degrees, centre.
        scenes: for each place the positions of the scenes that cover it together on their dates, ascending.
        n_dates: (n,) int64, dates that cover it.
    """

    cells: Ints
    slots: Ints
    lon: Floats
    lat: Floats
    scenes: list[tuple[int, ...]]
    n_dates: Ints

    def take(self, chosen: NDArray[Any]) -> Candidates:
        """Return some of the places, by mask (n,) or positions."""
        at = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        return Candidates(
            self.cells[at], self.slots[at], self.lon[at], self.lat[at], [self.scenes[i] for i in at], self.n_dates[at]
        )


def find_candidates(scenes: Sequence[Scene], grid: CellGrid, side_m: float, per_cell: int) -> Candidates:
    """Return the places whose chip of ``side_m`` metres lies inside the joined footprints of at least one date.

    Args:
        scenes: of the catalogue.
        grid: of the cells.
        side_m: side of a chip.
        per_cell: places in a cell, on a square raster of slots inside it.
    """
    ids = np.unique(np.concatenate([grid.within(scene.footprint) for scene in scenes]))
    cells, slots = np.repeat(ids, per_cell), np.tile(np.arange(per_cell), len(ids))
    lon, lat = _centres(grid, ids, per_cell)
    tree = shapely.STRtree(chip_boxes(lon, lat, side_m))
    covering: dict[int, list[int]] = defaultdict(list)
    n_dates = np.zeros(len(cells), np.int64)
    for members in _by_date(scenes):
        covered = tree.query(_joined([scenes[i] for i in members]), predicate="contains")
        n_dates[covered] += 1
        inside = set(covered.tolist())
        for number in members:
            for place in tree.query(scenes[number].footprint, predicate="intersects").tolist():
                if place in inside:
                    covering[place].append(number)
    found = Candidates(cells, slots, lon, lat, [tuple(sorted(covering[i])) for i in range(len(cells))], n_dates)
    return found.take(n_dates > 0)


def _by_date(scenes: Sequence[Scene]) -> list[list[int]]:
    dates: dict[Any, list[int]] = defaultdict(list)
    for number, scene in enumerate(scenes):
        dates[scene.date].append(number)
    return [dates[date] for date in sorted(dates)]


def _joined(scenes: Sequence[Scene]) -> Any:  # noqa: ANN401 - shapely geometry
    if len(scenes) == 1:
        area = scenes[0].footprint
    else:
        area = shapely.union_all([scene.footprint.buffer(_SEAM_DEG, join_style="mitre") for scene in scenes])
    shapely.prepare(area)
    return area


def _centres(grid: CellGrid, ids: Ints, per_cell: int) -> tuple[Floats, Floats]:
    """Return centres of ``per_cell`` slots a cell, cell by cell: the first of a square raster, row by row."""
    side = int(np.ceil(np.sqrt(per_cell)))
    west, south, east, north = (edge[:, None] for edge in grid.bounds(ids).T)
    slot = np.arange(per_cell)
    lon = west + (east - west) * (slot % side + 0.5) / side
    lat = south + (north - south) * (slot // side + 0.5) / side
    return lon.ravel(), lat.ravel()


def chip_boxes(lon: Floats, lat: Floats, side_m: float) -> NDArray[np.object_]:
    """Return boxes in degrees that hold the chips centred on points, (n,) each.

    A chip is square in a UTM zone and thus turned against the meridian; the box is widened by that angle, and by 1 %.
    """
    sine = np.sin(np.radians(lat))
    zone_lon = np.floor((lon + 180) / 6) * 6 - 177
    turn = np.abs(np.radians(lon - zone_lon) * sine)
    half = side_m / 2 * (np.cos(turn) + np.sin(turn)) * 1.01
    root = np.sqrt(1 - _E2 * sine**2)
    north = np.degrees(half / (MAJOR_AXIS_M * (1 - _E2) / root**3))
    east = np.degrees(half / (MAJOR_AXIS_M / root * np.maximum(np.cos(np.radians(lat)), 1e-6)))
    return np.asarray(shapely.box(lon - east, lat - north, lon + east, lat + north))


def outside_hold_out(candidates: Candidates, hold_out: Path, side_m: float) -> NDArray[np.bool_]:
    """Return (n,) bool, True where a chip keeps at least ``side_m`` metres away from every held-out polygon.

    Raises:
        DataError: if the file cannot be read, or holds no polygon.
    """
    frame = read_polygons(hold_out)
    buffered = []
    for geometry in frame.geometry:
        centre = geometry.centroid
        local = gpd.GeoSeries([geometry], crs=LONLAT).to_crs(utm_crs(centre.x, centre.y))
        buffered.append(split_antimeridian(local.buffer(side_m * 1.001).to_crs(LONLAT).iloc[0]))
    tree = shapely.STRtree(chip_boxes(candidates.lon, candidates.lat, side_m))
    near = tree.query(np.array(buffered, dtype=object), predicate="intersects")[1]
    away = np.ones(len(candidates.cells), bool)
    away[near] = False
    return away


def read_polygons(path: Path) -> gpd.GeoDataFrame:
    """Read polygons in degrees (EPSG:4326) from GeoJSON, GeoPackage or GeoParquet.

    Raises:
        DataError: if the file cannot be read, has no coordinate system, or holds no polygon.
    """
    try:
        frame = gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path)
    except (DataSourceError, OSError, ValueError) as error:
        raise DataError(f"cannot be read as polygons ({error})", where=str(path)) from error
    if frame.crs is None:
        raise DataError("has no coordinate reference system", where=str(path), remedy="write one into the file")
    frame = frame[frame.geometry.notna() & frame.geom_type.isin(["Polygon", "MultiPolygon"])].to_crs(LONLAT)
    if frame.empty:
        raise DataError("holds no polygon", where=str(path), remedy="leave the setting out if there is nothing to tell")
    return frame.set_geometry(shapely.make_valid(frame.geometry.to_numpy()))
