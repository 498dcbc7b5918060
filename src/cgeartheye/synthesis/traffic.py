"""Cars and lorries on the motorways; every quarter has others."""

from __future__ import annotations

from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString
from shapely.geometry.base import BaseGeometry

from cgeartheye.seeding import stream
from cgeartheye.synthesis.buildings import Floats, rectangles
from cgeartheye.synthesis.canvas import burn
from cgeartheye.synthesis.layout import Layout

PAINTS: Final = np.array(
    [(0, 0, 0), (222, 222, 222), (190, 192, 196), (52, 54, 60), (150, 40, 38), (52, 84, 140), (120, 122, 126), (206, 196, 160)],
    dtype=np.float32,
)
"""Colours of vehicles by number; number 0 is no vehicle."""
LANES_M: Final = (5.6, 9.2, 12.8, 16.4, 32.0)
"""Offsets of lanes from the centre of a motorway, on both sides."""
SPACING_M: Final = 75.0
VEHICLE_HEIGHT_M: Final = 1.9


def make_traffic(layout: Layout, quarter: int, *, seed: int, side: int, gsd_m: float) -> NDArray[np.uint8]:
    """Return the number of the vehicle's colour (side, side) uint8, 0 where there is none."""
    rng = stream(seed, "traffic", quarter)
    shapes: list[tuple[BaseGeometry, int]] = []
    for line in layout.motorways.lines:
        for lane in (*LANES_M, *(-lane for lane in LANES_M)):
            boxes, paints = _lane(line.offset_curve(lane), rng)
            shapes += list(zip(shapely.polygons(boxes), paints.tolist(), strict=True))
    return np.asarray(burn(shapes, side, gsd_m), dtype=np.uint8)


def _lane(line: LineString, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    count = int(line.length / SPACING_M)
    at = np.sort(rng.uniform(8.0, line.length - 8.0, count))
    here, ahead = (shapely.get_coordinates(shapely.line_interpolate_point(line, at + step)) for step in (0.0, 4.0))
    angle = np.arctan2(*(ahead - here).T[::-1])
    lorry = rng.random(count) < 0.18
    half_u = np.where(lorry, rng.uniform(4.0, 7.0, count), rng.uniform(2.1, 2.5, count))
    half_v = np.where(lorry, 1.3, 0.95)
    return rectangles(here, half_u, half_v, angle), rng.integers(1, len(PAINTS), count)
