"""What a network costs, by formula: parameters, FLOPs and memory, before anything is built.

B batch, N tokens of a picture, D width, M hidden width, I inner width of a gated MLP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import torch

from cgeartheye.models.vit import VisionTransformer, VitConfig, patch_grid

ADAM_BYTES: Final = 16
"""Bytes a trained parameter takes in float32: value, gradient, two moments."""
Precision = Literal["float32", "bfloat16"]
BYTES: Final[dict[str, int]] = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Cost:
    """What one network costs at one size of picture.

    Args:
        parameters: number of parameters, positions and mask token included.
        tokens: of one picture, class and register tokens included.
        forward_flops: of one picture, matrix products and convolutions only, 2 a multiplication with its addition.
        weight_bytes: of all parameters.
        frozen_bytes: largest live memory of a forward pass without gradients over the batch, weights included.
        training_bytes: weights, gradients, two moments of Adam and all activations of a batch that the backward pass needs.
    """

    parameters: int
    tokens: int
    forward_flops: int
    weight_bytes: int
    frozen_bytes: int
    training_bytes: int


def cost(config: VitConfig, *, height: int, width: int, batch: int = 1, precision: Precision = "float32") -> Cost:
    """Return the cost of a network.

    The backward pass costs twice the forward FLOPs. Memory is that of eager PyTorch with fused attention: what the allocator
    keeps beyond it, and the context of a GPU, are not in it.

    Args:
        config: the network.
        height: of a picture in pixels; padded to the patch as the network does.
        width: of a picture in pixels.
        batch: pictures a pass.
        precision: of weights and activations in the frozen pass; training keeps float32 weights, gradients and moments.
    """
    count = parameters(config)
    patches = math.prod(patch_grid(height, width, config.patch_px))
    tokens = patches + 1 + config.registers
    size = BYTES[precision]
    live, kept = _live_numbers(config), _kept_numbers(config)
    return Cost(
        parameters=count,
        tokens=tokens,
        forward_flops=_flops(config, patches, tokens),
        weight_bytes=count * size,
        frozen_bytes=count * size + batch * tokens * live * size,
        training_bytes=count * ADAM_BYTES + batch * tokens * (config.depth * kept + 3 * config.width) * size,
    )


def parameters(config: VitConfig) -> int:
    """Return the number of parameters, counted on a network without memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in VisionTransformer(config).parameters())


def inner_width(config: VitConfig) -> int:
    """Return the inner width I of the gated MLP, or the hidden width M of the plain one."""
    return (int(config.hidden * 2 / 3) + 7) // 8 * 8 if config.ffn == "swiglu" else config.hidden


def _flops(config: VitConfig, patches: int, tokens: int) -> int:
    D, inner = config.width, inner_width(config)
    matrices = 4 * D * D + (3 if config.ffn == "swiglu" else 2) * D * inner  # multiplications a token and block
    embedding = patches * len(config.bands) * config.patch_px**2 * D
    return 2 * (config.depth * (tokens * matrices + 2 * tokens * tokens * D) + embedding)


def _live_numbers(config: VitConfig) -> int:
    """Return the numbers a token holds at the fullest moment of a block without gradients.

    Attention: input, normed input, queries, keys, values, their mixture. MLP: input, normed input, both sides of
    GELU; gated: gate and value, the gate's SiLU, their product.
    """
    D, inner = config.width, inner_width(config)
    mlp = 2 * D + (4 * inner if config.ffn == "swiglu" else 2 * inner)
    return max(6 * D, mlp)


def _kept_numbers(config: VitConfig) -> int:
    """Return the numbers a token of a block keeps for the backward pass.

    10 D: both norms' inputs and outputs, queries, keys, values, their mixture, both branches before LayerScale. MLP: both sides
    of GELU; gated: gate and value, the gate's SiLU, their product.
    """
    inner = inner_width(config)
    return 10 * config.width + (4 * inner if config.ffn == "swiglu" else 2 * inner)
