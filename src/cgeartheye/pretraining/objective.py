"""The objective of one step: class tokens across views and dates, hidden patches, spread, the anchor of dense features.

A step has one or more microbatches in each process. All are taught first, because targets are balanced over all rows of all
processes; then each is learned from, and its gradients are added up.

B samples of a microbatch, G = 2 global views, L local views in all sizes, S season slots, N patches, R hidden patches,
K prototypes, D width, d bottleneck.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cgeartheye.losses.gram import gram_loss
from cgeartheye.losses.koleo import koleo
from cgeartheye.losses.prototypes import prototype_cross_entropy
from cgeartheye.losses.reduce import ALONE, Reduce
from cgeartheye.losses.targets import centred, sinkhorn, updated_centre
from cgeartheye.pretraining.anchor import Anchor
from cgeartheye.pretraining.batch import GLOBALS, ViewBatch
from cgeartheye.pretraining.networks import Learner
from cgeartheye.settings.pretrain import PretrainSettings

PARTS = ("loss", "loss_global", "loss_local", "loss_season", "loss_patch", "koleo", "loss_gram")
"""What is logged of an objective, in the order of :attr:`Terms.parts`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How a step is computed.

    Args:
        temperature: of the teacher now.
        precision: arithmetic of the networks; float32 leaves them in whatever type their parameters have.
        still: whether prototypes get no gradient.
        frozen: whether the backbone gets none.
        anchor: an earlier teacher that dense features are held to now, or None.
    """

    temperature: float
    precision: torch.dtype = torch.float32
    still: bool = False
    frozen: bool = False
    anchor: Anchor | None = None


@dataclass(frozen=True, slots=True)
class Taught:
    """The teacher's side of a process's microbatches, one after the other.

    Args:
        classes: (G B a microbatch, K) targets of class tokens.
        patches: (R a microbatch, K) targets of hidden patches.
        class_tokens: (G B a microbatch, D) before the head.
    """

    classes: Tensor
    patches: Tensor
    class_tokens: Tensor


@dataclass(frozen=True, slots=True)
class Terms:
    """What one microbatch costs.

    Args:
        total: scalar with gradient.
        parts: (7,) detached, as :data:`PARTS` names them.
    """

    total: Tensor
    parts: Tensor


@torch.no_grad()
def teach(
    teacher: Learner, batches: Sequence[ViewBatch], settings: PretrainSettings, *, mode: Mode, reduce: Reduce = ALONE
) -> Taught:
    """Return the teacher's targets for whole global views and for the patches hidden from the student.

    Args:
        teacher: its running centres are moved where targets are centred.
        batches: the microbatches of this process.
        settings: kind of the targets.
        mode: temperature and arithmetic.
        reduce: over the processes that share the step.
    """
    tokens, hidden = [], []
    for views in batches:
        with _arithmetic(views.globals_, mode):
            found = teacher.backbone.forward_chosen([views.globals_.flatten(0, 1)], [None], views.hidden)
        tokens.append(found[0])
        hidden.append(found[1])
    class_tokens = torch.cat(tokens)
    with _arithmetic(class_tokens, mode):
        scores = [_scores(teacher.class_head(class_tokens), mode), _scores(teacher.of_patches(torch.cat(hidden)), mode)]
    if settings.loss.targets == "sinkhorn":
        classes, patches = (sinkhorn(each, temperature=mode.temperature, reduce=reduce) for each in scores)
        return Taught(classes, patches, class_tokens)
    centres = (teacher.centre_class, teacher.centre_patch)
    moved = [updated_centre(centre, each, reduce=reduce) for centre, each in zip(centres, scores, strict=True)]
    classes, patches = (centred(s, c, temperature=mode.temperature) for s, c in zip(scores, centres, strict=True))
    for centre, value in zip(centres, moved, strict=True):
        centre.copy_(value)
    return Taught(classes, patches, class_tokens)


def learn(student: Learner, views: ViewBatch, taught: Taught, settings: PretrainSettings, *, number: int, mode: Mode) -> Terms:
    """Compute every term of one microbatch.

    Args:
        student: in training mode.
        views: of B samples.
        taught: by the teacher for all microbatches of this process.
        settings: weights of the terms.
        number: of this microbatch in the process, from 0.
        mode: arithmetic, and what gets gradients.

    Returns:
        the weighted sum and its parts.

    Source: DINOv2 (arXiv 2304.07193) for global, local, patch and spread; CGEarthEye (arXiv 2507.00356) for the season; DINOv3
    (arXiv 2508.10104) for the anchor, which sees whole views while the student sees its own, hidden patches and all.
    """
    G, B = views.globals_.shape[:2]
    L, S = sum(len(part) for part in views.locals_), len(views.season)
    anchored = _anchored(views, mode)  # before the student's pass, so that the two passes never hold memory together
    class_tokens, hidden, patches = _see(student, views, mode)
    with _arithmetic(class_tokens, mode):
        rows, prototypes = student.class_head(class_tokens, still=mode.still)
        patch_rows, patch_prototypes = student.of_patches(hidden, still=mode.still)
    weights = term_weights(settings, locals_=L, season=S > 0)
    index, weight = _pairs(views, weights, first=number * G * B)
    student_t = settings.loss.student_temperature
    total, each = prototype_cross_entropy(_cast(rows, mode), prototypes, taught.classes, index, weight, temperature=student_t)
    of_local, of_season = each[G * B : (G + L) * B], each[(G + L) * B :]
    R = len(views.hidden)
    loss_patch = loss_gram = each.new_zeros(())
    if R:
        own = torch.arange(number * R, (number + 1) * R, device=hidden.device)[None]
        patch_weight = views.hidden_weight * weights["loss_patch"]
        masked, each_patch = prototype_cross_entropy(
            _cast(patch_rows, mode), patch_prototypes, taught.patches, own, patch_weight, temperature=student_t
        )
        total, loss_patch = total + masked, (each_patch * views.hidden_weight).sum()
    spread = koleo(class_tokens[: G * B].view(G, B, -1))
    total = total + weights["koleo"] * spread
    if anchored is not None and patches is not None:
        loss_gram = gram_loss(patches.flatten(1, 2), anchored)
        total = total + settings.gram.weight * loss_gram
    parts = {
        "loss": total,
        "loss_global": each[: G * B].mean(),
        "loss_local": of_local.mean() if L else each.new_zeros(()),
        "loss_season": (of_season * views.season_weight).sum(),
        "loss_patch": loss_patch,
        "koleo": spread,
        "loss_gram": loss_gram,
    }
    working = torch.promote_types(total.dtype, torch.float32)
    return Terms(total=total, parts=torch.stack([parts[name].detach().to(working) for name in PARTS]))


def term_weights(settings: PretrainSettings, *, locals_: int, season: bool) -> dict[str, float]:
    """Return the weight of every part of the loss.

    Every pair of a teacher and a student view of the anchor date has the same share, and the shares sum to 1. Seasonal pairs
    are a term of their own (``add``), or join that mean in place of local pairs (``replace``).

    Args:
        settings: the user's weights.
        locals_: local views a sample.
        season: whether there are season slots.
    """
    G, loss, S = GLOBALS, settings.loss, settings.season.views
    replaces = settings.season.mode == "replace" and season
    pairs = G * (G - 1) + G * locals_ + (G * S if replaces else 0)
    return {
        "loss_global": loss.global_weight * G * (G - 1) / pairs,
        "loss_local": loss.local_weight * G * locals_ / pairs,
        "loss_season": settings.season.weight * ((G * S / pairs if replaces else 1.0) if season else 0.0),
        "loss_patch": loss.patch_weight,
        "koleo": loss.koleo_weight,
    }


def _pairs(views: ViewBatch, weights: dict[str, float], *, first: int) -> tuple[Tensor, Tensor]:
    """Return who teaches whom: for every student row two rows of the teacher (2, rows), and its weight (rows,).

    A global view is taught by the other one only (no diagonal), named twice; local and seasonal views by both of their sample.
    """
    device = views.globals_.device
    G, B = views.globals_.shape[:2]
    L = sum(len(part) for part in views.locals_)
    other = torch.arange(first, first + G * B, device=device).roll(B)
    sample = torch.cat([torch.arange(first, first + B, device=device).repeat(L), views.place + first])  # (L B + S,)
    index = torch.stack([torch.cat([other, sample]), torch.cat([other, sample + B])])
    weight = views.season_weight.new_full(((G + L) * B,), weights["loss_global"] / (G * B))
    weight[G * B :] = weights["loss_local"] / max(L * B, 1)
    return index, torch.cat([weight, views.season_weight * weights["loss_season"]])


def _anchored(views: ViewBatch, mode: Mode) -> Tensor | None:
    """Return the anchor's features (G B, N, D), or None where nothing is anchored."""
    if mode.anchor is None:
        return None
    with _arithmetic(views.globals_, mode):
        return mode.anchor.patches(views)


def _see(student: Learner, views: ViewBatch, mode: Mode) -> tuple[Tensor, Tensor, Tensor | None]:
    """Pass all views at once; return class tokens (G B + L B + S, D), hidden patches (R, D), anchored also all (G B, h, w, D)."""
    kinds: list[tuple[Tensor, Tensor | None]] = [(views.globals_.flatten(0, 1), views.masks.flatten(0, 1))]
    kinds += [(images, None) for images in (*(part.flatten(0, 1) for part in views.locals_), views.season) if len(images)]
    images, masks = [each for each, _ in kinds], [each for _, each in kinds]
    with torch.set_grad_enabled(not mode.frozen), _arithmetic(views.globals_, mode):
        if mode.anchor is None:
            return *student.backbone.forward_chosen(images, masks, views.hidden), None
        features = student.backbone.forward_views(images, masks)
    hidden = features[0].patches.flatten(0, 2)[views.hidden]
    return torch.cat([f.class_token for f in features]), hidden, features[0].patches


def _scores(headed: tuple[Tensor, Tensor], mode: Mode) -> Tensor:
    rows, prototypes = headed
    with torch.autocast(rows.device.type, enabled=False):
        return _cast(rows, mode) @ _cast(prototypes, mode).T


def _cast(value: Tensor, mode: Mode) -> Tensor:
    return value if mode.precision == torch.float32 else value.to(mode.precision)


def _arithmetic(value: Tensor, mode: Mode) -> torch.autocast:
    half = mode.precision != torch.float32
    return torch.autocast(value.device.type, dtype=mode.precision if half else torch.bfloat16, enabled=half)
