"""Gaussian blur of some of a batch's views, as two products with a banded matrix a view.

M views, R blurred ones, S side in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cgeartheye.transforms.draws import uniforms

TRUNCATE: Final = 4.0
"""The kernel ends after so many deviations, as in SciPy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlurPolicy:
    """How views of one kind are blurred.

    Args:
        share: probability that a view is blurred.
        sigma_px: least and greatest deviation in pixels of the view, drawn uniformly.
    """

    share: float = 0.2
    sigma_px: tuple[float, float] = (0.1, 1.0)


def draw_sigmas(policy: BlurPolicy, *, seed: int, names: tuple[str, ...], samples: NDArray[np.int64]) -> NDArray[np.float32]:
    """Draw a deviation a sample and view.

    Args:
        policy: how to draw.
        seed: the stage's seed.
        names: V names of the views.
        samples: (B,) int64 running sample numbers.

    Returns:
        (V, B) float32 pixels; 0 where the view stays sharp.
    """
    u = np.stack([uniforms(seed, f"blur/{name}", samples, 2) for name in names])
    low, high = policy.sigma_px
    sigmas: NDArray[np.float32] = np.where(u[..., 0] < policy.share, low + (high - low) * u[..., 1], 0.0).astype(np.float32)
    return sigmas


def blur(images: Tensor, sigmas: NDArray[np.float32]) -> Tensor:
    """Blur the views whose deviation is above 0, in place; the picture is mirrored at its edges, which are not repeated.

    Args:
        images: (M, C, S, S) float.
        sigmas: (M,) float32 pixels, known on the host, so that no device is asked which views they are.

    Returns:
        ``images``.
    """
    chosen = np.flatnonzero(sigmas > 0)
    if not len(chosen):
        return images
    rows = torch.from_numpy(chosen).to(images.device, non_blocking=True)
    widths = torch.from_numpy(sigmas[chosen]).to(images.device, non_blocking=True)
    sharp = images.index_select(0, rows)  # (R, C, S, S)
    R, C, S, _ = sharp.shape
    matrix = gaussian_matrix(widths, side=S)
    along = torch.bmm(sharp.view(R, C * S, S), matrix.transpose(1, 2)).view(R, C, S, S)
    across = torch.matmul(matrix[:, None], along)
    return images.index_copy_(0, rows, across)


def gaussian_matrix(sigmas: Tensor, *, side: int) -> Tensor:
    """Build the matrices that blur a line of ``side`` pixels, mirrored at both ends.

    Args:
        sigmas: (R,) float pixels, > 0.
        side: S.

    Returns:
        (R, S, S) float32, rows sum to 1.
    """
    distances = torch.arange(2 * side - 1, dtype=torch.float32, device=sigmas.device)
    spread = sigmas.float()[:, None]
    inside = distances <= (TRUNCATE * spread + 0.5).floor_()
    density = torch.exp(-0.5 * (distances / spread) ** 2) * inside  # (R, 2 S - 1), looked up instead of computed S times
    at = torch.arange(side, device=sigmas.device)
    out, into = at[:, None], at[None, :]
    weights = density[:, (out - into).abs()]  # (R, S, S)
    weights += density[:, out + into] * (into > 0)
    weights += density[:, 2 * (side - 1) - out - into] * (into < side - 1)
    return weights / weights.sum(-1, keepdim=True)
