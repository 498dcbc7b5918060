"""Random crops resized with antialias, as two matrix products a view; flips and quarter turns are folded in.

B batch, V views, S side of a view in pixels, H W pixels of a (padded) picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
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


def resize_weights(start: Tensor, length: Tensor, *, side: int, size: int, mirror: Tensor | None = None) -> Tensor:
    """Build the matrices that cut [start, start + length) and resize it to ``side`` by antialiased cubic interpolation.

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
    scale = length.float() / side
    index = torch.arange(side, dtype=torch.float32).expand(len(scale), side)
    if mirror is not None:
        index = torch.where(mirror[:, None], side - 1 - index, index)
    centre = scale[:, None] * (index + 0.5) + start[:, None]
    pixel = torch.arange(size, dtype=torch.float32) + 0.5
    distance = (pixel[None, None, :] - centre[:, :, None]) / scale.clamp(min=1.0)[:, None, None]
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])
    weights = _cubic(distance.abs_()) * inside[:, None, :]
    return weights / weights.sum(-1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' cubic kernel (a = -1/2) of distances x >= 0, written in truncated powers: fewer passes than two cases."""
    two, one = (2 - x).clamp_(min=0), (1 - x).clamp_(min=0)
    return (two - 1).mul_(two).mul_(two).mul_(0.5).add_((1 - 2 * one).mul_(one).mul_(one))


def crop(images: Tensor, boxes: Boxes, *, side: int) -> Tensor:
    """Cut and resize views.

    Args:
        images: (B, 3, H, W) uint8, or float in [0, 1]; smaller pictures are padded at the bottom and right.
        boxes: (B, V) boxes.
        side: S, pixels of a view.

    Returns:
        (V, B, 3, S, S) float32 in [0, 1].

    Raises:
        ShapeError: if the number of pictures and boxes differ.
    """
    B, C, H, W = images.shape
    V = boxes.top.shape[1]
    if len(boxes.top) != B:
        raise ShapeError(f"{B} pictures, but {len(boxes.top)} rows of boxes")
    device = images.device
    values = images.float() / 255 if images.dtype == torch.uint8 else images
    turn = torch.from_numpy(boxes.turn).reshape(-1)
    across = _axis_weights(boxes.left, boxes.width, turn & 1 != 0, side, W).to(device)  # (B V, S, W)
    down = _axis_weights(boxes.top, boxes.height, turn & 2 != 0, side, H).to(device)  # (B V, S, H)
    rows = torch.bmm(values.reshape(B, C * H, W), across.reshape(B, V * side, W).transpose(1, 2))  # (B, C H, V S)
    rows = rows.reshape(B, C, H, V, side).permute(0, 3, 2, 1, 4).reshape(B * V, H, C * side)
    views = torch.bmm(down, rows).reshape(B * V, side, C, side).transpose(1, 2)  # (B V, C, S, S)
    swap = (turn & 4 != 0).to(device)
    views = torch.where(swap[:, None, None, None], views.transpose(2, 3), views)
    return views.clamp(0, 1).reshape(B, V, C, side, side).transpose(0, 1).contiguous()


def _axis_weights(start: NDArray[np.int64], length: NDArray[np.int64], mirror: Tensor, side: int, size: int) -> Tensor:
    return resize_weights(
        torch.from_numpy(start).reshape(-1), torch.from_numpy(length).reshape(-1), side=side, size=size, mirror=mirror
    )
