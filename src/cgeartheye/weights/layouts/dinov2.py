"""DINOv2's own checkpoints (github.com/facebookresearch/dinov2): our names, sometimes in chunks of blocks and below a prefix."""

from __future__ import annotations

import re

from torch import Tensor

from cgeartheye.models.positions import Interpolation
from cgeartheye.weights.layouts.naming import State

NO_PLACE_FOR: frozenset[str] = frozenset()
"""Tensors of ours that a checkpoint of this layout lacks."""
_CHUNK = re.compile(r"blocks\.\d+\.(\d+\.)")


def fits(state: State) -> bool:
    """Tell whether the names of ``state`` (any shapes) are DINOv2's."""
    return "mask_token" in state and any(key.startswith("blocks.") for key in state)


def to_own(state: State) -> dict[str, Tensor]:
    """Return ``state`` (any shapes) under our names: ``blocks.<chunk>.<number>.`` becomes ``blocks.<number>.``."""
    return {_CHUNK.sub(r"blocks.\1", key): value for key, value in state.items()}


def from_own(state: State) -> dict[str, Tensor]:
    """Return our ``state`` (any shapes) under DINOv2's names, which are the same."""
    return dict(state)


def interpolation(registers: int) -> Interpolation:
    """Return how the hub's models resize positions: with the 0.1 offset, but antialiased and without it for registers."""
    return "antialias" if registers else "dinov2"
