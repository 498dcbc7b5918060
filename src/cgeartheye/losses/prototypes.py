"""Cross-entropy of student rows against teacher targets over prototypes, without ever holding rows x prototypes.

n student rows, d width of the bottleneck, K prototypes, R teacher rows, T teacher rows that teach one student row.

Autograd would keep scores, log-probabilities and their gradient: three times n x K numbers, which for a small backbone is more
than all its activations. Here a few rows at a time are scored, compared and differentiated, so that only the gradients with
respect to rows (n, d) and prototypes (K, d) remain: the gradient of the loss is known as soon as the loss is.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from cgeartheye.errors import ShapeError

CHUNK: Final = 2**24
"""Scores held at a time: 64 MB, large enough for whole matrix products [ours]."""


def prototype_cross_entropy(
    rows: Tensor,
    prototypes: Tensor,
    targets: Tensor,
    index: Tensor,
    weight: Tensor,
    *,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Compute ``sum_i weight_i * mean_t H(targets[index[t, i]], softmax(rows_i . prototypes / temperature))``.

    The loss is linear in the targets, so several teachers of one row are averaged first.

    Args:
        rows: (n, d) float of the student.
        prototypes: (K, d) float; matrix products run in the type of ``rows``, all else in float32 at least.
        targets: (R, K) float, each row sums to 1.
        index: (T, n) int64 teacher rows of each student row.
        weight: (n,) float.
        temperature: of the student, > 0.

    Returns:
        the weighted sum, a scalar with gradients for rows and prototypes (of first order only), and (n,) cross-entropies
        without gradient.

    Raises:
        ShapeError: if the shapes do not fit.
    """
    if not (rows.shape[1] == prototypes.shape[1] and index.shape[1:] == weight.shape == rows.shape[:1]):
        shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in (("rows", rows), ("index", index), ("weight", weight)))
        raise ShapeError(f"{shapes} and prototypes {tuple(prototypes.shape)} do not fit")
    if targets.shape[1] != len(prototypes):
        raise ShapeError(f"targets are over {targets.shape[1]} prototypes, there are {len(prototypes)}")
    total, each = _CrossEntropy.apply(rows, prototypes, targets, index, weight, temperature)
    return total, each


class _CrossEntropy(torch.autograd.Function):
    """The loss and, in the same pass over the scores, its gradients."""

    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 - autograd passes by position
        ctx: Any,  # noqa: ANN401 - autograd's context
        rows: Tensor,
        prototypes: Tensor,
        targets: Tensor,
        index: Tensor,
        weight: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        """Return the scalar and (n,) each, and keep the gradients of (n, d) rows and (K, d) prototypes."""
        working = torch.promote_types(rows.dtype, torch.float32)
        wants_rows, wants_prototypes = ctx.needs_input_grad[:2]
        each = torch.empty(len(rows), dtype=working, device=rows.device)
        of_rows = torch.empty_like(rows) if wants_rows else None
        of_prototypes = torch.zeros_like(prototypes, dtype=working) if wants_prototypes else None
        with torch.autocast(rows.device.type, enabled=False):
            matrix = prototypes.to(rows.dtype)
            size = max(1, CHUNK // len(prototypes))
            for first in range(0, len(rows), size):
                part = slice(first, first + size)
                scores = (rows[part] @ matrix.T).to(working).div_(temperature)  # (m, K)
                scale = weight[part].to(working) / temperature
                each[part] = _compare(scores, _mean_target(targets, index[:, part]).to(working), scale)
                slope = scores.to(rows.dtype)  # now the gradient with respect to the scores
                if of_rows is not None:
                    of_rows[part] = slope @ matrix
                if of_prototypes is not None:
                    of_prototypes += slope.T @ rows[part]
        ctx.save_for_backward(of_rows, of_prototypes)
        ctx.mark_non_differentiable(each)
        return (each * weight.to(working)).sum(), each

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - autograd's context
        """Return the kept gradients, (n, d) and (K, d), times the () gradient of the scalar."""
        of_rows, of_prototypes = ctx.saved_tensors
        rows = None if of_rows is None else of_rows * grad.to(of_rows.dtype)
        prototypes = None if of_prototypes is None else of_prototypes * grad
        return rows, prototypes, None, None, None, None


def _mean_target(targets: Tensor, index: Tensor) -> Tensor:
    """Return (m, K), the mean of the teacher rows ``index`` (T, m)."""
    mean = targets.index_select(0, index[0])
    for teacher in index[1:]:
        mean += targets.index_select(0, teacher)
    return mean.div_(len(index)) if len(index) > 1 else mean


def _compare(scores: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """Return (m,) cross-entropies and overwrite (m, K) ``scores`` by ``scale`` (m,) times their gradient."""
    matched: Tensor = torch.linalg.vecdot(target, scores)
    most = scores.amax(1, keepdim=True)
    total = scores.sub_(most).exp_().sum(1)
    scores.mul_((scale / total)[:, None]).sub_(target.mul_(scale[:, None]))
    each: Tensor = total.log() + most[:, 0] - matched
    return each
