"""The student, and the teacher that follows it as an exponential moving average.

R rows, D width, d bottleneck, K prototypes.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cgeartheye.models.heads.projection import ProjectionHead, initialise_head
from cgeartheye.models.vit import VisionTransformer
from cgeartheye.pretraining.anchor import Anchor, local
from cgeartheye.settings.pretrain_sections import HeadSettings


class Learner(nn.Module):
    """A backbone with one projection head for class tokens and one (perhaps the same) for patches.

    Args:
        backbone: the network that is wanted in the end.
        head: shape of the heads.
        prototypes: K.
        seed: of the heads' first values.
    """

    centre_class: Tensor
    centre_patch: Tensor

    def __init__(self, backbone: VisionTransformer, head: HeadSettings, *, prototypes: int, seed: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_head = _head(backbone.width, head, prototypes, seed=seed, name="class")
        self.patch_head = None if head.shared else _head(backbone.width, head, prototypes, seed=seed, name="patch")
        self.register_buffer("centre_class", torch.zeros(prototypes))
        self.register_buffer("centre_patch", torch.zeros(prototypes))

    @property
    def of_patches(self) -> ProjectionHead:
        """The head that hidden patches go through."""
        return self.class_head if self.patch_head is None else self.patch_head


class Pair(nn.Module):
    """Student and teacher; they start equal and the teacher gets no gradient.

    Args:
        student: the one that learns.
        anchored: whether dense features are held to those of an earlier teacher, which is kept too.
    """

    def __init__(self, student: Learner, *, anchored: bool = False) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(requires_grad=False).eval()
        self.anchor = Anchor(self.teacher.backbone) if anchored else None

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move every parameter of the teacher: teacher = momentum * teacher + (1 - momentum) * student.

        Sharded parameters move shard by shard, without communication.
        """
        teacher, student = ([local(p) for p in learner.parameters()] for learner in (self.teacher, self.student))
        torch._foreach_lerp_(teacher, student, 1.0 - momentum)


def _head(width: int, settings: HeadSettings, prototypes: int, *, seed: int, name: str) -> ProjectionHead:
    head = ProjectionHead(
        width,
        hidden=settings.hidden,
        bottleneck=settings.bottleneck,
        prototypes=prototypes,
        layers=settings.layers,
        normalise=settings.normalise,
    )
    initialise_head(head, seed=seed, name=name)
    return head
