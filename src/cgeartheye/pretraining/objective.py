"""The objective of one batch: class tokens across views and dates, hidden patches, spread.

B batch, G global views, L local views, S season slots, N patches, R hidden patches, K prototypes, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cgeartheye.losses.class_token import global_loss, local_loss, season_loss, season_weights
from cgeartheye.losses.koleo import koleo
from cgeartheye.losses.patch import patch_loss
from cgeartheye.losses.targets import centred, sinkhorn, updated_centre
from cgeartheye.pretraining.networks import Learner, Pair
from cgeartheye.pretraining.views import ViewBatch
from cgeartheye.settings.pretrain import PretrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What one batch costs.

    Args:
        total: scalar with gradient.
        parts: detached scalars by name, as the log has them.
        class_targets: (G B, K) teacher probabilities of the class tokens.
        class_tokens: (G B, D) the teacher's class tokens.
    """

    total: Tensor
    parts: dict[str, Tensor]
    class_targets: Tensor
    class_tokens: Tensor


@dataclass(frozen=True, slots=True)
class Taught:
    """The teacher's side: class targets (G, B, K), patch targets (R, K), class tokens (G B, D)."""

    classes: Tensor
    patches: Tensor
    class_tokens: Tensor


def distil(pair: Pair, views: ViewBatch, settings: PretrainSettings, *, temperature: float, precision: torch.dtype) -> Terms:
    """Compute every term for one batch.

    Args:
        pair: student and teacher.
        views: of B samples.
        settings: weights and kinds of the terms.
        temperature: of the teacher now.
        precision: arithmetic of the networks.

    Returns:
        the weighted sum and its parts.

    Source: DINOv2 (arXiv 2304.07193) for global, local, patch and spread; CGEarthEye (arXiv 2507.00356) for the season.
    """
    device = views.globals_.device.type
    with torch.autocast(device, dtype=precision, enabled=precision != torch.float32):
        taught = teach(pair.teacher, views, settings, temperature=temperature)
        log_probs, patch_log_probs, global_tokens = study(pair.student, views, settings)
    G, B = views.globals_.shape[:2]
    L = len(views.locals_)
    seen, of_locals, of_season = log_probs[: G * B], log_probs[G * B : (G + L) * B], log_probs[(G + L) * B :]
    zero = seen.new_zeros(())
    weights = season_weights(views.place, views.filled, batch=B)
    parts = {
        "loss_global": global_loss(seen.view(G, B, -1), taught.classes),
        "loss_local": local_loss(of_locals.view(L, B, -1), taught.classes) if L else zero,
        "loss_season": season_loss(of_season, taught.classes, place=views.place, weight=weights) if len(weights) else zero,
        "loss_patch": patch_loss(patch_log_probs, taught.patches, masks=views.masks.flatten(0, 1)),
        "koleo": torch.stack([koleo(tokens) for tokens in global_tokens.view(G, B, -1)]).sum(),
    }
    total = combine(parts, settings, counts=(G, L, settings.season.views if len(weights) else 0))
    detached = {"loss": total.detach(), **{name: value.detach() for name, value in parts.items()}}
    return Terms(total=total, parts=detached, class_targets=taught.classes.flatten(0, 1), class_tokens=taught.class_tokens)


def combine(parts: dict[str, Tensor], settings: PretrainSettings, *, counts: tuple[int, int, int]) -> Tensor:
    """Weigh the parts.

    Every pair of a teacher and a student view of the anchor date has the same weight, and their sum is 1. Seasonal pairs are
    a term of their own (``add``), or join that mean in place of local pairs (``replace``).

    Args:
        parts: scalars ``loss_global``, ``loss_local``, ``loss_season``, ``loss_patch``, ``koleo``.
        settings: weights.
        counts: global, local and seasonal views a sample.

    Returns:
        scalar.
    """
    G, L, S = counts
    pairs, class_sum = G * (G - 1) + G * L, G * (G - 1) * parts["loss_global"] + G * L * parts["loss_local"]
    season = settings.season.weight * parts["loss_season"]
    if settings.season.mode == "replace":
        class_term = (class_sum + G * S * season) / (pairs + G * S)
    else:
        class_term = class_sum / pairs + season
    loss = settings.loss
    return class_term + loss.patch_weight * parts["loss_patch"] + loss.koleo_weight * parts["koleo"]


@torch.no_grad()
def teach(teacher: Learner, views: ViewBatch, settings: PretrainSettings, *, temperature: float) -> Taught:
    """Return the teacher's targets for whole global views and for the patches hidden from the student."""
    G, B = views.globals_.shape[:2]
    tokens = teacher.backbone(views.globals_.flatten(0, 1))
    hidden = tokens.patches.flatten(1, 2)[views.masks.flatten(0, 1)]  # (R, D)
    class_scores, patch_scores = teacher.score(tokens.class_token, hidden)
    if settings.loss.targets == "sinkhorn":
        classes = sinkhorn(class_scores, temperature=temperature)
        patches = sinkhorn(patch_scores, temperature=temperature) if len(patch_scores) else patch_scores
    else:
        classes = centred(class_scores, teacher.centre_class, temperature=temperature)
        patches = centred(patch_scores, teacher.centre_patch, temperature=temperature)
        teacher.centre_class.copy_(updated_centre(teacher.centre_class, class_scores))
        if len(patch_scores):
            teacher.centre_patch.copy_(updated_centre(teacher.centre_patch, patch_scores))
    return Taught(classes.view(G, B, -1), patches, tokens.class_token)


def study(student: Learner, views: ViewBatch, settings: PretrainSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Return the student's log-probabilities and class tokens.

    Returns:
        (G B + L B + S, K) of class tokens in the order global, local, season; (R, K) of hidden patches; (G B, D) class
        tokens of the global views before the head.
    """
    masks = views.masks.flatten(0, 1)  # (G B, N)
    kinds: list[tuple[Tensor, Tensor | None]] = [(views.globals_.flatten(0, 1), masks)]
    kinds += [(images, None) for images in (views.locals_.flatten(0, 1), views.season) if len(images)]
    features = student.backbone.forward_views([images for images, _ in kinds], [mask for _, mask in kinds])
    hidden = features[0].patches.flatten(1, 2)[masks]  # (R, D)
    class_scores, patch_scores = student.score(torch.cat([f.class_token for f in features]), hidden)
    temperature = settings.loss.student_temperature
    return (
        torch.log_softmax(class_scores / temperature, dim=-1),
        torch.log_softmax(patch_scores / temperature, dim=-1),
        features[0].class_token,
    )
