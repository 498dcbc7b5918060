"""Teacher targets: prototype scores made into probabilities, by Sinkhorn-Knopp or by centring.

R rows (class tokens or masked patches), K prototypes.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, *, temperature: float, iterations: int = 3) -> Tensor:
    """Balance the assignment of rows to prototypes.

    The K and R scale factors are kept as two vectors and the matrix is only read, which equals the textbook's alternating
    normalisation; the greatest score is subtracted first, so no score overflows.

    Args:
        scores: (R, K) teacher scores.
        temperature: of the targets, > 0.
        iterations: passes over prototypes and rows [dinov2: 3].

    Returns:
        (R, K) float32, rows sum to 1; columns approach R / K.

    Source: Caron et al., SwAV, arXiv 2006.09882 (Sinkhorn-Knopp with uniform marginals).
    """
    scores = scores.float()
    R, K = scores.shape
    kernel = torch.exp((scores - scores.max()) / temperature)  # (R, K)
    rows = torch.full((R,), 1.0 / R, device=scores.device)
    columns = torch.ones(K, device=scores.device)
    tiny = torch.finfo(torch.float32).tiny
    for _ in range(iterations):
        columns = 1.0 / (K * (kernel.T @ rows).clamp(min=tiny))
        rows = 1.0 / (R * (kernel @ columns).clamp(min=tiny))
    return (R * rows)[:, None] * kernel * columns


@torch.no_grad()
def centred(scores: Tensor, centre: Tensor, *, temperature: float) -> Tensor:
    """Sharpen scores around a running centre.

    Args:
        scores: (R, K) teacher scores.
        centre: (K,) running mean of scores.
        temperature: of the targets, > 0.

    Returns:
        (R, K) float32, rows sum to 1.

    Source: Caron et al., DINO, arXiv 2104.14294.
    """
    return torch.softmax((scores.float() - centre) / temperature, dim=-1)


@torch.no_grad()
def updated_centre(centre: Tensor, scores: Tensor, *, momentum: float = 0.9) -> Tensor:
    """Return the (K,) centre moved towards the mean of (R, K) ``scores`` [dinov2: momentum 0.9]."""
    return torch.lerp(scores.float().mean(0), centre, momentum)
