"""A scene as the picture that is mapped: its own pixels where they suit the task, else one warp onto a grid that does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from pyproj import CRS

from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import LONLAT, Affine6, apply, pixel_size_m, transformer, utm_crs
from cgeartheye.geometry.grid import Grid
from cgeartheye.geometry.windows import Window
from cgeartheye.inference.windowed import Read
from cgeartheye.rasters.reader import Raster, open_raster, read_on_grid
from cgeartheye.rasters.warp import place

RATIO: Final = (0.8, 1.25)
"""Ratios of the scene's GSD to the task's between which pixels are taken as they are [ours]."""
_TRUE_SCALE: Final = 0.01


@dataclass(frozen=True)
class SceneSource:
    """Where and how a scene is mapped.

    Attributes:
        path: the scene.
        grid: the pixels that are mapped.
        transform: of the map; the scene's own, to the last bit, unless it is resampled.
        crs: of the map, "EPSG:n" or WKT.
        gsd_m: the scene's own ground sampling distance, the mean of both axes.
        resampled: why the scene is warped, None if its pixels are taken as they are.
    """

    path: Path
    grid: Grid
    transform: Affine6
    crs: str
    gsd_m: float
    resampled: str | None

    @contextmanager
    def reading(self) -> Iterator[Read]:
        """Open the scene and yield the function that reads windows of it."""
        with open_raster(self.path) as raster:
            yield lambda window: read_on_grid(raster, self.part(window))

    def part(self, window: Window) -> Grid:
        """Return the grid of a window."""
        return self.grid.window(window.row, window.col, window.height, window.width)


def plan_source(path: Path, task_gsd_m: float | None) -> SceneSource:
    """Look at a scene's header and decide how its pixels are read.

    Args:
        path: the scene.
        task_gsd_m: ground sampling distance the task was trained at; None: any.

    Raises:
        DataError: if it cannot be opened, is no picture, or has no georeference.
    """
    with open_raster(path) as raster:
        transform, crs = raster.georeference
        raster.plan  # noqa: B018 - refuses what is no picture, before any work
        gsd_x, gsd_y = pixel_size_m(transform, raster.width, raster.height, crs)
        gsd_m = (gsd_x + gsd_y) / 2
        reason = _why_resample(raster, (gsd_x, gsd_y), task_gsd_m)
        if reason is None:
            grid = Grid(crs, transform[2], transform[5], transform[0], raster.width, raster.height)
            return SceneSource(path, grid, transform, crs, gsd_m, None)
        target = gsd_m if task_gsd_m is None or RATIO[0] <= gsd_m / task_gsd_m <= RATIO[1] else task_gsd_m
        grid = _covering_grid(raster, target)
    return SceneSource(path, grid, grid.transform, grid.crs, gsd_m, reason)


def _why_resample(raster: Raster, gsd: tuple[float, float], task_gsd_m: float | None) -> str | None:
    transform, crs = raster.georeference
    if not _is_metric(crs, transform, gsd):
        return f"{crs.splitlines()[0][:40]} has no true metres"
    a, b, c, d, e, f = transform
    if b or d or a < 0 or e > 0:
        return "its rows do not run from west to east, north to south"
    grid = Grid(crs, c, f, a, raster.width, raster.height)
    if not place(grid, raster.lattice).exact:
        return f"its pixels are not square ({a:g} x {-e:g})"
    ratio = 1.0 if task_gsd_m is None else sum(gsd) / 2 / task_gsd_m
    if not RATIO[0] <= ratio <= RATIO[1]:
        return f"its {sum(gsd) / 2:.3g} m a pixel are not the task's {task_gsd_m:g} m"
    return None


def _is_metric(crs: str, transform: Affine6, gsd: tuple[float, float]) -> bool:
    if not CRS.from_user_input(crs).is_projected:
        return False
    a, b, _, d, e, _ = transform
    nominal = np.array([math.hypot(a, d), math.hypot(b, e)])
    return bool(np.all(np.abs(np.array(gsd) / nominal - 1) <= _TRUE_SCALE))


def _covering_grid(raster: Raster, gsd_m: float) -> Grid:
    """Return the grid that covers a raster: in its own system if that is metric, else in its UTM zone."""
    transform, crs = raster.georeference
    gsd = pixel_size_m(transform, raster.width, raster.height, crs)
    target = crs if _is_metric(crs, transform, gsd) else _utm(raster)
    along = np.linspace(0, 1, 21)
    u = np.concatenate([along, along, np.zeros(21), np.ones(21)]) * raster.width
    v = np.concatenate([np.zeros(21), np.ones(21), along, along]) * raster.height
    x, y = transformer(crs, target).transform(*apply(transform, u, v))
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(y))):
        raise DataError("its outline has no place on the map", where=str(raster.path), remedy="check its coordinate system")
    left, top = math.floor(round(x.min() / gsd_m, 6)), math.ceil(round(y.max() / gsd_m, 6))
    right, bottom = math.ceil(round(x.max() / gsd_m, 6)), math.floor(round(y.min() / gsd_m, 6))
    return Grid(target, left * gsd_m, top * gsd_m, gsd_m, max(1, right - left), max(1, top - bottom))


def _utm(raster: Raster) -> str:
    transform, crs = raster.georeference
    x, y = apply(transform, raster.width / 2, raster.height / 2)
    lon, lat = transformer(crs, LONLAT).transform(float(x), float(y))
    return utm_crs(lon, lat)
