"""Cross-entropy on hidden patches: the student guesses what the teacher sees there.

M masked views, R hidden patches of the batch, K prototypes.
"""

from __future__ import annotations

from torch import Tensor

from cgeartheye.errors import ShapeError


def patch_loss(log_probs: Tensor, targets: Tensor, *, masks: Tensor) -> Tensor:
    """Mean over masked views of the mean cross-entropy over their hidden patches.

    Args:
        log_probs: (R, K) student log-probabilities at the hidden patches, in the order of ``masks.nonzero()``.
        targets: (R, K) teacher probabilities at the same patches of the same view.
        masks: (V, N) bool, True where hidden; views without hidden patches do not count.

    Returns:
        scalar >= 0; 0 if nothing is hidden.

    Raises:
        ShapeError: if R differs from the number of hidden patches.

    Source: Zhou et al., iBOT, arXiv 2111.07832, with its weight 1 / hidden patches of the view.
    """
    counts = masks.sum(1)  # (V,)
    if len(log_probs) != len(targets) or len(log_probs) != int(counts.sum()):
        raise ShapeError(f"{len(log_probs)} student rows, {len(targets)} teacher rows, {int(counts.sum())} hidden patches")
    if not len(log_probs):
        return log_probs.sum()
    weight = (1.0 / counts.clamp(min=1))[:, None].expand(masks.shape)[masks] / (counts > 0).sum()  # (R,)
    return -((targets * log_probs).sum(-1) * weight).sum()
