"""The road network: two motorways that cross in an interchange, and the roads between districts by rank.

A motorway of the class ``road`` is a whole corridor - carriageways, median, service roads and their verges - because a
chip has one class and no single carriageway fills a chip.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, Point
from shapely.geometry.base import BaseGeometry

from cgeartheye.seeding import stream

CORRIDOR_M: Final = 90.0
"""Width of a motorway's corridor."""
CARRIAGEWAYS: Final = ((-11.0, 16.0), (11.0, 16.0), (-33.0, 8.0), (33.0, 8.0))
"""Offset from the centre and width in metres of the strips of asphalt in a corridor."""
LANE_LINES: Final = (-18.2, -14.6, -11.0, -7.4, -3.8, 3.8, 7.4, 11.0, 14.6, 18.2, -33.0, 33.0)
"""Offsets of painted lines; the outer ones of a carriageway are solid, the others dashed."""
SOLID_LINES: Final = (-18.2, -3.8, 3.8, 18.2)
ROAD_WIDTH_M: Final = {"main": 11.0, "minor": 7.0, "track": 4.2}
"""Paved width of the roads between districts, by rank."""


@dataclass(frozen=True)
class Motorways:
    """Centre lines, the whole corridors, and their asphalt."""

    lines: tuple[LineString, ...]
    corridor: BaseGeometry
    asphalt: BaseGeometry
    solid: tuple[LineString, ...]
    dashed: tuple[LineString, ...]


def _alignment(
    rng: np.random.Generator, size_m: float, chip_m: float, *, near: float, bends: tuple[float, float]
) -> NDArray[np.float64]:
    """Return (n, 2): way along and offset across; long straights in the middle of a row of chips, gentle bends between.

    Args:
        rng: where the bends' places and sides come from.
        size_m: side of the landscape.
        chip_m: side of a chip.
        near: share of the side at which the line lies.
        bends: shares of the side around which it changes to a neighbouring row; the crossing lies away from them.
    """
    row = round(near * size_m / chip_m)
    along = np.arange(-150.0, size_m + 150.0, 12.0)
    across = np.full_like(along, (row + 0.5) * chip_m)
    if size_m > 1200.0:
        for bend in bends:
            shift = chip_m * rng.choice([-1.0, 1.0])
            t = np.clip((along - (bend + rng.uniform(-0.06, 0.06)) * size_m) / (3.5 * chip_m) + 0.5, 0, 1)
            across += shift * t * t * (3 - 2 * t)
    return np.stack([along, across], axis=1)


def _ramps(crossing: Point) -> BaseGeometry:
    """Return the asphalt of a clover leaf around a crossing: four loops and four outer ramps."""
    loops = []
    for sx in (-1.0, 1.0):
        for sy in (-1.0, 1.0):
            centre = Point(crossing.x + sx * 74.0, crossing.y + sy * 74.0)
            loops.append(centre.buffer(46.0).exterior.buffer(4.2))
            corner = [(sx * 250.0, sy * 33.0), (sx * 160.0, sy * 40.0), (sx * 112.0, sy * 112.0), (sx * 40.0, sy * 160.0)]
            corner.append((sx * 33.0, sy * 250.0))
            curve = LineString([(crossing.x + x, crossing.y + y) for x, y in corner])
            loops.append(_rounded(curve).buffer(4.2))
    return shapely.union_all(loops)


def _rounded(line: LineString) -> LineString:
    """Cut the corners of a line three times (Chaikin 1974)."""
    at = np.asarray(line.coords)
    for _ in range(3):
        ahead, behind = 0.75 * at[:-1] + 0.25 * at[1:], 0.25 * at[:-1] + 0.75 * at[1:]
        at = np.concatenate([at[:1], np.stack([ahead, behind], axis=1).reshape(-1, 2), at[-1:]])
    return LineString(at)


def make_motorways(seed: int, size_m: float, chip_m: float) -> Motorways:
    """Return one motorway from west to east and one from north to south, east of the river."""
    rng = stream(seed, "motorways")
    flat = _alignment(rng, size_m, chip_m, near=rng.uniform(0.42, 0.58), bends=(0.32, 0.98))
    steep = _alignment(rng, size_m, chip_m, near=rng.uniform(0.66, 0.76), bends=(0.22, 0.8))[:, ::-1]
    lines = (LineString(flat), LineString(steep))
    corridor = shapely.union_all([line.buffer(CORRIDOR_M / 2, cap_style="flat") for line in lines])
    strips = [line.offset_curve(o).buffer(w / 2, cap_style="flat") for line in lines for o, w in CARRIAGEWAYS]
    crossing = lines[0].intersection(lines[1])
    if size_m > 1200.0 and isinstance(crossing, Point):
        ramps = _ramps(crossing)
        strips.append(ramps)
        corridor = shapely.union_all([corridor, ramps.buffer(8.0), crossing.buffer(150.0, cap_style="square")])
    painted = {o: [line.offset_curve(o) for line in lines] for o in LANE_LINES}
    solid = tuple(line for o in SOLID_LINES for line in painted[o])
    dashed = tuple(line for o in LANE_LINES if o not in SOLID_LINES for line in painted[o])
    return Motorways(lines, corridor, shapely.union_all(strips), solid, dashed)


def dashes(line: LineString, *, on_m: float = 6.0, off_m: float = 9.0) -> list[LineString]:
    """Cut a line into painted dashes of ``on_m`` metres with gaps of ``off_m``."""
    starts = np.arange(0.0, line.length - on_m, on_m + off_m)
    first, last = shapely.line_interpolate_point(line, starts), shapely.line_interpolate_point(line, starts + on_m)
    ends = np.stack([shapely.get_coordinates(first), shapely.get_coordinates(last)], axis=1)
    return list(shapely.linestrings(ends)) if len(starts) else []


def rank_of(depth: int) -> str:
    """Return the rank of a road that was the ``depth``-th cut of the landscape into districts."""
    return "main" if depth < 2 else "minor" if depth < 5 else "track"
