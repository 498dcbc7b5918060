"""Sunlight on heights: shading of roofs, crowns and hills, and cast shadows."""

from __future__ import annotations

import math

import numpy as np

from cgeartheye.synthesis.noise import Field
from cgeartheye.synthesis.relief import slopes
from cgeartheye.synthesis.seasons import Sun

LONGEST_SHADOW_M = 44.0
"""Shadows longer than this are cut; no building or tree of the landscape casts one."""


def halo_px(gsd_m: float) -> int:
    """Return by how many pixels the shadow of something outside a strip can reach into it."""
    return int(2 ** math.ceil(math.log2(LONGEST_SHADOW_M / gsd_m)))


def cast_shadows(height: Field, sun: Sun, gsd_m: float) -> Field:
    """Return how deep (H, W) metres each point lies below the shadow's surface; 0 in full sun.

    The shadow's surface is the maximum over k of the height k pixels towards the sun less k times the fall of a sun ray. It
    is made by doubling: the maximum over 2 n steps is that over n steps, and the same moved n steps further.
    """
    east, south = sun.shadow
    fall = sun.slope * gsd_m
    surface = height.copy()
    step = 1
    while step < halo_px(gsd_m):
        dx, dy = round(step * east), round(step * south)
        _raise_moved(surface, dx, dy, step * fall)
        step *= 2
    return np.asarray(np.maximum(surface - height, 0), dtype=np.float32)


def _raise_moved(surface: Field, dx: int, dy: int, fall: float) -> None:
    """Set ``surface`` to the maximum of itself and itself moved by (dx, dy) pixels and lowered by ``fall``."""
    H, W = surface.shape
    source = surface[max(0, -dy) : H - max(0, dy), max(0, -dx) : W - max(0, dx)] - np.float32(fall)
    target = surface[max(0, dy) : H - max(0, -dy), max(0, dx) : W - max(0, -dx)]
    np.maximum(target, source, out=target)


def shade_objects(height: Field, sun: Sun, gsd_m: float, steepest: float = 1.1) -> Field:
    """Return direct light (H, W) on the tops of things relative to level ground.

    Slopes are cut at ``steepest`` because walls are edges of one pixel that a camera above does not see.
    """
    gain = np.float32(0.5 / gsd_m)
    east, south = np.zeros_like(height), np.zeros_like(height)
    np.subtract(height[:, 2:], height[:, :-2], out=east[:, 1:-1])
    np.subtract(height[2:], height[:-2], out=south[1:-1])
    for rise in (east, south):
        np.clip(np.multiply(rise, gain, out=rise), -steepest, steepest, out=rise)
    x, y, z = (np.float32(v) for v in sun.vector)
    light = z - east * x - south * y
    light /= np.sqrt(1 + east * east + south * south) * z
    return np.asarray(np.clip(light, 0, 1.7), dtype=np.float32)


def shade_relief(relief: Field, sun: Sun, exaggeration: float = 2.2) -> Field:
    """Return the light of hill slopes relative to level ground, of the shape of ``relief``, between 0.5 and 1.5."""
    east, south = (exaggeration * rise for rise in slopes(relief))
    x, y, z = sun.vector
    light = (z - east * x - south * y) / (np.sqrt(1 + east * east + south * south) * z)
    return np.asarray(np.clip(light, 0.5, 1.5), dtype=np.float32)
