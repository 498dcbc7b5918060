"""The student, and the teacher that follows it as an exponential moving average.

R rows, D width, K prototypes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cgeartheye.models.heads.projection import ProjectionHead, initialise_head
from cgeartheye.models.vit import VisionTransformer
from cgeartheye.settings.pretrain import HeadSettings


class Learner(nn.Module):
    """A backbone with one projection head for class tokens and one (perhaps the same) for patches."""

    centre_class: Tensor
    centre_patch: Tensor

    def __init__(self, backbone: VisionTransformer, head: HeadSettings, *, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_head = _head(backbone.width, head, seed=seed, name="class")
        self.patch_head = None if head.shared else _head(backbone.width, head, seed=seed, name="patch")
        self.register_buffer("centre_class", torch.zeros(head.prototypes))
        self.register_buffer("centre_patch", torch.zeros(head.prototypes))

    def score(self, class_tokens: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Score (R, D) class tokens and (P, D) patches; returns (R, K) and (P, K) float32."""
        if self.patch_head is None:  # one pass over the prototypes for both
            both = self.class_head(torch.cat([class_tokens, patches])).float()
            return both[: len(class_tokens)], both[len(class_tokens) :]
        return self.class_head(class_tokens).float(), self.patch_head(patches).float()


class Pair(nn.Module):
    """Student and teacher; they start equal and the teacher gets no gradient."""

    def __init__(self, student: Learner) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(requires_grad=False).eval()

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move every parameter of the teacher: teacher = momentum * teacher + (1 - momentum) * student."""
        torch._foreach_lerp_(list(self.teacher.parameters()), list(self.student.parameters()), 1.0 - momentum)


def _head(width: int, settings: HeadSettings, *, seed: int, name: str) -> ProjectionHead:
    head = ProjectionHead(
        width,
        hidden=settings.hidden,
        bottleneck=settings.bottleneck,
        prototypes=settings.prototypes,
        layers=settings.layers,
    )
    initialise_head(head, seed=seed, name=name)
    return head
