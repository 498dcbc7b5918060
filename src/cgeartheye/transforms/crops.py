"""Random crops resized with antialias; flips and quarter turns are folded in.

On an accelerator a view is two products with banded matrices, so that a batch is a handful of kernels of fixed shape. On a CPU,
where those products would be a hundred times the work, each view is cut out and resized by itself.

B batch, V views, S side of a view in pixels, H W pixels of a (padded) picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.errors import ShapeError
from cgeartheye.transforms.draws import uniforms


@dataclass(frozen=True, slots=True, kw_only=True)
class CropPolicy:
    """How boxes of one kind of view are drawn.

    Args:
        scale: least and greatest share of the picture's area.
        aspect: greatest ratio of the box's sides, >= 1; drawn log-uniformly between its inverse and itself.
        turns: whether the eight flips and quarter turns are drawn with equal probability; else nothing is turned.
    """

    scale: tuple[float, float]
    aspect: float = 1.1
    turns: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """Where views are cut from, rows of one kind of view.

    Args:
        top, left, height, width: (B, V) int64 pixels; the box lies inside its picture.
        turn: (B, V) int64 in 0..7, bit 0 mirrors columns, bit 1 mirrors rows, bit 2 swaps the axes afterwards.
    """

    top: NDArray[np.int64]
    left: NDArray[np.int64]
    height: NDArray[np.int64]
    width: NDArray[np.int64]
    turn: NDArray[np.int64]

    def rows(self, chosen: NDArray[np.int64]) -> Boxes:
        """Return the boxes of some rows, (R,) of (B, V) -> (R, V)."""
        parts = (self.top, self.left, self.height, self.width, self.turn)
        top, left, height, width, turn = (part[chosen] for part in parts)
        return Boxes(top=top, left=left, height=height, width=width, turn=turn)

    def one_each(self, view: NDArray[np.int64]) -> Boxes:
        """Return for each row the box of its view (B,), (B, V) -> (B, 1)."""
        parts = (self.top, self.left, self.height, self.width, self.turn)
        top, left, height, width, turn = (np.take_along_axis(part, view[:, None], 1) for part in parts)
        return Boxes(top=top, left=left, height=height, width=width, turn=turn)

    def reduced(self, full: NDArray[np.int64], sizes: NDArray[np.int64]) -> Boxes:
        """Return the same boxes in smaller versions of their pictures, to the nearest pixel.

        Args:
            full: (B, 2) int64 height and width that the boxes belong to.
            sizes: (B, 2) int64 height and width of the smaller versions.
        """
        top, height = _reduced(self.top, self.height, full[:, :1], sizes[:, :1])
        left, width = _reduced(self.left, self.width, full[:, 1:], sizes[:, 1:])
        return Boxes(top=top, left=left, height=height, width=width, turn=self.turn)


def draw_boxes(
    policy: CropPolicy, sizes: NDArray[np.int64], *, seed: int, names: tuple[str, ...], samples: NDArray[np.int64]
) -> Boxes:
    """Draw one box a sample and view.

    Args:
        policy: how to draw.
        sizes: (B, 2) int64 height and width of each picture in pixels.
        seed: the stage's seed.
        names: V names of the views, part of the stream's name.
        samples: (B,) int64 running sample numbers.

    Returns:
        Boxes with (B, V) entries. A box that would leave the picture is cut to it.
    """
    u = np.stack([uniforms(seed, f"crop/{name}", samples, 5) for name in names], axis=1)
    low, high = policy.scale
    share = low + (high - low) * u[..., 0]
    stretch = np.exp((2 * u[..., 1] - 1) * np.log(policy.aspect) / 2)
    h, w = sizes[:, None, 0], sizes[:, None, 1]
    side = np.sqrt(share * h * w)
    height = np.clip(np.rint(side * stretch), 1, h).astype(np.int64)
    width = np.clip(np.rint(side / stretch), 1, w).astype(np.int64)
    top = np.floor(u[..., 2] * (h - height + 1)).astype(np.int64)
    left = np.floor(u[..., 3] * (w - width + 1)).astype(np.int64)
    turn = np.floor(u[..., 4] * 8).astype(np.int64) * int(policy.turns)
    return Boxes(top=top, left=left, height=height, width=width, turn=turn)


def _reduced(
    start: NDArray[np.int64], length: NDArray[np.int64], full: NDArray[np.int64], size: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first = np.minimum(np.rint(start * (size / full)), size - 1).astype(np.int64)
    end = np.clip(np.rint((start + length) * (size / full)), first + 1, size).astype(np.int64)
    return first, end - first


def crop(images: Tensor, boxes: Boxes, *, side: int) -> Tensor:
    """Cut and resize views by antialiased cubic interpolation, clamped to [0, 1].

    Args:
        images: (B, 3, H, W) uint8, or float in [0, 1]; smaller pictures are padded at the bottom and right. On a CPU, uint8 is
            several times faster, most of all if channels are last in memory, and rounds to 1 / 255 after each axis.
        boxes: (B, V) boxes.
        side: S, pixels of a view.

    Returns:
        (V, B, 3, S, S) float32 in [0, 1]. On a GPU the products are of half precision: the same error.

    Raises:
        ShapeError: if the number of pictures and boxes differ.
    """
    if len(boxes.top) != len(images):
        raise ShapeError(f"{len(images)} pictures, but {len(boxes.top)} rows of boxes")
    if images.device.type == "cpu":
        return crop_each(images, boxes, side=side)
    return crop_products(images, boxes, side=side, dtype=torch.float16 if images.device.type == "cuda" else torch.float32)


def crop_each(images: Tensor, boxes: Boxes, *, side: int) -> Tensor:
    """Cut and resize views one after the other, (B, 3, H, W) -> (V, B, 3, S, S) float32; see :func:`crop`."""
    B, V = boxes.top.shape
    views = torch.empty(V, B, images.shape[1], side, side, dtype=images.dtype)
    parts = (boxes.top, boxes.left, boxes.height, boxes.width, boxes.turn)
    for b in range(B):
        for v, (top, left, height, width, turn) in enumerate(zip(*(part[b].tolist() for part in parts), strict=True)):
            cut = images[b : b + 1, :, top : top + height, left : left + width]
            view = F.interpolate(cut, size=(side, side), mode="bicubic", antialias=True)[0]
            flips = [axis for axis, bit in ((2, 1), (1, 2)) if turn & bit]
            view = view.flip(flips) if flips else view
            views[v, b] = view.transpose(1, 2) if turn & 4 else view
    return views.float().div_(255) if views.dtype == torch.uint8 else views.clamp_(0, 1)


def crop_products(images: Tensor, boxes: Boxes, *, side: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Cut and resize all views by two batched products in ``dtype``, (B, 3, H, W) -> (V, B, 3, S, S); see :func:`crop`."""
    B, C, H, W = images.shape
    V = boxes.top.shape[1]
    values = (images.float() / 255 if images.dtype == torch.uint8 else images).to(dtype).contiguous()
    turn = torch.from_numpy(boxes.turn).reshape(-1).to(images.device, non_blocking=True)
    across = _axis_weights(boxes.left, boxes.width, turn & 1 != 0, side, W).to(dtype)  # (B V, S, W)
    down = _axis_weights(boxes.top, boxes.height, turn & 2 != 0, side, H).to(dtype)  # (B V, S, H)
    rows = torch.bmm(values.view(B, C * H, W), across.view(B, V * side, W).transpose(1, 2))  # (B, C H, V S)
    rows = rows.view(B, C, H, V, side).permute(0, 3, 2, 1, 4).reshape(B * V, H, C * side)
    views = torch.bmm(down, rows).view(B * V, side, C, side).transpose(1, 2)  # (B V, C, S, S)
    views = torch.where((turn & 4 != 0)[:, None, None, None], views.transpose(2, 3), views)
    return views.float().clamp_(0, 1).view(B, V, C, side, side).transpose(0, 1).contiguous()


def resize_weights(start: Tensor, length: Tensor, *, side: int, size: int, mirror: Tensor | None = None) -> Tensor:
    """Build the matrices that cut [start, start + length) and resize it to ``side`` by antialiased cubic interpolation.

    Only the taps of each output are computed and then spread, because the matrices are nearly empty.

    Args:
        start: (R,) first pixel of the cut.
        length: (R,) pixels of the cut, >= 1.
        side: output pixels, S.
        size: pixels of the (padded) input axis, H.
        mirror: (R,) bool, where the output runs backwards.

    Returns:
        (R, S, H) float32, rows sum to 1, zero outside the cut. Equal to cutting and then
        ``interpolate(mode="bicubic", antialias=True)``.
    """
    begin, end = start.float()[:, None, None], (start + length).float()[:, None, None]
    scale = length.float()[:, None, None] / side
    index = torch.arange(side, dtype=torch.float32, device=start.device).expand(len(start), side)
    if mirror is not None:
        index = torch.where(mirror[:, None], side - 1 - index, index)
    centre = scale * (index[:, :, None] + 0.5) + begin  # (R, S, 1)
    taps = min(size, math.ceil(4 * max(1.0, size / side)) + 2)
    stretch = scale.clamp(min=1.0)
    first = (centre - 2 * stretch).floor_().clamp_(0, size - taps)
    pixel = first + torch.arange(taps, device=start.device)  # (R, S, taps)
    middle = pixel + 0.5
    weights = _cubic(((middle - centre) / stretch).abs_()) * ((middle > begin) & (middle < end))
    weights /= weights.sum(-1, keepdim=True)
    return torch.zeros(len(start), side, size, device=start.device).scatter_(2, pixel.long(), weights)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel (a = -1/2) of distances x >= 0, written in truncated powers: fewer passes than two cases."""
    two, one = (2 - x).clamp_(min=0), (1 - x).clamp_(min=0)
    return (two - 1).mul_(two).mul_(two).mul_(0.5).add_((1 - 2 * one).mul_(one).mul_(one))


def _axis_weights(start: NDArray[np.int64], length: NDArray[np.int64], mirror: Tensor, side: int, size: int) -> Tensor:
    begin, extent = (torch.from_numpy(part).reshape(-1).to(mirror.device, non_blocking=True) for part in (start, length))
    return resize_weights(begin, extent, side=side, size=size, mirror=mirror)
