"""The river and the lakes, as polygons in local metres (x east, y south, origin at the upper left corner)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry

from cgeartheye.seeding import stream


@dataclass(frozen=True)
class Water:
    """Open water and the line it flows along."""

    river: BaseGeometry
    centre: LineString
    lakes: tuple[Polygon, ...]

    @property
    def surface(self) -> BaseGeometry:
        """River and lakes together."""
        return shapely.union_all([self.river, *self.lakes])


def meander(seed: int, size_m: float) -> NDArray[np.float64]:
    """Return the river's centre line (n, 2), from beyond the northern to beyond the southern edge.

    A sine-generated curve: the direction of flow swings as a sine of the way gone, which is the shape of least bending
    that rivers take (Langbein and Leopold 1966); swing and wavelength vary slowly.
    """
    rng = stream(seed, "river")
    step, length = 8.0, 2.2 * size_m + 800.0
    way = np.arange(0.0, length, step)
    wavelength = np.clip(size_m * rng.uniform(0.26, 0.34), 250.0, 1000.0)
    swing = 0.85 + 0.2 * np.sin(way / (1.7 * wavelength) + rng.uniform(0, 6.28))
    phase = np.cumsum(2 * np.pi * step / (wavelength * (1.0 + 0.25 * np.sin(way / (2.3 * wavelength) + rng.uniform(0, 6.28)))))
    heading = swing * np.sin(phase + rng.uniform(0, 6.28)) + 0.25 * np.sin(way / (0.9 * size_m) + rng.uniform(0, 6.28))
    x = size_m * rng.uniform(0.24, 0.34) + np.cumsum(np.sin(heading)) * step
    y = -200.0 + np.cumsum(np.cos(heading)) * step
    x += size_m * 0.3 - np.mean(x[(y > 0) & (y < size_m)])
    kept = y < size_m + 200.0
    return np.stack([x[kept], y[kept]], axis=1)


def _river(seed: int, line: NDArray[np.float64], size_m: float) -> BaseGeometry:
    rng = stream(seed, "river width")
    base = np.clip(size_m * 0.017, 18.0, 55.0)
    way = np.arange(len(line)) * 8.0
    half = 0.5 * base * (1 + 0.18 * np.sin(way / 170 + rng.uniform(0, 6)) + 0.10 * np.sin(way / 61 + rng.uniform(0, 6)))
    return shapely.union_all(shapely.buffer(shapely.points(line), half, quad_segs=6)).buffer(6).buffer(-6).simplify(0.5)


def _blob(rng: np.random.Generator, centre: tuple[float, float], radius: float) -> Polygon:
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    wave = sum(rng.normal(0, 0.16 / k**0.9) * np.sin(k * angle + rng.uniform(0, 6.28)) for k in range(1, 9))
    r = radius * np.exp(wave)
    tilt, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.35)
    u, v = r * np.cos(angle) * stretch, r * np.sin(angle) / stretch
    x = centre[0] + u * np.cos(tilt) - v * np.sin(tilt)
    y = centre[1] + u * np.sin(tilt) + v * np.cos(tilt)
    return Polygon(np.stack([x, y], axis=1)).buffer(0)


def make_water(seed: int, size_m: float, avoid: BaseGeometry) -> Water:
    """Return river and lakes; lakes keep away from the river and from ``avoid`` (the motorways)."""
    line = meander(seed, size_m)
    river = _river(seed, line, size_m)
    rng = stream(seed, "lakes")
    taken, lakes = river.union(avoid), []
    for share in (0.083, 0.066, 0.05):
        radius = share * size_m
        tries = rng.uniform(1.15 * radius, size_m - 1.15 * radius, (400, 2))
        free = shapely.distance(shapely.points(tries), taken)
        fits = np.flatnonzero(free > 1.35 * radius + 20.0)
        if len(fits) == 0:
            continue
        lake = _blob(rng, tuple(tries[fits[0]]), radius)
        lakes.append(lake)
        taken = taken.union(lake.buffer(0.25 * size_m))
    return Water(river, LineString(line), tuple(lakes))
