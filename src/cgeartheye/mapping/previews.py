"""Small pictures of scene, map and truth, of one size, for reports."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.errors import DataError
from cgeartheye.files import write_bytes
from cgeartheye.geometry.grid import Grid
from cgeartheye.mapping.finish import NODATA
from cgeartheye.mapping.source import SceneSource
from cgeartheye.rasters.reader import Raster, open_raster, read_on_grid, read_values_on_grid
from cgeartheye.tasks.segmentation import TaskClass

LONGEST_PX: Final = 1200
"""Longer side of a preview [ours]."""
STRIP_PX: Final = 2**24
"""Scene pixels that are read at once [ours]."""
SMALLEST_PX: Final = 8
"""Side of the parts of a preview that are given up where a scene is broken [ours]."""
EMPTY: Final = 255
"""Red, green and blue where there is nothing."""


def preview_grid(source: SceneSource) -> Grid:
    """Return the scene's grid with pixels so large that its longer side is at most :data:`LONGEST_PX`."""
    grid = source.grid
    shrink = max(1.0, max(grid.height, grid.width) / LONGEST_PX)
    size = (max(1, round(grid.height / shrink)), max(1, round(grid.width / shrink)))
    return Grid(grid.crs, grid.x0, grid.y0, grid.gsd_m * shrink, size[1], size[0])


def scene_preview(source: SceneSource, path: Path) -> None:
    """Write the scene in its colours, white without data."""
    with open_raster(source.path) as raster:
        strips = [_colours(raster, strip) for strip in _strips(source)]
    picture = np.concatenate(strips)
    _write(path, Image.fromarray(picture.astype(np.uint8)))


def _colours(raster: Raster, grid: Grid) -> NDArray[np.uint8]:
    """Read (H, W, 3) uint8 colours of a grid, empty where there is no data and in the smallest parts that cannot be read."""
    try:
        colours, valid = read_on_grid(raster, grid)
    except DataError:
        if max(grid.height, grid.width) <= SMALLEST_PX:
            return np.full((grid.height, grid.width, 3), EMPTY, np.uint8)
        if grid.height > grid.width:
            half = grid.height // 2
            parts = [grid.window(0, 0, half, grid.width), grid.window(half, 0, grid.height - half, grid.width)]
            return np.concatenate([_colours(raster, part) for part in parts])
        half = grid.width // 2
        parts = [grid.window(0, 0, grid.height, half), grid.window(0, half, grid.height, grid.width - half)]
        return np.concatenate([_colours(raster, part) for part in parts], axis=1)
    colours[~valid] = EMPTY
    return colours


def class_preview(raster_path: Path, source: SceneSource, classes: tuple[TaskClass, ...], path: Path) -> None:
    """Write a raster of class values in the classes' colours, white for anything else."""
    with open_raster(raster_path) as raster:
        strips = [read_values_on_grid(raster, strip) for strip in _strips(source)]
    values = np.concatenate([np.where(valid, found, NODATA) for found, valid in strips])
    _write(path, _painted(values.astype(np.uint8), classes))


def _strips(source: SceneSource) -> list[Grid]:
    """Cut the preview's grid into strips of which each needs few of the scene's pixels."""
    grid, whole = preview_grid(source), source.grid
    rows = max(1, int(STRIP_PX / (whole.width * whole.height / grid.height)))
    return [grid.window(row, 0, min(rows, grid.height - row), grid.width) for row in range(0, grid.height, rows)]


def _painted(values: NDArray[np.uint8], classes: tuple[TaskClass, ...]) -> Image.Image:
    palette = np.full((256, 3), 255, np.uint8)
    for c in classes:
        palette[c.value] = [int(c.colour[k : k + 2], 16) for k in (1, 3, 5)]
    image = Image.fromarray(values, mode="P")
    image.putpalette(palette.tobytes())
    return image


def _write(path: Path, image: Image.Image) -> None:
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=False)
    write_bytes(path, buffer.getvalue())
