"""The anchor of dense features: a frozen earlier teacher, and when it is taken.

G = 2 global views of B samples; h, w patches of a global view and N = h w; D width.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from cgeartheye.models.vit import VisionTransformer, patch_grid
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.settings.pretrain_sections import GramSettings


class Anchor(nn.Module):
    """A frozen copy of a backbone that says how alike the patches of a picture were.

    Args:
        teacher: the backbone that is copied.
    """

    def __init__(self, teacher: VisionTransformer) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(teacher).requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def take(self, teacher: VisionTransformer) -> None:
        """Become the teacher as it is now; sharded parameters are copied shard by shard, without communication."""
        own, now = ([local(p) for p in backbone.parameters()] for backbone in (self.backbone, teacher))
        torch._foreach_copy_(own, now)

    @torch.no_grad()
    def patches(self, views: ViewBatch) -> Tensor:
        """Return (G B, N, D) features of the global views' patches, seen whole and, where there are, in larger views.

        Features of larger views are resampled to the student's grid by cubic interpolation [dinov3].
        """
        seen = views.globals_ if views.anchor is None else views.anchor
        found: Tensor = self.backbone(seen.flatten(0, 1)).patches  # (G B, h', w', D)
        height, width = views.globals_.shape[-2:]
        grid = patch_grid(height, width, self.backbone.patch_px)
        if found.shape[1:3] == grid:
            return found.flatten(1, 2)
        working = torch.promote_types(found.dtype, torch.float32)
        smaller = F.interpolate(found.permute(0, 3, 1, 2).to(working), size=grid, mode="bicubic", align_corners=False)
        return smaller.flatten(2).transpose(1, 2)


def local(value: Tensor) -> Tensor:
    """Return this process's own part of a sharded tensor of any shape (...), or the tensor itself."""
    return value.to_local() if isinstance(value, DTensor) else value


def acts_from(gram: GramSettings, steps: int) -> int:
    """Return the first step, from 0, of a phase of ``steps`` that is anchored; ``steps`` if none is."""
    return math.ceil(gram.after * steps - 1e-9) if gram.weight else steps


def acts_at(gram: GramSettings, step: int, steps: int) -> bool:
    """Say whether a step, from 0, of a phase of ``steps`` is anchored."""
    return acts_from(gram, steps) <= step < steps


def is_taken_at(gram: GramSettings, step: int, steps: int) -> bool:
    """Say whether the anchor is taken just before a step, from 0, of a phase of ``steps``: a function of these alone."""
    since = step - acts_from(gram, steps)
    if gram.refresh is None or since <= 0:
        return since == 0 and step < steps
    return since % gram.refresh == 0 and since // gram.refresh <= gram.most_refreshes


def anchor_px(global_px: int, patch_px: int, zoom: float) -> tuple[int, int]:
    """Return the side of the anchor's views, and the side they are padded to.

    The padded side is whole patches and ``zoom`` times that of the student's padded view, so that each of its patches covers
    the same ground as one place of the anchor's resampled features even where ``global_px`` is no multiple of the patch.
    """
    patches = patch_grid(global_px, global_px, patch_px)[0]
    larger = round(zoom * patches)
    return round(global_px * larger / patches), larger * patch_px
