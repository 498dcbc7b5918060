"""Fields, orchards and greenhouses inside their districts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import shapely
from shapely.geometry import Polygon

from cgeartheye.synthesis.buildings import ARCH, Buildings, Floats
from cgeartheye.synthesis.lots import frame_of, inside, ticks
from cgeartheye.synthesis.parcels import halve, long_axis_deg, polygons_of

CROPS: Final = ("wheat", "maize", "vegetables", "mulch", "fallow", "soy")
"""Crop calendars; their colours by quarter are in :mod:`cgeartheye.synthesis.seasons`."""
CROP_SHARES: Final = (0.26, 0.19, 0.14, 0.22, 0.08, 0.11)


@dataclass(frozen=True)
class Parcel:
    """A field or an orchard: its outline, what grows there, the direction of its rows and their distance."""

    outline: Polygon
    crop: str
    angle: float
    period_m: float


def make_fields(polygon: Polygon, rng: np.random.Generator) -> list[Parcel]:
    """Divide a district into fields with crops; neighbours often share a crop, and rows follow the district."""
    axis = long_axis_deg(polygon)
    target = float(np.exp(rng.uniform(np.log(2500.0), np.log(17000.0))))
    strips = rng.random() < 0.6
    pieces, _ = halve(polygon, target, rng, tilt_deg=1.2, axis_deg=axis if strips and target < 9000 else None)
    favourite = rng.choice(len(CROPS), p=CROP_SHARES)
    across = np.radians(axis + 90.0)
    parcels = []
    for piece in pieces:
        crop = favourite if rng.random() < 0.35 else rng.choice(len(CROPS), p=CROP_SHARES)
        angle = across if strips else np.radians(long_axis_deg(piece))
        parcels.append(Parcel(piece, CROPS[crop], float(angle + rng.normal(0, 0.01)), float(rng.uniform(2.6, 6.5))))
    return parcels


def make_orchards(polygon: Polygon, rng: np.random.Generator) -> list[Parcel]:
    """Divide a district into orchards; ``period_m`` is the distance of the trees."""
    pieces, _ = halve(polygon, float(rng.uniform(12000.0, 40000.0)), rng, tilt_deg=3.0)
    return [
        Parcel(piece, "orchard", float(np.radians(long_axis_deg(piece)) + rng.normal(0, 0.05)), float(rng.uniform(4.8, 6.6)))
        for piece in pieces
    ]


def orchard_trees(parcel: Parcel, rng: np.random.Generator) -> Floats:
    """Return (n, 2) points of an orchard's grid; a few trees are missing, all stand slightly off."""
    inner = parcel.outline.buffer(-2.5)
    if inner.is_empty:
        return np.zeros((0, 2))
    frame = frame_of(inner, parcel.angle)
    along = parcel.period_m * rng.uniform(0.82, 1.0)
    u, v = np.arange(frame.low[0], frame.high[0], along), np.arange(frame.low[1], frame.high[1], parcel.period_m)
    grid_u, grid_v = (grid.ravel() for grid in np.meshgrid(u, v))
    at = frame.to_world(grid_u, grid_v) + rng.normal(0, 0.22, (len(grid_u), 2))
    shapely.prepare(inner)
    kept = shapely.contains_xy(inner, at[:, 0], at[:, 1]) & (rng.random(len(at)) > 0.04)
    return np.asarray(at[kept])


def make_greenhouses(polygon: Polygon, rng: np.random.Generator) -> Buildings:
    """Return rows of film houses: long parallel strips with narrow gaps, in blocks with ways between."""
    parts = [_greenhouse_block(piece, rng) for piece in halve(polygon, 26000.0, rng, tilt_deg=2.0)[0]]
    return Buildings.joined(parts) if parts else Buildings.none()


def _greenhouse_block(piece: Polygon, rng: np.random.Generator) -> Buildings:
    inner = max(polygons_of(piece.buffer(-2.5)), key=lambda part: part.area, default=Polygon())
    if inner.is_empty:
        return Buildings.none()
    axis = long_axis_deg(inner) + (90.0 if rng.random() < 0.3 else 0.0)
    frame = frame_of(inner, np.radians(axis))
    length, width, gap = rng.uniform(26, 52), rng.uniform(6.2, 8.6), rng.uniform(1.8, 3.6)
    u, _ = ticks(frame.low[0], frame.high[0], step=length, run=1, gap=rng.uniform(2.0, 4.5))
    v, _ = ticks(frame.low[1], frame.high[1], step=width + gap, run=1, gap=0.0)
    grid_u, grid_v = (grid.ravel() for grid in np.meshgrid(u, v))
    count = len(grid_u)
    centre = frame.to_world(grid_u, grid_v)
    half_u = np.full(count, 0.5 * length) - rng.uniform(0, 1.2, count)
    half_v, angle = np.full(count, 0.5 * width), np.full(count, frame.angle)
    kept = inside(inner, centre, half_u, half_v, angle) & (rng.random(count) > 0.05)
    # film, shading net and dirt differ from farm to farm: the mean of a block covers the range of pale fields
    colour = film_colours(rng, count)
    eaves, rise = np.full(count, 0.6), np.full(count, rng.uniform(0.7, 1.5))
    form, appears = np.full(count, ARCH), np.zeros(count, dtype=np.int64)
    built = Buildings(centre[:, 0], centre[:, 1], half_u, half_v, angle, eaves, rise, form, colour, appears)
    return built.select(kept)


def film_colours(rng: np.random.Generator, count: int) -> Floats:
    """Return colours (count, 3) of the houses of one farm: clear, dusty or yellowed film, green nets, or frames over crops."""
    films = np.array([(182, 184, 178), (164, 156, 138), (172, 162, 130), (122, 132, 102), (130, 128, 94)], dtype=np.float64)
    main = films[rng.choice(5, p=[0.26, 0.24, 0.2, 0.15, 0.15])] * rng.normal(1.0, 0.06)
    base = np.where(rng.random((count, 1)) < 0.8, main, films[rng.choice(5, count)])
    return np.clip(base * rng.normal(1.0, 0.05, (count, 1)), 40, 240)
