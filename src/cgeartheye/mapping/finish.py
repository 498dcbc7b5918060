"""From the files of superblocks to rasters: rims added up, holes cut, everything written in row order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from cgeartheye.geometry.blending import decide
from cgeartheye.geometry.windows import Superblock, Window
from cgeartheye.mapping.blocks import Job, Stored, frame, load
from cgeartheye.progress import Progress
from cgeartheye.rasters.writer import RasterSpec, create_geotiff
from cgeartheye.tasks.segmentation import TaskClass

NODATA: Final = 255
_CACHED: Final = 16


@dataclass
class Counts:
    """What was counted while writing.

    Attributes:
        pixels: by class number.
        unmapped: pixels without data or lost.
        lost: windows that could not be read.
    """

    pixels: NDArray[np.int64]
    unmapped: int = 0
    lost: list[tuple[int, int]] = field(default_factory=list)


@dataclass(frozen=True)
class Targets:
    """Files that :func:`assemble` writes: class values, and confidences if asked for."""

    classes: Path
    confidence: Path | None = None


def assemble(job: Job, classes: tuple[TaskClass, ...], targets: Targets, *, progress: Progress) -> Counts:
    """Write the rasters of finished superblocks as plain tiled GeoTIFFs, in row order and with one row of blocks in memory.

    Args:
        job: whose superblocks all have files.
        classes: give values and colours.
        targets: where to.
        progress: who listens.

    Raises:
        ResourceError: if the disk is full.
    """
    values = np.full(256, NODATA, np.uint8)
    values[: len(classes)] = [c.value for c in classes]
    counts = Counts(np.zeros(len(classes), np.int64))
    stored = lru_cache(maxsize=_CACHED)(lambda block: load(job.file(block), block))
    blocks = list(job.plan.blocks())
    with ExitStack() as stack:
        writer = stack.enter_context(create_geotiff(targets.classes, class_spec(job, classes)))
        other = stack.enter_context(create_geotiff(targets.confidence, plain_spec(job))) if targets.confidence else None
        for block in progress.track(blocks, "assemble", len(blocks)):
            numbers, confidence, lost = finished(block, stored, len(classes))
            window = RasterWindow(block.region.col, block.region.row, block.region.width, block.region.height)
            writer.write(values[numbers], 1, window=window)
            if other is not None:
                other.write(confidence, 1, window=window)
            counts.pixels += np.bincount(numbers.ravel(), minlength=256)[: len(classes)]
            counts.unmapped += int((numbers == NODATA).sum())
            counts.lost += lost
    return counts


def finished(
    block: Superblock, stored: Callable[[Superblock], Stored], classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[tuple[int, int]]]:
    """Return the (h, w) uint8 class numbers and confidences of a superblock's region, 255 without data, and its lost windows."""
    region, interior, own = block.region, block.interior, stored(block)
    numbers = np.full(region.shape, NODATA, np.uint8)
    confidence = np.full(region.shape, NODATA, np.uint8)
    if interior:
        numbers[interior.within(region)], confidence[interior.within(region)] = own.classes, own.confidence
    near = [stored(other) for other in block.neighbours()]
    for window in frame(region, interior):
        numbers[window.within(region)], confidence[window.within(region)] = decide(_rim_sums(window, near, classes))
    unmapped = ~own.valid
    for index in (lost for other in near for lost in other.lost):
        if common := block.plan.support(*index).intersect(region):
            unmapped[common.within(region)] = True
    numbers[unmapped] = confidence[unmapped] = NODATA
    return numbers, confidence, own.lost


def _rim_sums(window: Window, near: list[Stored], classes: int) -> NDArray[np.int32]:
    """Add up what a superblock and its neighbours say in a part of their common rim: (C, h, w) int32."""
    sums = np.zeros((classes, *window.shape), np.int32)
    for other in near:
        for piece, piece_sums in other.rim:
            if common := piece.intersect(window):
                sums[:, *common.within(window)] += piece_sums[:, *common.within(piece)]
    return sums


def plain_spec(job: Job) -> RasterSpec:
    """Return the spec of a single-band raster on the map's grid."""
    source, plan = job.source, job.plan
    return RasterSpec(
        crs=source.crs,
        transform=source.transform,
        width=plan.width,
        height=plan.height,
        nodata=NODATA,
        block_px=block_px(plan.core_px),
    )


def class_spec(job: Job, classes: tuple[TaskClass, ...]) -> RasterSpec:
    """Return the spec of the class raster, with its colours."""
    table = {c.value: (int(c.colour[1:3], 16), int(c.colour[3:5], 16), int(c.colour[5:7], 16)) for c in classes}
    return replace(plain_spec(job), colour_table=table)


def block_px(core_px: int) -> int:
    """Return the side of a raster's blocks: the largest number of whole cores up to 512 px if TIFF allows it, else 512."""
    fitting = [side for side in range(core_px, 513, core_px) if side % 16 == 0]
    return fitting[-1] if fitting else 512
