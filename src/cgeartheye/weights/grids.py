"""Pictures made ready for networks of others, and their maps brought to one grid.

B batch, C channels, D width, H W pixels, h w patches.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from torch import Tensor

from cgeartheye.errors import ShapeError
from cgeartheye.models.vit import pad_to_patch

STAGE_GRID_PX: Final = 16
"""Grid that the stages of a hierarchical network are brought to, so that it meets plain ones on equal terms [ours]."""


def prepare(images: Tensor, mean: Tensor, std: Tensor, *, patch_px: int) -> Tensor:
    """Normalise and pad a batch for a foreign network.

    Args:
        images: (B, 3, H, W) RGB, uint8 or float in [0, 1].
        mean: (3, 1, 1) float.
        std: (3, 1, 1) float.
        patch_px: H and W are padded at the right and bottom, by repeating the edge, to a multiple of it.

    Returns:
        (B, 3, H', W') float in the type of ``mean``.

    Raises:
        ShapeError: if the shape is another.
    """
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ShapeError(f"images are (B, 3, H, W) and not empty, got {tuple(images.shape)}")
    scaled = images.to(mean.dtype) if images.is_floating_point() else images.to(mean.dtype) / 255
    return pad_to_patch((scaled - mean) / std, patch_px)


def on_stage_grid(stage: Tensor, *, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Bring a stage's map to one patch every 16 px.

    Args:
        stage: (B, C, h', w') float of the padded picture.
        padded: its sides in pixels, multiples of 32.
        size: sides of the picture in pixels.

    Returns:
        (B, h, w, C) float with h = ceil(H / 16): finer maps averaged (bilinear with antialias), coarser ones interpolated.
    """
    grid = (padded[0] // STAGE_GRID_PX, padded[1] // STAGE_GRID_PX)
    h, w = (-(-side // STAGE_GRID_PX) for side in size)
    if stage.shape[-2:] != grid:
        stage = F.interpolate(stage, size=grid, mode="bilinear", align_corners=False, antialias=True)
    return stage.permute(0, 2, 3, 1)[:, :h, :w]
