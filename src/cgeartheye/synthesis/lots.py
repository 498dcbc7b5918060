"""Regular grids inside polygons: lots of houses, rows of greenhouses, trees of orchards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from cgeartheye.synthesis.buildings import Floats, rectangles


@dataclass(frozen=True)
class Frame:
    """A turned coordinate system: u along ``angle`` (radians), v across; with the range a polygon covers in it."""

    angle: float
    low: tuple[float, float]
    high: tuple[float, float]

    def to_world(self, u: Floats, v: Floats) -> Floats:
        """Return the points (n, 2) in metres."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.stack([u * cos - v * sin, u * sin + v * cos], axis=-1)


def frame_of(polygon: Polygon, angle: float) -> Frame:
    """Return the frame of direction ``angle`` (radians) around a polygon."""
    at = shapely.get_coordinates(polygon)
    u = at[:, 0] * np.cos(angle) + at[:, 1] * np.sin(angle)
    v = at[:, 1] * np.cos(angle) - at[:, 0] * np.sin(angle)
    return Frame(angle, (float(u.min()), float(v.min())), (float(u.max()), float(v.max())))


def ticks(low: float, high: float, *, step: float, run: int, gap: float) -> tuple[Floats, Floats]:
    """Divide a line into blocks of ``run`` lots ``step`` long, with a way ``gap`` wide between blocks.

    Returns: the centres of the lots, and the centres of the ways.
    """
    block = run * step + gap
    count = int((high - low) // block) + 2
    starts = low + np.arange(count) * block
    lots = (starts[:, None] + gap + (np.arange(run) + 0.5) * step).ravel()
    return np.asarray(lots[lots < high], dtype=np.float64), np.asarray(starts + 0.5 * gap, dtype=np.float64)


def inside(polygon: Polygon, centre: Floats, half_u: Floats, half_v: Floats, angle: Floats) -> NDArray[np.bool_]:
    """Return (n,) bool: the rectangles wholly inside a polygon."""
    shapely.prepare(polygon)
    return np.asarray(shapely.contains_properly(polygon, shapely.polygons(rectangles(centre, half_u, half_v, angle))))


def ways(polygon: Polygon, frame: Frame, u: Floats, v: Floats, half_width: float) -> list[Polygon]:
    """Return strips of ``half_width`` at the positions ``u`` (running along v) and ``v`` (running along u), cut to a polygon."""
    (u0, v0), (u1, v1) = frame.low, frame.high
    middle_u, middle_v = np.full(len(v), 0.5 * (u0 + u1)), np.full(len(u), 0.5 * (v0 + v1))
    centre = np.concatenate([frame.to_world(middle_u, v), frame.to_world(u, middle_v)])
    half_u = np.concatenate([np.full(len(v), 0.5 * (u1 - u0)), np.full(len(u), half_width)])
    half_v = np.concatenate([np.full(len(v), half_width), np.full(len(u), 0.5 * (v1 - v0))])
    strips = shapely.polygons(rectangles(centre, half_u, half_v, np.full(len(centre), frame.angle)))
    return [part for part in shapely.intersection(strips, polygon) if not part.is_empty]
