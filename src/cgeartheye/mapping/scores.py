"""Scores of mapped classes against a truth raster, by block of ground.

C classes, n blocks.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from cgeartheye.errors import DataError
from cgeartheye.geometry.windows import Window
from cgeartheye.mapping.source import SceneSource
from cgeartheye.metrics.segmentation import confusion
from cgeartheye.rasters.reader import Raster, open_raster, read_values, read_values_on_grid
from cgeartheye.tasks.segmentation import TaskClass

UNLABELLED = 255


def block_confusions(
    mapped: Path, truth: Path, source: SceneSource, classes: tuple[TaskClass, ...], *, side_px: int
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Count true and mapped classes by block of ``side_px``.

    Pixels that are not labelled, or that could not be mapped because the scene has no data there, are not counted.

    Args:
        mapped: class raster on the scene's grid.
        truth: raster of true class values in the same place; taken as it is if it lies on the grid, else by the nearest pixel.
        source: the scene.
        classes: give the values.
        side_px: side of a block.

    Returns: (n, C, C + 1) int64 of the blocks with any counted pixel, and how many pixels were left out, by reason.

    Raises:
        DataError: if the truth cannot be read or labels nothing of the scene.
    """
    numbers = np.full(256, UNLABELLED, np.uint8)
    for number, c in enumerate(classes):
        numbers[c.value] = number
    found, left = [], {"unlabelled": 0, "other_values": 0, "unmapped": 0}
    with open_raster(mapped) as map_raster, open_raster(truth) as truth_raster:
        for window in _blocks(source, side_px):
            values = _values(read_values(map_raster, _cut(window))[0], mapped)
            true_values = _truth(truth_raster, source, window)
            true = numbers[true_values]
            predicted = numbers[values]
            left["unlabelled"] += int((true_values == UNLABELLED).sum())
            left["other_values"] += int(((true == UNLABELLED) & (true_values != UNLABELLED)).sum())
            left["unmapped"] += int(((predicted == UNLABELLED) & (true != UNLABELLED)).sum())
            true[predicted == UNLABELLED] = UNLABELLED
            counts = confusion(true, predicted, len(classes))
            if counts.any():
                found.append(counts)
    if not found:
        wanted = ", ".join(str(c.value) for c in classes)
        raise DataError(
            "labels no mapped pixel of the scene",
            where=str(truth),
            remedy=f"check that it lies on {source.path.name} and holds the classes' values: {wanted}",
        )
    return np.stack(found), left


def _blocks(source: SceneSource, side_px: int) -> list[Window]:
    height, width = source.grid.height, source.grid.width
    return [
        Window(row, col, min(side_px, height - row), min(side_px, width - col))
        for row in range(0, height, side_px)
        for col in range(0, width, side_px)
    ]


def _truth(raster: Raster, source: SceneSource, window: Window) -> NDArray[np.uint8]:
    values, valid = read_values_on_grid(raster, source.part(window))
    return np.where(valid, _values(values, raster.path), UNLABELLED).astype(np.uint8)


def _values(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    if values.dtype != np.uint8:
        remedy = "convert it: gdal_translate -ot Byte"
        raise DataError(f"holds {values.dtype}, not 8-bit class values", where=str(path), remedy=remedy)
    return values.astype(np.uint8)


def _cut(window: Window) -> RasterWindow:
    return RasterWindow(window.col, window.row, window.width, window.height)
