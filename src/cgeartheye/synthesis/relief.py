"""Relief: fractal hills that sink towards the river, on a 7.5 m grid."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.features import rasterize
from scipy import ndimage
from shapely.geometry.base import BaseGeometry

from cgeartheye.seeding import stream
from cgeartheye.synthesis.noise import Field, enlarge, fractal
from cgeartheye.synthesis.water import Water

RELIEF_M: Final = 7.5
"""Pixel of the relief, of the elevation layer and of the land-cover layer in metres."""


def relief_side(size_m: float) -> int:
    """Return the number of relief pixels along a side."""
    return round(size_m / RELIEF_M)


def make_relief(seed: int, size_m: float, water: Water) -> Field:
    """Return elevations (h, w) float32 in metres above sea level, row 0 in the north.

    Hills grow with the distance from the river, so that the river lies in a valley that falls towards its mouth; lakes are
    level and lower than their shores.
    """
    side = relief_side(size_m)
    rng = stream(seed, "relief")
    noise, fold = (enlarge(fractal(rng, 512, slope)[:384, :384], side, side) for slope in (1.9, 1.7))
    ridges = np.clip(1.0 - np.abs(fold), 0, 1) ** 2
    river = _mask(water.river, side)
    away = ndimage.distance_transform_edt(~river).astype(np.float32) * RELIEF_M / (0.16 * size_m)
    rise = 1.0 - np.exp(-away)
    fall = np.linspace(7.0, 0.0, side, dtype=np.float32)[:, None] * (size_m / 3000.0)
    height = (
        38.0
        + fall
        + rise * (11.0 + (size_m / 3000.0) ** 0.7 * (14.0 * noise + 9.0 * np.maximum(noise, 0) ** 1.6 + 16.0 * ridges))
    )
    for lake in water.lakes:
        inside = _mask(lake, side)
        level = float(np.percentile(height[inside], 20)) if inside.any() else 0.0
        shore = np.clip(ndimage.distance_transform_edt(~inside) * RELIEF_M / 120.0, 0, 1)
        height = level + (height - level) * (shore * shore * (3 - 2 * shore))
    return np.asarray(ndimage.gaussian_filter(height.astype(np.float32), 1.2), dtype=np.float32)


def _mask(geometry: BaseGeometry, side: int) -> NDArray[np.bool_]:
    grid = Affine.scale(RELIEF_M)
    return np.asarray(rasterize([(geometry, 1)], out_shape=(side, side), transform=grid, dtype="uint8"), bool)


def slopes(height: Field) -> tuple[Field, Field]:
    """Return the rise per metre towards east and towards south, each of the shape of ``height``."""
    south, east = np.gradient(height, RELIEF_M)
    return np.asarray(east, dtype=np.float32), np.asarray(south, dtype=np.float32)
