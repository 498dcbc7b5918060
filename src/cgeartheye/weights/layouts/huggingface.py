"""Hugging Face's ``Dinov2Model`` and ``Dinov2WithRegistersModel``: the names in files, and those of transformers 5 in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from cgeartheye.models.positions import Interpolation
from cgeartheye.models.vit import VitConfig
from cgeartheye.weights.layouts.naming import Naming, State

NO_PLACE_FOR: frozenset[str] = frozenset()
"""Tensors of ours that a checkpoint of this layout lacks."""
NAMING = Naming(
    blocks="encoder.layer.",
    top={
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "register_tokens": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    },
    inside={
        "norm1": "norm1",
        "norm2": "norm2",
        "attn.query": "attention.attention.query",
        "attn.key": "attention.attention.key",
        "attn.value": "attention.attention.value",
        "attn.proj": "attention.output.dense",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
        "mlp.w12": "mlp.weights_in",
        "mlp.w3": "mlp.weights_out",
    },
)
_NEWER: Final = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.down_proj": "mlp.weights_out",
}
"""Names inside a block since transformers 5 -> those of files."""
_PARTS: Final = {"attn.qkv": ("attn.query", "attn.key", "attn.value"), "mlp.w12": ("mlp.gate_proj", "mlp.up_proj")}
"""Our joined matrices and the parts they are made of, in order."""


def fits(state: State) -> bool:
    """Tell whether the names of ``state`` (any shapes) are Hugging Face's."""
    return any(key.startswith("encoder.layer.") for key in state)


def to_own(state: State) -> dict[str, Tensor]:
    """Return ``state`` under our names, queries, keys and values (D, D) joined to (3 D, D), gate and value to (2 M, D)."""
    renamed = {_to_own(key): value for key, value in state.items()}
    for joined, parts in _PARTS.items():
        for key in [key for key in renamed if f".{parts[0]}." in key]:
            names = [key.replace(parts[0], part) for part in parts]
            if all(name in renamed for name in names):
                renamed[key.replace(parts[0], joined)] = torch.cat([renamed.pop(name) for name in names])
    return renamed


def _to_own(key: str) -> str:
    for newer, filed in _NEWER.items():
        key = key.replace(newer, filed)
    block = re.fullmatch(r"encoder\.layer\.(\d+)\.(mlp\.(?:gate|up)_proj\..+)", key)
    return f"blocks.{block[1]}.{block[2]}" if block else NAMING.to_own(key)


def from_own(state: State) -> dict[str, Tensor]:
    """Return our ``state`` under the names of files, (3 D, D) split into queries, keys and values."""
    found = {}
    for key, value in state.items():
        if ".attn.qkv." not in key:
            found[NAMING.from_own(key)] = value
            continue
        for part, rows in zip(_PARTS["attn.qkv"], value.chunk(3), strict=True):
            found[NAMING.from_own(key.replace("attn.qkv", part))] = rows.clone()
    return found


def interpolation(registers: int) -> Interpolation:
    """Return how transformers resizes positions: antialiased for register models, plainly for the others."""
    return "antialias" if registers else "plain"


def configuration(config: VitConfig) -> dict[str, Any]:
    """Return ``config.json`` of the same network."""
    kind = "Dinov2WithRegisters" if config.registers else "Dinov2"
    return {
        "architectures": [f"{kind}Model"],
        "model_type": "dinov2_with_registers" if config.registers else "dinov2",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "mlp_ratio": config.hidden / config.width if config.hidden % config.width else config.hidden // config.width,
        "use_swiglu_ffn": config.ffn == "swiglu",
        "image_size": config.position_px,
        "patch_size": config.patch_px,
        "num_channels": len(config.bands),
        "layer_norm_eps": 1e-6,
        "layerscale_value": config.layer_scale,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "torch_dtype": "float32",
        **({"num_register_tokens": config.registers} if config.registers else {}),
    }


def preprocessor(config: VitConfig) -> dict[str, Any]:
    """Return ``preprocessor_config.json``: RGB in 0 to 255, scaled and normalised, neither resized nor cropped."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_resize": False,
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }


def heads_of(settings: Mapping[str, Any]) -> int | None:
    """Return the number of heads that a ``config.json`` names."""
    found = settings.get("num_attention_heads")
    return found if isinstance(found, int) else None
