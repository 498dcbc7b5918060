"""Teacher targets: prototype scores made into probabilities, by Sinkhorn-Knopp or by centring.

R rows of this process (class tokens or masked patches), K prototypes. Scores are overwritten by the targets, because R x K
numbers are the largest thing a step holds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cgeartheye.losses.reduce import ALONE, Reduce


@torch.no_grad()
def sinkhorn(scores: Tensor, *, temperature: float, iterations: int = 3, reduce: Reduce = ALONE) -> Tensor:
    """Balance the assignment of all processes' rows to prototypes.

    The K and R scale factors are kept as two vectors and the matrix is only read, which equals the textbook's alternating
    normalisation; the greatest score is subtracted first, so no score overflows.

    Args:
        scores: (R, K) teacher scores; float32 and wider ones are overwritten.
        temperature: of the targets, > 0.
        iterations: passes over prototypes and rows [dinov2: 3].
        reduce: over the processes that share the batch.

    Returns:
        (R, K) float32 (float64 if the scores are), rows sum to 1; columns approach (rows of all processes) / K.

    Source: Caron et al., SwAV, arXiv 2006.09882 (Sinkhorn-Knopp with uniform marginals).
    """
    kernel = _working(scores)  # (R, K)
    R, K = kernel.shape
    greatest = reduce.greatest(kernel.amax() if R else kernel.new_full((), -torch.inf))
    kernel.sub_(greatest).div_(temperature).exp_()
    share = reduce.total(kernel.new_full((), float(R))).div_(K)  # of all rows, for each prototype
    tiny = torch.finfo(kernel.dtype).tiny
    rows, columns = kernel.new_ones(R), kernel.new_ones(K)
    for _ in range(iterations):  # prototypes to their share, then rows to 1
        columns = reduce.total(kernel.T @ rows).clamp_(min=tiny).reciprocal_().mul_(share)
        rows = (kernel @ columns).clamp_(min=tiny).reciprocal_()
    return kernel.mul_(columns).mul_(rows[:, None])


@torch.no_grad()
def centred(scores: Tensor, centre: Tensor, *, temperature: float) -> Tensor:
    """Sharpen scores around a running centre.

    Args:
        scores: (R, K) teacher scores; float32 and wider ones are overwritten.
        centre: (K,) running mean of scores.
        temperature: of the targets, > 0.

    Returns:
        (R, K) float32 (float64 if the scores are), rows sum to 1.

    Source: Caron et al., DINO, arXiv 2104.14294.
    """
    kernel = _working(scores).sub_(centre).div_(temperature)
    if not len(kernel):
        return kernel
    kernel.sub_(kernel.amax(1, keepdim=True)).exp_()
    return kernel.div_(kernel.sum(1, keepdim=True))


@torch.no_grad()
def updated_centre(centre: Tensor, scores: Tensor, *, momentum: float = 0.9, reduce: Reduce = ALONE) -> Tensor:
    """Return the (K,) centre moved towards the mean of all processes' (R, K) ``scores`` [dinov2: momentum 0.9].

    A mean that is not finite leaves the centre where it was: a broken batch must not outlive its step.
    """
    working = torch.promote_types(scores.dtype, torch.float32)
    count = reduce.total(centre.new_full((), float(len(scores)), dtype=working))
    mean = reduce.total(scores.sum(0, dtype=working)) / count.clamp(min=1)
    moved = torch.lerp(mean.to(centre.dtype), centre, momentum)
    return torch.where(mean.isfinite().all() & (count > 0), moved, centre)


def _working(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
