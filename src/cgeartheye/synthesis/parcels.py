"""Cutting land into districts, fields and lots: repeated halving across the longer side, as inherited land is shared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import rotate
from shapely.geometry import LineString, Polygon, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import split

from cgeartheye.synthesis.noise import Field, sample


@dataclass(frozen=True)
class Cut:
    """A line that parted two pieces, and how many cuts had come before it."""

    line: LineString
    depth: int


def polygons_of(geometry: BaseGeometry, smallest_m2: float = 0.0) -> list[Polygon]:
    """Return the polygons of any geometry that are larger than ``smallest_m2``."""
    parts = getattr(geometry, "geoms", [geometry])
    return [part for part in parts if isinstance(part, Polygon) and part.area > smallest_m2]


def long_axis_deg(polygon: Polygon) -> float:
    """Return the direction of the longer side of the smallest rectangle around a polygon, in (-90, 90] degrees."""
    corners = np.asarray(polygon.minimum_rotated_rectangle.exterior.coords)
    sides = np.diff(corners[:3], axis=0)
    longer = sides[np.argmax(np.hypot(sides[:, 0], sides[:, 1]))]
    angle = float(np.degrees(np.arctan2(longer[1], longer[0])))
    return (angle + 90.0) % 180.0 - 90.0


def halve(
    polygon: Polygon, target_m2: float, rng: np.random.Generator, *, tilt_deg: float = 6.0, axis_deg: float | None = None
) -> tuple[list[Polygon], list[Cut]]:
    """Halve a polygon across its longer side until pieces are about ``target_m2`` large.

    Args:
        polygon: what is cut.
        target_m2: pieces below 1.4 times this area stay whole.
        rng: where the place and the tilt of every cut come from.
        tilt_deg: standard deviation of the cuts' turn away from square.
        axis_deg: cut always square to this direction (strip fields); by default square to each piece's longer side.
    Returns: the pieces, and the cuts with their depth.
    """
    todo, pieces, cuts = [(polygon, 0)], [], []
    while todo:
        piece, depth = todo.pop()
        parts = _cut(piece, rng, tilt_deg, axis_deg) if piece.area > 1.4 * target_m2 else None
        if parts is None:
            pieces.append(piece)
            continue
        line, halves = parts
        cuts.append(Cut(line, depth))
        todo += [(half, depth + 1) for half in halves]
    return pieces, cuts


def _cut(
    piece: Polygon, rng: np.random.Generator, tilt_deg: float, axis_deg: float | None
) -> tuple[LineString, list[Polygon]] | None:
    axis = long_axis_deg(piece) if axis_deg is None else axis_deg
    level = rotate(piece, -axis, origin=(0, 0))
    left, low, right, high = level.bounds
    at = left + (right - left) * rng.uniform(0.4, 0.6)
    reach = 2.0 * (right - left + high - low)
    middle = (at, 0.5 * (low + high))
    line = LineString([(at, low - reach), (at, high + reach)])
    line = rotate(rotate(line, rng.normal(0, tilt_deg), origin=middle), axis, origin=(0, 0))
    parts = polygons_of(split(piece, line), 1.0)
    if len(parts) < 2:
        return None
    shared = line.intersection(piece)
    if not isinstance(shared, LineString):
        shared = max(getattr(shared, "geoms", [line]), key=lambda part: part.length)
    return shared, parts


@dataclass(frozen=True)
class Warp:
    """A smooth displacement that bends the straight cuts of the landscape; (h, w) fields in metres on 40 m pixels."""

    east: Field
    south: Field

    def __call__(self, geometry: BaseGeometry) -> BaseGeometry:
        """Return the geometry bent; its edges are first divided to 20 m."""
        return shapely.transform(shapely.segmentize(geometry, 20.0), self._moved)

    def _moved(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = at[:, 0], at[:, 1]
        return np.stack([x + sample(self.east, x + 200, y + 200, 40.0), y + sample(self.south, x + 200, y + 200, 40.0)], axis=1)


def make_warp(fields: tuple[Field, Field], size_m: float, reach_m: float) -> Warp:
    """Return a warp of at most about two ``reach_m`` from two noise fields of at least (size_m + 400) / 40 pixels a side."""
    side = round((size_m + 400.0) / 40.0) + 1
    east, south = (reach_m * field[:side, :side] for field in fields)
    return Warp(east, south)


def make_districts(size_m: float, target_m: float, rng: np.random.Generator, warp: Warp) -> tuple[list[Polygon], list[Cut]]:
    """Return districts of about ``target_m`` squared that cover the landscape and its margin, and the cuts between them."""
    pieces, cuts = halve(box(-120.0, -120.0, size_m + 120.0, size_m + 120.0), target_m**2, rng)
    bent = [warp(piece) for piece in pieces]
    return [piece.buffer(0) for piece in bent], [Cut(warp(cut.line), cut.depth) for cut in cuts]
