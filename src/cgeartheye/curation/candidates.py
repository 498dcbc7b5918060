"""Which cells can be sampled: their chip lies inside the footprints of a date, and away from what is held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray

from cgeartheye.curation.layers import Cells, read_polygons
from cgeartheye.geometry.cells import MAJOR_AXIS_M, CellGrid
from cgeartheye.geometry.crs import split_antimeridian, utm_zone
from cgeartheye.rasters.scenes import Scene
from cgeartheye.seeding import derive, splitmix64

_E2: Final = 0.00669437999014
"""Squared eccentricity of WGS84."""
_SEAM_DEG: Final = 1e-8
"""Footprints of one date are joined across gaps below 1 mm, which rounding leaves between neighbours."""

_ARC: Final = 8
"""Corners of a quarter of a circle."""
_AT_ONCE: Final = 100_000
"""Places whose outlines are held at a time: some 0.1 GB."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Covered:
    """Places and the scenes that cover them.

    Args:
        cells: (n,) int64 ids.
        slots: (n,) int64, number of the place in its cell.
        lon: (n,) degrees, centre.
        lat: (n,) degrees, centre.
        first: (n + 1,) int64, where the scenes of each place begin in ``scenes``.
        scenes: (m,) int32, numbers of the scenes that cover a place together on its dates, ascending within each place.
    """

    cells: Ints
    slots: Ints
    lon: Floats
    lat: Floats
    first: Ints
    scenes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.cells)

    def scenes_of(self, place: int) -> tuple[int, ...]:
        """Return the numbers of a place's scenes."""
        return tuple(self.scenes[self.first[place] : self.first[place + 1]].tolist())


@dataclass(frozen=True)
class Candidates(Covered):
    """Places that could be sampled, in order of cell and slot.

    Args:
        n_dates: (n,) int64, dates that cover it.
        n_quarters: (n,) int64, quarters of the calendar year these dates lie in.
    """

    n_dates: Ints
    n_quarters: Ints

    def take(self, chosen: NDArray[Any]) -> Candidates:
        """Return some of the places, by mask (n,) or positions."""
        at = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        first, scenes = take_runs(self.first, self.scenes, at)
        place = (self.cells[at], self.slots[at], self.lon[at], self.lat[at])
        return Candidates(*place, first, scenes, self.n_dates[at], self.n_quarters[at])


def take_runs(first: Ints, values: NDArray[Any], at: Ints) -> tuple[Ints, NDArray[Any]]:
    """Return some of n runs that lie one after another, as their beginnings (m + 1,) and values.

    Args:
        first: (n + 1,), run i is ``values[first[i] : first[i + 1]]``.
        values: of all runs, (first[n],).
        at: (m,) runs that are wanted.
    """
    lengths = np.diff(first)[at]
    taken = np.concatenate([[0], np.cumsum(lengths)])
    return taken, values[np.repeat(first[at] - taken[:-1], lengths) + np.arange(taken[-1])]


def find_candidates(
    scenes: Sequence[Scene], among: Cells, side_m: float, per_cell: int, *, jitter: float = 0.0, seed: int = 0
) -> Candidates:
    """Return the places whose chip of ``side_m`` metres lies inside the joined footprints of at least one date.

    Args:
        scenes: all that meet one of the chips.
        among: cells to look among.
        side_m: side of a chip.
        per_cell: places in a cell, on a square raster of slots inside it.
        jitter: share of the room between chip and slot over which places are spread; see :func:`place_centres`.
        seed: of the spread.
    """
    dates = [(np.array(members), _joined([scenes[i] for i in members])) for members in _by_date(scenes)]
    outlines = np.array([scene.footprint for scene in scenes], object)
    quarters = [(scenes[int(members[0])].date.month - 1) // 3 for members, _ in dates]
    step = max(1, _AT_ONCE // per_cell)
    blocks = [among.ids[start : start + step] for start in range(0, len(among), step)] or [among.ids]
    found = []
    for block in blocks:
        cells, slots = np.repeat(block, per_cell), np.tile(np.arange(per_cell), len(block))
        lon, lat = place_centres(among.grid, block, side_m, per_cell, jitter=jitter, seed=seed)
        cover = _cover(chip_boxes(lon, lat, side_m), dates, outlines, quarters)
        found.append(Candidates(cells, slots, lon, lat, *cover).take(cover[2] > 0))
    return joined(found)


def joined(parts: Sequence[Candidates]) -> Candidates:
    """Return places of several parts, one part after another."""
    ends = np.cumsum([0, *(len(part.scenes) for part in parts)])
    first = np.concatenate([*(part.first[:-1] + end for part, end in zip(parts, ends, strict=False)), ends[-1:]])
    names = ("cells", "slots", "lon", "lat", "scenes", "n_dates", "n_quarters")
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Candidates(first=first, **columns)


def cells_of(scenes: Sequence[Scene], grid: CellGrid) -> Cells:
    """Return the cells whose centres lie in a scene."""
    ids = [np.empty(0, np.int64), *(grid.within(scene.footprint) for scene in scenes)]
    return Cells(grid, np.unique(np.concatenate(ids)))


def _cover(
    boxes: NDArray[np.object_], dates: Sequence[tuple[Ints, Any]], outlines: NDArray[np.object_], quarters: Sequence[int]
) -> tuple[Ints, NDArray[np.int32], Ints, Ints]:
    """Return first, scenes, dates and quarters of chips by their boxes; see :class:`Candidates`."""
    n, tree = len(boxes), shapely.STRtree(boxes)
    split = np.flatnonzero(shapely.get_num_geometries(boxes) > 1)
    n_dates, in_quarter = np.zeros(n, np.int64), np.zeros((n, 4), bool)
    places, numbers = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for (members, area), quarter in zip(dates, quarters, strict=True):
        inside = np.zeros(n, bool)
        # part by part, because the bounds of scenes all over the world would leave every chip to be looked at; a chip in one
        # piece lies in one part or in none
        inside[tree.query(shapely.get_parts(area), predicate="contains")[1]] = True
        inside[split] = shapely.contains(area, boxes[split])
        if not inside.any():
            continue
        n_dates += inside
        in_quarter[:, quarter] |= inside
        member, place = tree.query(outlines[members], predicate="intersects")
        places.append(place[inside[place]])
        numbers.append(members[member[inside[place]]])
    place, number = np.concatenate(places), np.concatenate(numbers)
    order = np.lexsort((number, place))
    first = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=n))])
    return first, number[order].astype(np.int32), n_dates, in_quarter.sum(axis=1)


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
    half = _half_side_m(lon, lat, side_m)
    root = np.sqrt(1 - _E2 * np.sin(np.radians(lat)) ** 2)
    north = np.degrees(half / (MAJOR_AXIS_M * (1 - _E2) / root**3))
    poleward = np.minimum(np.abs(lat) + north, 90)
    return np.degrees(half / (MAJOR_AXIS_M / root * np.maximum(np.cos(np.radians(poleward)), 1e-9))), north


def _half_side_m(lon: Floats, lat: Floats, side_m: float) -> Floats:
    zone = utm_zone(lon, lat)
    off = (lon - (6 * zone - 183) + 180) % 360 - 180
    # a chip at a pole may be turned by any angle
    turn = np.where(zone > 0, np.abs(np.radians(off) * np.sin(np.radians(lat))), np.pi / 4)
    return np.asarray(side_m / 2 * (np.cos(turn) + np.sin(turn)) * 1.01)


def _degrees(metres: Floats, lat: Floats) -> tuple[Floats, Floats]:
    """Return how many degrees of longitude and of latitude a length is at a latitude of WGS84."""
    root = np.sqrt(1 - _E2 * np.sin(np.radians(lat)) ** 2)
    east = metres / (MAJOR_AXIS_M / root * np.maximum(np.cos(np.radians(lat)), 1e-6))
    return np.degrees(east), np.degrees(metres / (MAJOR_AXIS_M * (1 - _E2) / root**3))


def _surroundings(lon: Floats, lat: Floats, side_m: float, margin_m: float) -> NDArray[np.object_]:
    """Return chips' boxes with all that lies within ``margin_m`` of them, polygons in degrees, (n,)."""
    half = _half_side_m(lon, lat, side_m)[:, None]
    angle = (np.arange(4 * _ARC) + 0.5) * np.pi / (2 * _ARC)  # the arcs are drawn around, not inside the circles
    reach = margin_m * 1.001 / np.cos(np.pi / (4 * _ARC))
    x, y = (half * np.sign(turn) + reach * turn for turn in (np.cos(angle), np.sin(angle)))
    (east, _), (_, north) = _degrees(x, lat[:, None]), _degrees(y, lat[:, None])
    return np.asarray(shapely.polygons(np.stack([lon[:, None] + east, lat[:, None] + north], axis=-1)))


def outside_hold_out(lon: Floats, lat: Floats, hold_out: Path, side_m: float) -> NDArray[np.bool_]:
    """Return (n,) bool, True where a chip keeps at least ``side_m`` metres away from every held-out polygon.

    Args:
        lon: (n,) degrees, centres of the chips.
        lat: (n,) degrees.
        hold_out: polygons.
        side_m: side of a chip.

    Raises:
        DataError: if the file cannot be read, or holds no polygon.
    """
    away = np.ones(len(lon), bool)
    for area in read_polygons(hold_out).geometry:
        for turn in (-360, 0, 360):  # a chip may reach over the antimeridian
            near = np.flatnonzero(away & _within_reach(lon + turn, lat, area.bounds, 3 * side_m))
            shapely.prepare(area)
            around = _surroundings(lon[near] + turn, lat[near], side_m, side_m)
            away[near[shapely.intersects(area, around)]] = False
    return away


def _within_reach(lon: Floats, lat: Floats, bounds: tuple[float, float, float, float], side_m: float) -> NDArray[np.bool_]:
    """Tell which boxes of ``side_m`` may meet the bounds, generously."""
    west, south, east, north = bounds
    up = side_m / 110_000
    top = min(max(abs(south), abs(north)) + up, 90.0)
    across = up / max(np.cos(np.radians(top)), 1e-6)
    inside: NDArray[np.bool_] = (lat > south - up) & (lat < north + up) & (lon > west - across) & (lon < east + across)
    return inside
