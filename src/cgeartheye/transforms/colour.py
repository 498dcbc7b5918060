"""Brightness, contrast, saturation and channel gain, as one 3 x 3 matrix and an offset a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.transforms.draws import uniforms

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601, as torchvision has them)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JitterPolicy:
    """How colours of one kind of view are changed.

    Args:
        brightness, contrast, saturation: greatest relative change; factors are uniform in [1 - x, 1 + x].
        channel_gain: greatest relative change of each channel by itself.
        share: probability that a view is changed at all.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.2
    channel_gain: float = 0.0
    share: float = 0.8


def draw_factors(policy: JitterPolicy, *, seed: int, names: tuple[str, ...], samples: NDArray[np.int64]) -> NDArray[np.float32]:
    """Draw brightness, contrast, saturation and three channel gains a sample and view.

    Args:
        policy: how to draw.
        seed: the stage's seed.
        names: V names of the views.
        samples: (B,) int64 running sample numbers.

    Returns:
        (V, B, 6) float32 factors; all 1 where the view is left as it is.
    """
    u = np.stack([uniforms(seed, f"colour/{name}", samples, 7) for name in names])
    spread = np.array([policy.brightness, policy.contrast, policy.saturation, *[policy.channel_gain] * 3])
    factors = 1 + (2 * u[..., 1:] - 1) * spread
    drawn: NDArray[np.float32] = np.where(u[..., :1] < policy.share, factors, 1.0).astype(np.float32)
    return drawn


def jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Change colours: channel gain, brightness, contrast about the picture's mean grey, saturation, in this order.

    Args:
        images: (M, 3, H, W) float in [0, 1].
        factors: (M, 6) brightness, contrast, saturation, gains of red, green, blue, on the same device.

    Returns:
        (M, 3, H, W) float in [0, 1]. Equal to torchvision's operations one after the other wherever none of them clips.
    """
    M, C, H, W = images.shape
    luma = torch.cat([torch.full((1,), weight, device=images.device) for weight in LUMA])  # no copy from the host, no wait
    brightness, contrast, saturation = factors[:, 0], factors[:, 1], factors[:, 2]
    gain = factors[:, 3:] * brightness[:, None]  # (M, 3)
    flat = images.reshape(M, C, H * W)
    grey = (flat.mean(2) * gain) @ luma  # (M,) mean grey after gain and brightness
    mix = torch.eye(C, device=images.device) * saturation[:, None, None] + (1 - saturation)[:, None, None] * luma
    matrix = mix * (gain * contrast[:, None])[:, None, :]  # (M, 3, 3)
    offset = (grey * (1 - contrast))[:, None, None]  # grey stays grey under the saturation's mix
    return torch.baddbmm(offset, matrix, flat).clamp_(0, 1).reshape(M, C, H, W)
