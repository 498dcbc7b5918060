"""Where a grid lies in a raster: an exact window of it, or one warp away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window
from scipy.ndimage import maximum_filter

from cgeartheye.geometry.crs import Affine6, apply, invert, same_crs, transformer
from cgeartheye.geometry.grid import Grid

ALIGNED_PX: Final = 0.01
"""Grids whose corners differ by less, in pixels, are one grid [ours]."""
SHRINK: Final = 1.5
"""Above this ratio of pixel sizes values are averaged, below interpolated [ours]."""
_TOLERANCE_PX: Final = 0.01
Kernel = Literal["nearest", "bilinear", "cubic", "average", "mode"]
_REACH: Final = {"nearest": 0.0, "mode": 0.5, "average": 0.5, "bilinear": 1.0, "cubic": 2.0}


@dataclass(frozen=True, slots=True)
class Placement:
    """How a grid lies in a raster.

    Args:
        window: the raster's pixels it needs, kernels included; may reach outside the raster. None: it does not touch it.
        exact: the window is the grid, pixel by pixel.
        shrink: raster pixels a grid pixel spans, the larger of both axes.
    """

    window: Window | None
    exact: bool
    shrink: float


def place(grid: Grid, transform: Affine6, crs: str, size: tuple[int, int]) -> Placement:
    """Find a grid in a raster.

    Args:
        grid: the grid.
        transform: the raster's affine transform.
        crs: the raster's system.
        size: height and width of the raster in pixels.
    """
    if same_crs(grid.crs, crs):
        exact = _exact_window(grid, transform)
        if exact is not None:
            return Placement(exact, exact=True, shrink=1.0)
    column, row = _outline(grid, transform, crs)
    if not (np.all(np.isfinite(column)) and np.all(np.isfinite(row))):
        return Placement(None, exact=False, shrink=1.0)
    shrink = _shrink(grid, transform, crs)
    margin = math.ceil(2 * max(1.0, shrink)) + 2
    left, top = math.floor(column.min()) - margin, math.floor(row.min()) - margin
    right, bottom = math.ceil(column.max()) + margin, math.ceil(row.max()) + margin
    touches = left < size[1] and right > 0 and top < size[0] and bottom > 0
    return Placement(Window(left, top, right - left, bottom - top) if touches else None, exact=False, shrink=shrink)


def warp(
    values: NDArray[Any], valid: NDArray[np.bool_], source: tuple[Affine6, str], grid: Grid, kernel: Kernel
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Resample values onto a grid, once.

    A pixel is valid if every source pixel its kernel reaches was; others become 0.

    Args:
        values: (n, H, W) of any number type.
        valid: (H, W) bool.
        source: affine transform and system of ``values``.
        grid: the target.
        kernel: interpolation.
    Returns: (n, grid.height, grid.width) of the same type, and (grid.height, grid.width) bool.
    """
    transform, crs = source
    shape = (grid.height, grid.width)
    reach = math.ceil(_REACH[kernel] * max(1.0, _shrink(grid, transform, crs)))
    empty = maximum_filter(~valid, size=2 * reach + 1, mode="nearest") if reach else ~valid
    known = np.zeros(shape, dtype=np.uint8)
    _reproject((~empty).astype(np.uint8), known, source, grid, "nearest")
    result = np.zeros((len(values), *shape), dtype=values.dtype)
    if known.any():
        _reproject(values, result, source, grid, kernel)
        result[:, known == 0] = 0
    return result, known > 0


def _reproject(values: NDArray[Any], result: NDArray[Any], source: tuple[Affine6, str], grid: Grid, kernel: Kernel) -> None:
    reproject(
        values,
        result,
        src_transform=Affine(*source[0]),
        src_crs=source[1],
        dst_transform=Affine(*grid.transform),
        dst_crs=grid.crs,
        resampling=Resampling[kernel],
        tolerance=_TOLERANCE_PX,
    )


def _exact_window(grid: Grid, transform: Affine6) -> Window | None:
    x0, y0, gsd = grid.x0, grid.y0, grid.gsd_m
    across, down = grid.width * gsd, grid.height * gsd
    column, row = apply(invert(transform), np.array([x0, x0 + across, x0]), np.array([y0, y0, y0 - down]))
    left, top = round(float(column[0])), round(float(row[0]))
    wanted_column = np.array([left, left + grid.width, left])
    wanted_row = np.array([top, top, top + grid.height])
    if max(np.abs(column - wanted_column).max(), np.abs(row - wanted_row).max()) > ALIGNED_PX:
        return None
    return Window(left, top, grid.width, grid.height)


def _outline(grid: Grid, transform: Affine6, crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return raster columns and rows of points along the grid's outline."""
    along = np.linspace(0, 1, 9)
    u = np.concatenate([along, along, np.zeros(9), np.ones(9)]) * grid.width
    v = np.concatenate([np.zeros(9), np.ones(9), along, along]) * grid.height
    return _to_pixels(grid, transform, crs, (u, v))


def _shrink(grid: Grid, transform: Affine6, crs: str) -> float:
    u, v = grid.width / 2 + np.array([0, 1, 0]), grid.height / 2 + np.array([0, 0, 1])
    column, row = _to_pixels(grid, transform, crs, (u, v))
    spans = np.hypot(column[1:] - column[0], row[1:] - row[0])
    return float(spans.max()) if np.all(np.isfinite(spans)) else 1.0


def _to_pixels(
    grid: Grid, transform: Affine6, crs: str, points: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = apply(grid.transform, *points)
    if not same_crs(grid.crs, crs):
        x, y = transformer(grid.crs, crs).transform(x, y)
    return apply(invert(transform), x, y)
