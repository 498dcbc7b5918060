"""Neighbourhoods: houses on lots along streets.

Dense and sparse housing share roofs, ground and streets, and nearly the same ratio of roof to ground varies in both; what
differs is the size of house and lot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from shapely.geometry import Polygon

from cgeartheye.synthesis.buildings import FLAT, GABLE, HIP, Buildings, Floats, pick_roofs
from cgeartheye.synthesis.lots import frame_of, inside, ticks, ways
from cgeartheye.synthesis.parcels import long_axis_deg


@dataclass(frozen=True)
class Manner:
    """How a neighbourhood is built; metres."""

    lot_u: tuple[float, float]
    lot_v: tuple[float, float]
    cover_u: tuple[float, float]
    cover_v: tuple[float, float]
    run: tuple[int, int]
    street: float
    eaves: tuple[float, float]
    empty: float


MANNERS: Final = {
    "dense_housing": Manner((10.0, 13.0), (10.0, 13.0), (0.66, 0.86), (0.60, 0.80), (4, 7), 4.5, (3.2, 7.5), 0.04),
    "sparse_housing": Manner((24.0, 32.0), (25.0, 34.0), (0.50, 0.70), (0.46, 0.62), (2, 3), 6.0, (3.5, 8.0), 0.06),
}
"""Villages of small houses wall to wall, and detached large houses in their yards."""


def build(polygon: Polygon, use: str, rng: np.random.Generator) -> tuple[Buildings, list[Polygon]]:
    """Return the houses of a district, and its streets; the polygon is already cut back from the roads around it."""
    manner = MANNERS[use]
    frame = frame_of(polygon, np.radians(long_axis_deg(polygon) + rng.normal(0, 2.0)))
    lot_u, lot_v = rng.uniform(*manner.lot_u), rng.uniform(*manner.lot_v)
    u, streets_u = ticks(frame.low[0], frame.high[0], step=lot_u, run=int(rng.integers(*manner.run)), gap=manner.street)
    v, streets_v = ticks(frame.low[1], frame.high[1], step=lot_v, run=2, gap=manner.street)
    grid_u, grid_v = (grid.ravel() for grid in np.meshgrid(u, v))
    count = len(grid_u)
    half_u = 0.5 * lot_u * rng.uniform(*manner.cover_u, count)
    half_v = 0.5 * lot_v * rng.uniform(*manner.cover_v, count)
    spare_u, spare_v = 0.5 * lot_u - half_u, 0.5 * lot_v - half_v
    centre = frame.to_world(grid_u + rng.uniform(-0.7, 0.7, count) * spare_u, grid_v + rng.uniform(-0.7, 0.7, count) * spare_v)
    angle = np.full(count, frame.angle) + rng.normal(0, 0.03, count) + 0.5 * np.pi * (rng.random(count) < 0.25)
    kept = inside(polygon, centre, half_u, half_v, angle) & (rng.random(count) > manner.empty)
    houses = _houses(centre, half_u, half_v, angle, manner=manner, rng=rng).select(kept)
    return houses, ways(polygon, frame, streets_u, streets_v, 0.5 * manner.street - 0.6)


def _houses(
    centre: Floats, half_u: Floats, half_v: Floats, angle: Floats, *, manner: Manner, rng: np.random.Generator
) -> Buildings:
    count = len(centre)
    turned = half_v > half_u
    angle = np.where(turned, angle + 0.5 * np.pi, angle)
    half_u, half_v = np.maximum(half_u, half_v), np.minimum(half_u, half_v)
    form = rng.choice([FLAT, GABLE, HIP], count, p=[0.35, 0.45, 0.2])
    rise = np.where(form == FLAT, 0.0, half_v * rng.uniform(0.35, 0.6, count))
    eaves = rng.uniform(*manner.eaves, count)
    colour = pick_roofs(rng, count)
    appears = np.zeros(count, dtype=np.int64)
    return Buildings(centre[:, 0], centre[:, 1], half_u, half_v, angle, eaves, rise, form, colour, appears)
