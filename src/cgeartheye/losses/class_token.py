"""Cross-entropy between class tokens of different views of one place.

B batch, G global views, L local views, S season slots, K prototypes. The teacher sees the G global views of the anchor date.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from cgeartheye.errors import ShapeError


def global_loss(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every teacher view against every *other* global student view.

    Args:
        log_probs: (G, B, K) student log-probabilities of the global views.
        targets: (G, B, K) teacher probabilities of the same views.

    Returns:
        scalar >= 0, mean over the G (G - 1) pairs and B; the diagonal is left out.

    Raises:
        ShapeError: if the shapes differ or G < 2.
    """
    if log_probs.shape != targets.shape or len(targets) < 2:
        raise ShapeError(f"student {tuple(log_probs.shape)} and teacher {tuple(targets.shape)} must agree, with 2 views or more")
    G, B, _ = targets.shape
    others = targets.sum(0) - targets  # the loss is linear in the targets: sum them first
    return -(others * log_probs).sum() / (G * (G - 1) * B)


def local_loss(log_probs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every teacher view against every local student view.

    Args:
        log_probs: (L, B, K) student log-probabilities of the local views.
        targets: (G, B, K) teacher probabilities.

    Returns:
        scalar >= 0, mean over the G L pairs and B.

    Raises:
        ShapeError: if B or K differ.
    """
    _refuse_unequal(log_probs.shape[1:], targets.shape[1:])
    L, B, _ = log_probs.shape
    return -(targets.mean(0) * log_probs.sum(0)).sum() / (L * B)


def season_loss(log_probs: Tensor, targets: Tensor, *, place: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of the anchor date's teacher against student views of other dates.

    Args:
        log_probs: (S, K) student log-probabilities of the season slots.
        targets: (G, B, K) teacher probabilities of the anchor date.
        place: (S,) int64, the row of the batch a slot belongs to.
        weight: (S,) float, sums to 1 over the filled slots (see :func:`season_weights`), 0 where a slot is empty.

    Returns:
        scalar >= 0, weighted mean over slots and mean over the G teacher views; 0 if every slot is empty.

    Raises:
        ShapeError: if S or K differ.

    Source: CGEarthEye, arXiv 2507.00356 (the season term); the mean over existing views is ours, the paper names none.
    """
    _refuse_unequal(log_probs.shape[:1], place.shape)
    _refuse_unequal(log_probs.shape[1:], targets.shape[2:])
    rows = -(targets.mean(0)[place] * log_probs).sum(-1)  # (S,)
    return (rows * weight).sum()


def season_weights(place: Tensor, filled: Tensor, *, batch: int) -> Tensor:
    """Weigh slots so that every place with other dates counts the same, however many it has.

    Args:
        place: (S,) int64 row of the batch.
        filled: (S,) bool, False for empty slots.
        batch: B.

    Returns:
        (S,) float32, sums to 1, or all 0 if nothing is filled.
    """
    counts = F.one_hot(place, batch).mul(filled[:, None]).sum(0)  # (B,)
    places = (counts > 0).sum().clamp(min=1)
    return filled.float() / (counts[place].clamp(min=1) * places)


def _refuse_unequal(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    if tuple(first) != tuple(second):
        raise ShapeError(f"student {tuple(first)} and teacher {tuple(second)} must agree")
