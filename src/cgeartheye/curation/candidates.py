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
from cgeartheye.geometry.crs import LONLAT, split_antimeridian, utm_crs, utm_zone
from cgeartheye.rasters.scenes import Scene
from cgeartheye.seeding import derive, splitmix64

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


def find_candidates(
    scenes: Sequence[Scene], grid: CellGrid, side_m: float, per_cell: int, *, jitter: float = 0.0, seed: int = 0
) -> Candidates:
    """Return the places whose chip of ``side_m`` metres lies inside the joined footprints of at least one date.

    Args:
        scenes: of the catalogue.
        grid: of the cells.
        side_m: side of a chip.
        per_cell: places in a cell, on a square raster of slots inside it.
        jitter: share of the room between chip and slot over which places are spread; see :func:`place_centres`.
        seed: of the spread.
    """
    ids = np.unique(np.concatenate([grid.within(scene.footprint) for scene in scenes]))
    cells, slots = np.repeat(ids, per_cell), np.tile(np.arange(per_cell), len(ids))
    lon, lat = place_centres(grid, ids, side_m, per_cell, jitter=jitter, seed=seed)
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


def place_centres(
    grid: CellGrid, ids: Ints, side_m: float, per_cell: int, *, jitter: float = 0.0, seed: int = 0
) -> tuple[Floats, Floats]:
    """Return centres of ``per_cell`` slots a cell, cell by cell: the first of a square raster, row by row.

    Each is moved by a hash of (seed, cell, slot) within the room that a chip leaves in its slot, so that places do not lie on
    a lattice and chips of neighbours never overlap; where the chip is larger than the slot it stays in the middle.

    Args:
        grid: of the cells.
        ids: (n,) int64, cells.
        side_m: side of a chip.
        per_cell: slots.
        jitter: share of that room which is used, [0, 1].
        seed: of the hash.

    Returns: longitudes and latitudes in degrees, (n * per_cell,) each.
    """
    side = int(np.ceil(np.sqrt(per_cell)))
    west, south, east, north = (edge[:, None] for edge in grid.bounds(ids).T)
    slot = np.arange(per_cell)
    lon = (west + (east - west) * (slot % side + 0.5) / side).ravel()
    lat = (south + (north - south) * (slot // side + 0.5) / side).ravel()
    if jitter == 0:
        return lon, lat
    keys = splitmix64((ids.astype(np.uint64) ^ np.uint64(derive(seed, "jitter")))[:, None] + splitmix64(slot.astype(np.uint64)))
    parts = (np.stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)]) / 2.0**32 - 0.5).reshape(2, -1)
    reach = _half_sides_deg(lon, lat, side_m)
    rooms = [np.repeat((high - low).ravel() / side, per_cell) for low, high in ((west, east), (south, north))]
    lon, lat = (
        at + part * jitter * np.maximum(0, room - 2 * half)
        for at, part, room, half in zip((lon, lat), parts, rooms, reach, strict=True)
    )
    return lon, lat


def chip_boxes(lon: Floats, lat: Floats, side_m: float) -> NDArray[np.object_]:
    """Return areas in degrees that hold the chips centred on points, (n,) each: boxes, in two parts over the antimeridian.

    A chip is square in a UTM zone and thus turned against the meridian; the box is widened by that angle, and by 1 %. One
    that holds a pole is the cap around it.
    """
    east, north = _half_sides_deg(lon, lat, side_m)
    low, high = np.maximum(lat - north, -90.0), np.minimum(lat + north, 90.0)
    around = (east >= 180) | (np.abs(lat) + north >= 90)
    boxes = np.asarray(shapely.box(np.where(around, -180, lon - east), low, np.where(around, 180, lon + east), high))
    for i in np.flatnonzero(~around & (np.abs(lon) + east > 180)):
        boxes[i] = split_antimeridian(boxes[i])
    return boxes


def _half_sides_deg(lon: Floats, lat: Floats, side_m: float) -> tuple[Floats, Floats]:
    """Return half the sides of the boxes of :func:`chip_boxes` in degrees of longitude and of latitude, (n,) each."""
    sine, zone = np.sin(np.radians(lat)), utm_zone(lon, lat)
    off = (lon - (6 * zone - 183) + 180) % 360 - 180
    turn = np.where(zone > 0, np.abs(np.radians(off) * sine), np.pi / 4)  # a chip at a pole may be turned by any angle
    half = side_m / 2 * (np.cos(turn) + np.sin(turn)) * 1.01
    root = np.sqrt(1 - _E2 * sine**2)
    north = np.degrees(half / (MAJOR_AXIS_M * (1 - _E2) / root**3))
    poleward = np.minimum(np.abs(lat) + north, 90)
    return np.degrees(half / (MAJOR_AXIS_M / root * np.maximum(np.cos(np.radians(poleward)), 1e-9))), north


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
