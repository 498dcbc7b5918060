"""Where a grid lies in a raster: an exact window of it, or one warp away."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject
from rasterio.windows import Window
from scipy.ndimage import distance_transform_edt, maximum_filter

from cgeartheye.geometry.crs import Affine6, apply, invert, same_crs, transformer
from cgeartheye.geometry.grid import Grid

ALIGNED_PX: Final = 0.01
"""Grids whose outlines differ by less, in pixels, are one grid [ours]."""
SHRINK: Final = 1.5
"""Above this ratio of pixel sizes values are averaged, below interpolated [ours]."""
_TOLERANCE_PX: Final = 0.01
Kernel = Literal["nearest", "bilinear", "cubic", "average", "mode"]
_REACH: Final = {"nearest": 0.0, "mode": 0.5, "average": 0.5, "bilinear": 1.0, "cubic": 2.0}

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lattice:
    """Where the pixels of a raster, or of a window of it, lie.

    Args:
        transform: from column and row to x and y of ``crs``.
        crs: the system, as "EPSG:n" or WKT.
        height: rows.
        width: columns.
    """

    transform: Affine6
    crs: str
    height: int
    width: int

    def window(self, window: Window) -> Lattice:
        """Return the lattice of a window, which may reach outside."""
        a, b, c, d, e, f = self.transform
        u, v = window.col_off, window.row_off
        moved = (a, b, a * u + b * v + c, d, e, d * u + e * v + f)
        return Lattice(moved, self.crs, int(window.height), int(window.width))

    def pixels(self, grid: Grid, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Return columns and rows here of columns ``u`` and rows ``v`` of a grid, (n,) each; infinite where there are none."""
        x, y = apply(grid.transform, u, v)
        if not same_crs(grid.crs, self.crs):
            x, y = transformer(grid.crs, self.crs).transform(x, y)
        turn = _turn(self.crs)
        if turn is not None:  # rasters over the antimeridian begin at 179.9, -180.1 or even 539.9 degrees
            middle, _ = apply(self.transform, self.width / 2, self.height / 2)
            x = x - turn * np.round((x - middle) / turn)
        return apply(invert(self.transform), x, y)

    def offset(self, other: Lattice) -> tuple[int, int] | None:
        """Return the column and row here of the first pixel of ``other``; None if its pixels are not those of this lattice."""
        if self.crs != other.crs:
            return None
        corners = np.array([0, other.width, 0]), np.array([0, 0, other.height])
        column, row = apply(invert(self.transform), *apply(other.transform, *corners))
        left, top = round(float(column[0])), round(float(row[0]))
        off = max(np.abs(column - corners[0] - left).max(), np.abs(row - corners[1] - top).max())
        return (left, top) if off <= ALIGNED_PX else None


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


def place(grid: Grid, lattice: Lattice) -> Placement:
    """Find a grid in a raster.

    It lies exactly on the raster's pixels if its outline does, whatever the system is called: UTM on ETRS89 or NAD83 has, as
    PROJ sees it, the coordinates of UTM on WGS84.
    """
    u, v = _outline(grid)
    column, row = lattice.pixels(grid, u, v)
    if not (np.all(np.isfinite(column)) and np.all(np.isfinite(row))):
        return Placement(None, exact=False, shrink=1.0)
    left, top = round(float(column[0])), round(float(row[0]))
    if max(np.abs(column - u - left).max(), np.abs(row - v - top).max()) <= ALIGNED_PX:
        return Placement(Window(left, top, grid.width, grid.height), exact=True, shrink=1.0)
    shrink = _shrink(grid, lattice)
    margin = math.ceil(2 * max(1.0, shrink)) + 2
    left, top = math.floor(column.min()) - margin, math.floor(row.min()) - margin
    right, bottom = math.ceil(column.max()) + margin, math.ceil(row.max()) + margin
    touches = left < lattice.width and right > 0 and top < lattice.height and bottom > 0
    return Placement(Window(left, top, right - left, bottom - top) if touches else None, exact=False, shrink=shrink)


def warp(values: NDArray[Any], valid: Mask, source: Lattice, grid: Grid, kernel: Kernel) -> tuple[NDArray[Any], Mask]:
    """Resample values onto a grid, once.

    A pixel is valid if every source pixel its kernel reaches was; others become 0.

    Args:
        values: (n, H, W) of any number type.
        valid: (H, W) bool.
        source: where ``values`` lie.
        grid: the target.
        kernel: interpolation.
    Returns: (n, grid.height, grid.width) of the same type, and (grid.height, grid.width) bool.
    """
    reach = max(_reaches(kernel, grid, source))
    result = np.zeros((len(values), grid.height, grid.width), dtype=values.dtype)
    whole = bool(valid.all())
    if whole and _inside(grid, source, reach):
        _reproject(values, result, source, grid, kernel)
        if _rim(result).any(axis=0).all():  # else GDAL may have found the rim elsewhere than PROJ has: the mask will tell
            return result, np.ones((grid.height, grid.width), dtype=bool)
    usable = valid if whole or not reach else ~maximum_filter(~valid, size=2 * reach + 1, mode="nearest")
    known = _nearest(usable, source, grid)
    if known.any():
        _reproject(values, result, source, grid, kernel)
        result[:, ~known] = 0
    return result, known


def warp_to_edge(values: NDArray[Any], valid: Mask, source: Lattice, grid: Grid, kernel: Kernel) -> tuple[NDArray[Any], Mask]:
    """Resample values up to the very edge of the valid ones, which are repeated where the kernel reaches beyond it.

    For the seam between two pictures that meet without overlap; a pixel is valid if the source pixel it lies in is.

    Args:
        values: (n, H, W) of any number type.
        valid: (H, W) bool.
        source: where ``values`` lie.
        grid: the target.
        kernel: interpolation.
    Returns: (n, grid.height, grid.width) of the same type, and (grid.height, grid.width) bool.
    """
    if not valid.any():
        return warp(values, valid, source, grid, kernel)
    at = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    filled, _ = warp(values[:, at[0], at[1]], np.ones_like(valid), source, grid, kernel)
    known = _nearest(valid, source, grid)
    filled[:, ~known] = 0
    return filled, known


def reach_px(kernel: Kernel, grid: Grid, source: Lattice) -> int:
    """Return how many pixels of the grid a kernel's reach in the source is, rounded up."""
    return math.ceil(max(_reaches(kernel, grid, source)) / max(1e-6, _shrink(grid, source)))


def _reaches(kernel: Kernel, grid: Grid, source: Lattice) -> tuple[int, int]:
    """Return how many columns and rows of the source a kernel reaches beyond the pixel that it is about."""
    steps = _steps(grid, source)
    boxed = kernel in {"average", "mode"}  # GDAL takes all pixels of the upright box around the grid's pixel
    spans = np.abs(steps).sum(axis=1) if boxed else np.maximum(1.0, np.hypot(steps[:, 0], steps[:, 1]))
    across, down = (math.ceil(_REACH[kernel] * float(span)) for span in spans)
    return across, down


def _inside(grid: Grid, source: Lattice, reach: int) -> bool:
    """Tell whether all of a grid lies at least ``reach`` pixels inside."""
    column, row = source.pixels(grid, *_outline(grid))
    inside = (column >= reach) & (column <= source.width - reach) & (row >= reach) & (row <= source.height - reach)
    return bool(inside.all())


def _rim(values: NDArray[Any]) -> NDArray[Any]:
    """Return the outermost pixels of (n, H, W) as (n, m)."""
    sides = (values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1])
    return np.concatenate(sides, axis=1)


def _nearest(mask: Mask, source: Lattice, grid: Grid) -> Mask:
    known = np.zeros((grid.height, grid.width), dtype=np.uint8)
    _reproject(mask.astype(np.uint8), known, source, grid, "nearest")
    return known > 0


def _reproject(values: NDArray[Any], result: NDArray[Any], source: Lattice, grid: Grid, kernel: Kernel) -> None:
    scales = [1 / max(1.0, math.hypot(*step)) for step in _steps(grid, source).tolist()]
    reproject(
        values,
        result,
        src_transform=Affine(*_wrapped(source)),
        src_crs=source.crs,
        dst_transform=Affine(*grid.transform),
        dst_crs=grid.crs,
        resampling=Resampling[kernel],
        tolerance=_TOLERANCE_PX,
        # else GDAL measures the shrinking on boxes around turned pictures, chunk by chunk, and blurs them
        XSCALE=scales[0],
        YSCALE=scales[1],
    )


def _wrapped(lattice: Lattice) -> Affine6:
    """Return the transform moved by whole turns until a raster in degrees has its middle where GDAL looks for it."""
    turn = _turn(lattice.crs)
    a, b, c, d, e, f = lattice.transform
    if turn is None:
        return lattice.transform
    middle, _ = apply(lattice.transform, lattice.width / 2, lattice.height / 2)
    return (a, b, c - turn * round(float(middle) / turn), d, e, f)


@lru_cache(maxsize=1024)
def _turn(crs: str) -> float | None:
    """Return what 360 degrees are in units of a geographic system, or None for others."""
    system = CRS.from_user_input(crs)
    return 2 * math.pi / system.axis_info[0].unit_conversion_factor if system.is_geographic else None


def _outline(grid: Grid) -> tuple[Floats, Floats]:
    """Return the grid's columns and rows of points along its outline, the top-left corner first."""
    along = np.linspace(0, 1, 9)
    u = np.concatenate([along, along, np.zeros(9), np.ones(9)]) * grid.width
    v = np.concatenate([np.zeros(9), np.ones(9), along, along]) * grid.height
    return u, v


def _shrink(grid: Grid, lattice: Lattice) -> float:
    steps = _steps(grid, lattice)
    return float(np.hypot(steps[0], steps[1]).max())


def _steps(grid: Grid, lattice: Lattice) -> Floats:
    """Return the columns (first row) and rows that a step to the right, and one down, in the middle of the grid makes: (2, 2)."""
    u, v = grid.width / 2 + np.array([0, 1, 0]), grid.height / 2 + np.array([0, 0, 1])
    at = np.stack(lattice.pixels(grid, u, v))
    steps = at[:, 1:] - at[:, :1]
    return steps if np.all(np.isfinite(steps)) else np.eye(2)
