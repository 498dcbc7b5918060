"""A dense model over one superblock of a scene: windows in, summed fixed-point probabilities out.

Letters: B windows in a batch, C classes, H W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.errors import DataError
from cgeartheye.geometry.blending import ONE, window_weight
from cgeartheye.geometry.windows import Superblock, Window, WindowPlan, reflect

LOG = logging.getLogger(__name__)

Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""(H, W, 3) uint8 RGB and (H, W) bool, True where the scene has data."""
Read = Callable[[Window], Picture]
"""Reads a window that lies inside the scene; raises DataError if the file is broken there."""
Predict = Callable[[Tensor], Tensor]
"""(B, 3, H, W) uint8 pictures -> (B, C, H, W) float logits."""


@dataclass
class BlockSums:
    """What the windows of one superblock say.

    Attributes:
        block: which superblock.
        sums: (C, h, w) int32 over ``block.support``, in units of 1 / ``blending.ONE``.
        valid: (h, w) bool over ``block.region``; False where the scene has no data or could not be read.
        lost: windows ``(i, j)`` whose pixels could not be read.
    """

    block: Superblock
    sums: NDArray[np.int32]
    valid: NDArray[np.bool_]
    lost: list[tuple[int, int]] = field(default_factory=list)


def read_padded(read: Read, window: Window, scene: Window) -> Picture:
    """Read a window that may reach outside the scene, mirrored at the scene's edges.

    Returns: (H, W, 3) uint8 pixels and (H, W) bool data mask of the window; both mirrored alike.
    """
    rows = reflect(window.row, window.height, scene.height)
    cols = reflect(window.col, window.width, scene.width)
    top, left = int(rows.min()), int(cols.min())
    pixels, valid = read(Window(top, left, int(rows.max()) + 1 - top, int(cols.max()) + 1 - left))
    take = np.ix_(rows - top, cols - left)
    return pixels[take], valid[take]


def fill_holes(pixels: NDArray[np.uint8], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give pixels without data the mean colour of the others, so that a hole does not look like water or shadow.

    Args:
        pixels: (H, W, 3) uint8.
        valid: (H, W) bool.

    Returns: (H, W, 3) uint8.
    """
    if valid.all() or not valid.any():
        return pixels
    mean = np.rint(pixels[valid].mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return np.where(valid[..., None], pixels, mean)


def block_sums(predict: Predict, block: Superblock, read: Read, *, classes: int, batch: int = 8) -> BlockSums:
    """Run a model over the windows of a superblock and add up their feathered probabilities.

    The result for a window depends on that window alone: batches have one fixed size (the last is filled up with
    repeats), windows without any data where they count are skipped, and sums are whole numbers.

    Args:
        predict: the model, in evaluation mode.
        block: which superblock of which plan.
        read: reads pixels inside the scene.
        classes: C.
        batch: windows a forward pass.
    """
    support = block.support
    result = BlockSums(
        block, np.zeros((classes, support.height, support.width), np.int32), np.zeros(block.region.shape, np.bool_)
    )
    with torch.inference_mode():
        for group in _batched(_windows(block, read, result), batch):
            images = [pixels for _, pixels in group]
            images += [images[-1]] * (batch - len(images))
            logits = predict(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
            probabilities = torch.softmax(logits.float(), dim=1)  # (B, C, H, W)
            for (index, _), window_probabilities in zip(group, probabilities, strict=False):
                _add(result, index, window_probabilities)
    return result


def _windows(block: Superblock, read: Read, result: BlockSums) -> Iterator[tuple[tuple[int, int], NDArray[np.uint8]]]:
    plan = block.plan
    source = _source(block, read)
    for i, j in block.cores:
        window, region = plan.window(i, j), plan.core(i, j).intersect(block.region)
        try:
            pixels, valid = source(window)
        except DataError as error:
            LOG.info("window %d, %d is lost: %s", i, j, error.what)
            result.lost.append((i, j))
            continue
        result.valid[region.within(block.region)] = valid[region.within(window)]
        if valid[plan.support(i, j).within(window)].any():
            yield (i, j), fill_holes(pixels, valid)


def _source(block: Superblock, read: Read) -> Callable[[Window], Picture]:
    """Read the whole superblock at once if that works, else window by window, so that only broken windows are lost."""
    scene = block.plan.scene
    first, last = block.cores[0], block.cores[-1]
    start, end = block.plan.window(*first), block.plan.window(*last)
    whole = Window(start.row, start.col, end.bottom - start.row, end.right - start.col)
    try:
        pixels, valid = read_padded(read, whole, scene)
    except DataError:
        return lambda window: read_padded(read, window, scene)
    return lambda window: (pixels[window.within(whole)], valid[window.within(whole)])


def _add(result: BlockSums, index: tuple[int, int], probabilities: Tensor) -> None:
    """Add one window's (C, H, W) probabilities, times its weights, to the sums."""
    plan, support = result.block.plan, result.block.support
    window, part = plan.window(*index), plan.support(*index)
    rows, cols = part.within(window)
    weight = torch.from_numpy(window_weight(plan, *index)[rows, cols])
    fixed = torch.round(probabilities[:, rows, cols] * weight * ONE).to(torch.int32)
    result.sums[:, *part.within(support)] += fixed.numpy()


def _batched(
    items: Iterator[tuple[tuple[int, int], NDArray[np.uint8]]], size: int
) -> Iterator[list[tuple[tuple[int, int], NDArray[np.uint8]]]]:
    group: list[tuple[tuple[int, int], NDArray[np.uint8]]] = []
    for item in items:
        group.append(item)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def predict_picture(predict: Predict, picture: NDArray[np.uint8], plan: WindowPlan, *, classes: int) -> NDArray[np.float32]:
    """Return the (C, H, W) float32 class probabilities of a picture that fits in memory, by the windows of ``plan``.

    Args:
        predict: the model, in evaluation mode.
        picture: (H, W, 3) uint8, of the plan's size.
        plan: windows; its superblocks only bound the memory of one step.
        classes: C.
    """
    total = np.zeros((classes, plan.height, plan.width), np.int32)
    everywhere = np.ones(picture.shape[:2], np.bool_)
    for block in plan.blocks():
        part = block_sums(predict, block, lambda w: (picture[w.slices], everywhere[w.slices]), classes=classes)
        total[:, *block.support.slices] += part.sums
    return total.astype(np.float32) / np.float32(ONE)
