"""MMPretrain 1.2's ``VisionTransformer``, the layout of the official CGEarthEye checkpoints (prefix ``backbone.``)."""

from __future__ import annotations

from torch import Tensor

from cgeartheye.models.positions import Interpolation
from cgeartheye.weights.layouts.naming import Naming, State

NO_PLACE_FOR: frozenset[str] = frozenset({"mask_token"})
"""Tensors of ours that a checkpoint of this layout lacks."""
NAMING = Naming(
    blocks="layers.",
    top={"patch_embed.proj": "patch_embed.projection", "norm": "ln1"},
    inside={
        "norm1": "ln1",
        "norm2": "ln2",
        "attn.qkv": "attn.qkv",
        "attn.proj": "attn.proj",
        "ls1.gamma": "attn.gamma1.weight",
        "ls2.gamma": "ffn.gamma2.weight",
        "mlp.fc1": "ffn.layers.0.0",
        "mlp.fc2": "ffn.layers.1",
        "mlp.w12": "ffn.w12",
        "mlp.w3": "ffn.w3",
    },
)


def fits(state: State) -> bool:
    """Tell whether the names of ``state`` (any shapes) are MMPretrain's."""
    return any(key.startswith("layers.") for key in state)


def to_own(state: State) -> dict[str, Tensor]:
    """Return ``state`` (any shapes) under our names."""
    return {NAMING.to_own(key): value for key, value in state.items()}


def from_own(state: State) -> dict[str, Tensor]:
    """Return our ``state`` (any shapes) under MMPretrain's names, with the prefix of a whole model."""
    return {f"backbone.{NAMING.from_own(key)}": value for key, value in state.items()}


def interpolation(registers: int) -> Interpolation:
    """Return how MMPretrain resizes positions: bicubic in float32, no antialias, no offset."""
    del registers
    return "plain"
