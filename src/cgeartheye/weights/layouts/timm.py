"""timm's ``VisionTransformer`` (``vit_*_patch14_dinov2`` and ``vit_*_patch14_reg4_dinov2``)."""

from __future__ import annotations

import torch
from torch import Tensor

from cgeartheye.models.positions import Interpolation
from cgeartheye.weights.layouts.naming import State

NO_PLACE_FOR: frozenset[str] = frozenset({"mask_token"})
"""Tensors of ours that a checkpoint of this layout lacks."""


def fits(state: State) -> bool:
    """Tell whether the names of ``state`` (any shapes) are timm's; DINOv2's differ only by mask and register tokens."""
    return "mask_token" not in state and any(key.startswith("blocks.") for key in state)


def to_own(state: State) -> dict[str, Tensor]:
    """Return ``state`` under our names.

    Gated MLPs have their two matrices under the names of a plain one; the first, (2 M, D), has twice the rows that the second,
    (D, M), has columns. Register models keep no position for the class token, because it is part of the token: it becomes 0.
    """
    gated = _gated(state)
    renamed = {}
    for key, value in state.items():
        name = "register_tokens" if key == "reg_token" else key
        if gated:
            name = name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        renamed[name] = value
    table, token = renamed.get("pos_embed"), renamed.get("cls_token")
    if (
        "register_tokens" in renamed
        and table is not None
        and token is not None
        and round(table.shape[1] ** 0.5) ** 2 == table.shape[1]
    ):
        renamed["pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)  # (1, 1 + N, D)
    return renamed


def from_own(state: State) -> dict[str, Tensor]:
    """Return our ``state`` under timm's names; with registers, the class token takes its position (1, 1, D) into itself."""
    named = {key.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): value for key, value in state.items()}
    if "register_tokens" in named:
        named["reg_token"] = named.pop("register_tokens")
        table = named["pos_embed"]
        named["cls_token"] = named["cls_token"] + table[:, :1]
        named["pos_embed"] = table[:, 1:].clone()
    return named


def interpolation(registers: int) -> Interpolation:
    """Return how timm resizes positions: bicubic with antialias."""
    del registers
    return "antialias"


def _gated(state: State) -> bool:
    first, second = state.get("blocks.0.mlp.fc1.weight"), state.get("blocks.0.mlp.fc2.weight")
    return first is not None and second is not None and first.shape[0] == 2 * second.shape[1]
