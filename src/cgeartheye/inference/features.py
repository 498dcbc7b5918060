"""Features of whole pictures from a frozen backbone, streamed in batches.

n pictures, d numbers a picture, B batch, D width, H W pixels, h w patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cgeartheye.errors import ShapeError
from cgeartheye.models.vit import Features
from cgeartheye.weights.backbone import Backbone

READOUTS: Final = ("class", "mean", "patch")
"""Class token (D); mean of the patch tokens (D); mean and standard deviation of the patch tokens (2 D)."""


@torch.inference_mode()
def extract(
    backbone: nn.Module, images: Iterable[NDArray[np.uint8]], *, size_px: int | None, readouts: tuple[str, ...], batch: int = 64
) -> dict[str, NDArray[np.float32]]:
    """Return the features of every picture, in order.

    Pictures are held one batch at a time. Consecutive pictures of one shape share a batch.

    Args:
        backbone: maps (B, 3, H, W) uint8 to :class:`Features`; used in evaluation mode on the device it is on.
        images: each (H, W, 3) uint8 RGB.
        size_px: bring the shorter side to this and cut the centre square; None takes the pictures as they are.
        readouts: which of :data:`READOUTS`.
        batch: largest number of pictures a pass.

    Returns:
        For each readout (n, d) float32.

    Raises:
        ShapeError: if a picture has another shape or type, a readout is unknown, or there is no picture.
    """
    unknown = set(readouts) - set(READOUTS)
    if unknown:
        raise ShapeError(f"readouts are among {READOUTS}, got {sorted(unknown)}")
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in readouts}
    for features in _passes(backbone, backbone, images, size_px=size_px, batch=batch):
        for name in readouts:
            found[name].append(read_out(features, name).float().cpu().numpy())
    if readouts and not found[readouts[0]]:
        raise ShapeError("there is no picture to take features of")
    return {name: np.concatenate(parts) for name, parts in found.items()}


@torch.inference_mode()
def extract_levels(
    backbone: Backbone,
    images: Iterable[NDArray[np.uint8]],
    *,
    layers: Sequence[int],
    readouts: Sequence[str],
    size_px: int | None,
    batch: int = 64,
) -> list[NDArray[np.float32]]:
    """Return features of every picture at several depths, the final norm applied at each.

    Args:
        backbone: used in evaluation mode on the device it is on.
        images: each (H, W, 3) uint8 RGB, taken as in :func:`extract`.
        layers: block numbers, negative from the end.
        readouts: which of :data:`READOUTS`.
        size_px: as in :func:`extract`.
        batch: largest number of pictures a pass.

    Returns:
        One (n, d) float32 for each layer and readout, readouts of a layer together; none if there is no picture.

    Raises:
        ShapeError: if a layer does not exist, or a picture has another shape or type.
    """

    def forward(pictures: Tensor) -> list[Features]:
        """Return every level of (B, 3, H, W) pictures."""
        return backbone.levels(pictures, layers, "all")

    found = [
        [read_out(level, name).float().cpu().numpy() for level in levels for name in readouts]
        for levels in _passes(backbone, forward, images, size_px=size_px, batch=batch)
    ]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _passes(
    backbone: nn.Module, forward: Callable[[Tensor], Any], images: Iterable[NDArray[np.uint8]], *, size_px: int | None, batch: int
) -> Iterator[Any]:
    """Yield what ``forward`` makes of each batch, the network in evaluation mode meanwhile."""
    training = backbone.training
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    backbone.eval()
    try:
        for pictures in _batches((prepare(image, size_px) for image in images), batch):
            yield forward(torch.stack(pictures).to(device))
    finally:
        backbone.train(training)


def prepare(image: NDArray[np.uint8], size_px: int | None) -> Tensor:
    """Return a picture as (3, size, size) uint8, or (3, H, W) if ``size_px`` is None.

    The shorter side is brought to ``size_px`` bicubically with antialias, then the centre square is cut.

    Args:
        image: (H, W, 3) uint8 RGB.
        size_px: side wanted.

    Raises:
        ShapeError: if the picture has another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ShapeError(f"a picture is (H, W, 3) uint8, got {image.shape} {image.dtype}")
    pixels = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)  # (3, H, W)
    if size_px is None:
        return pixels
    H, W = pixels.shape[1:]
    if min(H, W) != size_px:
        new = (size_px, max(size_px, round(W * size_px / H))) if H <= W else (max(size_px, round(H * size_px / W)), size_px)
        pixels = F.interpolate(pixels[None], size=new, mode="bicubic", antialias=True, align_corners=False)[0]
    top, left = (pixels.shape[1] - size_px) // 2, (pixels.shape[2] - size_px) // 2
    return pixels[:, top : top + size_px, left : left + size_px]


def read_out(features: Features, readout: str) -> Tensor:
    """Return the (B, d) numbers that ``readout`` takes from tokens; see :data:`READOUTS`."""
    if readout == "class":
        return features.class_token
    tokens = features.patches.flatten(1, 2)  # (B, N, D)
    mean = tokens.mean(dim=1)
    return mean if readout == "mean" else torch.cat([mean, tokens.std(dim=1, correction=0)], dim=1)


def _batches(pictures: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    held: list[Tensor] = []
    for picture in pictures:
        if held and (len(held) == size or picture.shape != held[0].shape):
            yield held
            held = []
        held.append(picture)
    if held:
        yield held
