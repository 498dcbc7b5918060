"""Bare ground that is worked: pits in steps, scraped plots, wheel tracks and heaps of spoil."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from cgeartheye.synthesis.buildings import Floats
from cgeartheye.synthesis.parcels import halve, polygons_of


@dataclass(frozen=True)
class Works:
    """Areas with their brightness, wheel tracks, and the places (n, 2) of heaps."""

    areas: list[tuple[BaseGeometry, float]]
    tracks: BaseGeometry
    heaps: Floats


def make_works(piece: Polygon, rng: np.random.Generator) -> Works:
    """Return the works of a bare district: a stepped pit, or scraped plots."""
    areas = _pit(piece, rng) if rng.random() < 0.5 else _plots(piece, rng)
    return Works(areas, _tracks(piece, rng), _heaps(piece, rng))


def _pit(piece: Polygon, rng: np.random.Generator) -> list[tuple[BaseGeometry, float]]:
    areas: list[tuple[BaseGeometry, float]] = []
    inner: BaseGeometry = piece
    for step in range(12):
        inner = inner.buffer(-rng.uniform(9.0, 18.0))
        if inner.is_empty:
            break
        # a step is a dark foot and a bright floor, cut uneven by the machines
        rough = shapely.union_all([_rough(part, rng) for part in polygons_of(inner, 200.0)])
        areas += [(rough, 0.80 + 0.01 * step), (rough.buffer(-2.2), float(rng.normal(1.04, 0.05)))]
    return areas


def _rough(polygon: Polygon, rng: np.random.Generator) -> BaseGeometry:
    edge = shapely.get_coordinates(shapely.segmentize(polygon.exterior, 12.0))[:-1]
    return Polygon(edge + rng.normal(0, 2.0, edge.shape)).buffer(3.0).buffer(-3.0)


def _plots(piece: Polygon, rng: np.random.Generator) -> list[tuple[BaseGeometry, float]]:
    plots, _ = halve(piece, float(rng.uniform(1500.0, 9000.0)), rng, tilt_deg=9.0)
    return [(plot, float(np.clip(rng.normal(1.0, 0.075), 0.8, 1.18))) for plot in plots if rng.random() < 0.75]


def _tracks(piece: Polygon, rng: np.random.Generator) -> BaseGeometry:
    left, top, right, bottom = piece.bounds
    lines = []
    for _ in range(max(2, round(piece.area / 16000.0))):
        corners = rng.uniform((left, top), (right, bottom), (4, 2))
        at = shapely.get_coordinates(LineString(corners))
        for _ in range(4):
            near, far = 0.75 * at[:-1] + 0.25 * at[1:], 0.25 * at[:-1] + 0.75 * at[1:]
            at = np.stack([near, far], axis=1).reshape(-1, 2)
        lines.append(LineString(at).buffer(rng.uniform(1.2, 2.6)))
    return shapely.union_all(lines).intersection(piece)


def _heaps(piece: Polygon, rng: np.random.Generator) -> Floats:
    left, top, right, bottom = piece.bounds
    groups = rng.uniform((left, top), (right, bottom), (max(1, round(piece.area / 20000.0)), 2))
    at = np.concatenate([group + rng.normal(0, 13.0, (int(rng.integers(6, 26)), 2)) for group in groups])
    shapely.prepare(piece)
    return np.asarray(at[shapely.contains_xy(piece, at[:, 0], at[:, 1])])
