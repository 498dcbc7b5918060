"""The five published sizes, a nano size for processors without a GPU, and how a network begins."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from cgeartheye.models.vit import VisionTransformer, VitConfig
from cgeartheye.seeding import derive

SIZES: Final[dict[str, VitConfig]] = {
    "nano": VitConfig(
        name="nano", depth=4, width=128, heads=4, hidden=512, patch_px=8, layer_scale=1.0, position_px=48
    ),  # [ours]: learns on a CPU within minutes
    "small": VitConfig(name="small", depth=12, width=384, heads=6, hidden=1536),  # [paper], as the rest
    "base": VitConfig(name="base", depth=12, width=768, heads=12, hidden=3072),
    "large": VitConfig(name="large", depth=24, width=1024, heads=16, hidden=4096),
    "huge": VitConfig(name="huge", depth=32, width=1280, heads=16, hidden=5120),
    "giant": VitConfig(name="giant", depth=40, width=1536, heads=24, hidden=6144, ffn="swiglu"),
}
"""Configurations by name."""


def build(config: VitConfig, *, seed: int) -> VisionTransformer:
    """Return a network on the CPU whose start depends on ``config`` and ``seed`` alone."""
    model = VisionTransformer(config)
    initialise(model, seed=seed)
    return model


@torch.no_grad()
def initialise(model: VisionTransformer, *, seed: int) -> None:
    """Give every parameter its first value, each from a stream of its own name.

    Matrices and positions: normal 0.02 (cut at +-2, which no value reaches); patch embedding: uniform within 1 / sqrt(fan-in);
    class and register tokens: normal 1e-6; mask token and biases 0; norms 1 and 0; LayerScale as configured [dinov2].
    """
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(derive(seed, "initial weights", name))
        parameter.copy_(_first_value(name, tuple(parameter.shape), model.config, generator))


def _first_value(name: str, shape: tuple[int, ...], config: VitConfig, generator: torch.Generator) -> Tensor:
    value = torch.empty(shape)
    if name.startswith("patch_embed."):
        bound = (len(config.bands) * config.patch_px**2) ** -0.5
        return nn.init.uniform_(value, -bound, bound, generator=generator)
    if name in {"cls_token", "register_tokens"}:
        return nn.init.normal_(value, std=1e-6, generator=generator)
    if name.endswith(".gamma"):
        return value.fill_(config.layer_scale)
    if name == "mask_token" or name.endswith(".bias"):
        return value.zero_()
    if len(shape) == 1:  # the weight of a norm
        return value.fill_(1.0)
    return nn.init.trunc_normal_(value, std=0.02, generator=generator)
