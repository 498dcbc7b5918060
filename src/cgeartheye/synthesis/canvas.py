"""The landscape on its pixel grid: everything that does not depend on the season."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.features import rasterize
from shapely.geometry.base import BaseGeometry

from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis.buildings import roof_heights
from cgeartheye.synthesis.layout import Layout
from cgeartheye.synthesis.noise import Textures, make_textures
from cgeartheye.synthesis.roads import dashes
from cgeartheye.synthesis.vegetation import Stand, plant, stamp

NEVER = 9
"""Quarter in which ground changes that never changes."""


@dataclass(frozen=True)
class Canvas:
    """Layers (H, W) of the landscape.

    Args:
        ground: uint16, number of the surface.
        rows: int8, row pattern of fields, -127 to 127.
        building: uint16, number of the building plus 1, 0 where there is none.
        roof: uint8, height of the roof in decimetres.
        crown: uint8, height of the crown in decimetres.
        kind: uint8, kind of tree, 0 where there is none.
        paint: uint8, strength of road paint, 0 to 255.
        since: uint8, index of the quarter from which on the ground is bare (:data:`NEVER` where it stays).
        classes: uint8, class of the neighbourhood, 255 where there is none.
        textures: grain of all surfaces.
    """

    settings: WorldSettings
    layout: Layout
    ground: NDArray[np.uint16]
    rows: NDArray[np.int8]
    building: NDArray[np.uint16]
    roof: NDArray[np.uint8]
    crown: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    paint: NDArray[np.uint8]
    since: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    textures: Textures


def burn(
    shapes: Sequence[tuple[BaseGeometry, int]], side: int, gsd_m: float, *, fill: int = 0, dtype: str = "uint8"
) -> NDArray[Any]:
    """Return the (side, side) raster of geometries with values, later ones over earlier ones, pixels by their centre."""
    if not shapes:
        return np.full((side, side), fill, dtype=dtype)
    grid = Affine.scale(gsd_m)
    return np.asarray(rasterize(shapes, out_shape=(side, side), transform=grid, fill=fill, dtype=dtype))


def class_raster(layout: Layout, side: int, gsd_m: float) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return surface numbers and class numbers (side, side) of a layout at any pixel size."""
    surfaces = layout.surfaces
    ground = burn([(shape, i) for i, shape in enumerate(surfaces.shapes)], side, gsd_m, dtype="uint16")
    return ground, np.asarray(surfaces.use, dtype=np.uint8)[ground]


def make_canvas(settings: WorldSettings, layout: Layout) -> Canvas:
    """Return the layers of a landscape at the pixel of the settings."""
    side, gsd = settings.side_px, settings.gsd_m
    ground, classes = class_raster(layout, side, gsd)
    buildings = layout.buildings
    building = burn([(s, i + 1) for i, s in enumerate(buildings.footprints())], side, gsd, dtype="uint16")
    stand = Stand(classes, building > 0, gsd)
    crown, kind = stamp(plant(settings.seed, settings.size_m, stand, layout), side, gsd)
    kind[np.isin(ground, _tree_free(layout))] = 0
    return Canvas(
        settings=settings,
        layout=layout,
        ground=ground,
        rows=_row_pattern(layout, ground, gsd),
        building=building,
        roof=_roofs(layout, building, gsd),
        crown=crown,
        kind=kind,
        paint=_paint(layout, side, gsd),
        since=burn([(c.outline, c.since) for c in layout.changes.pieces], side, gsd, fill=NEVER),
        classes=classes,
        textures=make_textures(settings.seed, gsd),
    )


def _tree_free(layout: Layout) -> NDArray[np.intp]:
    """Numbers of surfaces that no crown may hide: the carriageways of motorways, so that they are seen whole."""
    return np.array([i for i, shape in enumerate(layout.surfaces.shapes) if shape is layout.motorways.asphalt], dtype=np.intp)


def _row_pattern(layout: Layout, ground: NDArray[np.uint16], gsd_m: float) -> NDArray[np.int8]:
    period = np.asarray(layout.surfaces.period_m, dtype=np.float32)
    angle = np.asarray(layout.surfaces.angle, dtype=np.float32)
    pattern = np.zeros(ground.shape, dtype=np.int8)
    turn = 2 * np.pi * gsd_m / np.maximum(period, 1e-6)
    # rows run along the angle, so the phase grows across it
    per_x, per_y = (-np.sin(angle) * turn).astype(np.float32), (np.cos(angle) * turn).astype(np.float32)
    for first in range(0, ground.shape[0], 256):
        ids = ground[first : first + 256]
        row, column = np.nonzero(period[ids] > 0)
        number = ids[row, column]
        phase = column.astype(np.float32) * per_x[number] + (row + first).astype(np.float32) * per_y[number]
        pattern[first + row, column] = (np.sin(phase) * 127).astype(np.int8)
    return pattern


def _roofs(layout: Layout, building: NDArray[np.uint16], gsd_m: float) -> NDArray[np.uint8]:
    row, column = np.nonzero(building)
    x, y = (column.astype(np.float32) + 0.5) * gsd_m, (row.astype(np.float32) + 0.5) * gsd_m
    roof = np.zeros(building.shape, dtype=np.uint8)
    heights = roof_heights(layout.buildings, building[row, column].astype(np.int64) - 1, x, y)
    roof[row, column] = np.clip(np.round(10 * heights), 0, 255).astype(np.uint8)
    return roof


def _paint(layout: Layout, side: int, gsd_m: float) -> NDArray[np.uint8]:
    half = max(0.28, 0.45 * gsd_m)
    solid = [(line.buffer(half), 150) for line in layout.motorways.solid]
    dashed = [(dash.buffer(half), 150) for line in layout.motorways.dashed for dash in dashes(line)]
    return np.asarray(burn(solid + dashed, side, gsd_m), dtype=np.uint8)
