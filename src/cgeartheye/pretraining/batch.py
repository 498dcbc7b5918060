"""What the networks see of a batch, or of one microbatch of it: views, masks, and the weights that belong to them.

B samples, G = 2 global views, L local views of one size, S season slots, N patches of a global view, R hidden patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

GLOBALS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewBatch:
    """All views of B samples. Every shape is the same from step to step.

    Args:
        globals_: (G, B, 3, H, W) float32 in [0, 1], of the anchor date.
        locals_: for each size (L, B, 3, h, w) float32 in [0, 1], of the anchor date; empty if there are no local views.
        season: (S, 3, h, w) float32 in [0, 1], of other dates; rows of empty slots are ignored.
        place: (S,) int64 row in 0 .. B-1 that a slot belongs to.
        season_weight: (S,) float32, 0 where a slot is empty. Over *all* microbatches of the step it sums to their number (or to
            0 if the step has no pair), each place with pairs counting the same however many it has; so the mean over
            microbatches of the weighted sums is the mean over places.
        masks: (G, B, N) bool, True where the student's global view is hidden.
        hidden: (R,) int64 positions of the True entries in the flattened masks (G B N), ascending.
        hidden_weight: (R,) float32, sums to 1: 1 / (hidden patches of the view) / (masked views).
        anchor: (G, B, 3, H', W') float32 in [0, 1], the global views once more, larger and with their own colours, or None.
    """

    globals_: Tensor
    locals_: tuple[Tensor, ...]
    season: Tensor
    place: Tensor
    season_weight: Tensor
    masks: Tensor
    hidden: Tensor
    hidden_weight: Tensor
    anchor: Tensor | None = None
