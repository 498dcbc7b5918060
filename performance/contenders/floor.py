"""The floor: the step's tokens through backbone and heads, the teacher's forward and the student's forward and backward.

Plain eager calls of the package's own networks: no targets, losses, clipping, optimizer or moving average.
"""

from __future__ import annotations

import dataclasses

import torch
from served import Work, begin
from torch import Tensor, nn

from cgeartheye.models.heads.projection import ProjectionHead, initialise_head
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import VisionTransformer


class Network(nn.Module):
    """Backbone and both heads."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        config = dataclasses.replace(SIZES["small"], drop_path=0.0)
        self.backbone: VisionTransformer = build(config, seed=0)
        sizes = {"hidden": work.hidden, "bottleneck": work.bottleneck, "prototypes": work.prototypes, "layers": work.layers}
        self.class_head = ProjectionHead(config.width, **sizes)
        self.patch_head = ProjectionHead(config.width, **sizes)
        for name, head in (("class", self.class_head), ("patch", self.patch_head)):
            initialise_head(head, seed=0, name=name)

    def forward(self, views: list[Tensor], masks: list[Tensor | None], hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores of all class tokens (rows, K) and of the hidden patches (R, K) of the first view."""
        found = self.backbone.forward_views(views, masks)
        patches = found[0].patches.flatten(0, 2).index_select(0, hidden)
        class_tokens = torch.cat([features.class_token for features in found])
        return score(self.class_head, class_tokens), score(self.patch_head, patches)


def score(head: ProjectionHead, tokens: Tensor) -> Tensor:
    """Return (rows, K) scores of (rows, D) tokens."""
    rows, prototypes = head(tokens)
    return rows @ prototypes.T


def main() -> None:
    work, turns = begin([])
    student, teacher = Network(work).train(), Network(work).requires_grad_(requires_grad=False).eval()
    globals_, locals_ = (torch.cat(views) for views in work.images())
    masks = work.masks()
    hidden, _ = work.hidden_rows(masks)
    turns.ready(
        {
            "teacher tokens": teacher.backbone.blocks[0],
            "student tokens": student.backbone.blocks[0],
            "teacher class rows": teacher.class_head,
            "student class rows": student.class_head,
            "teacher patch rows": teacher.patch_head,
            "student patch rows": student.patch_head,
        }
    )
    while turns.next():
        with torch.no_grad():
            teacher([globals_], [None], hidden)
        scores = student([globals_, locals_], [masks, None], hidden)
        torch.autograd.backward(scores, [score.detach() for score in scores])  # any gradient does; this one costs nothing
        student.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
