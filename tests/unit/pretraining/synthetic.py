"""Networks and views without pictures, for tests of objective and loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cgeartheye.models.sizes import SIZES, build
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.loop import COLUMNS, LoopState, Training
from cgeartheye.pretraining.networks import Learner, Pair
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.optimizer import AdamW
from cgeartheye.training.parameters import parameter_groups

HEAD: dict[str, Any] = {"prototypes": 16, "hidden": 32, "bottleneck": 16}


def batch_of(seed: int, *, samples: int = 4, locals_: tuple[int, ...] = (2, 1), slots: int = 3, fault: float = 0.0) -> ViewBatch:
    """Views of 24 px and two local sizes; place 0 has two other dates, the last place one, the rest none."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.zeros(2, samples, 9, dtype=torch.bool)
    masks[0, 1, :4] = True
    masks[1, 0, 2:4] = True
    hidden = masks.flatten().nonzero()[:, 0]
    place = torch.tensor([0, 0, samples - 1])[:slots]
    return ViewBatch(
        globals_=torch.rand(2, samples, 3, 24, 24, generator=g),
        locals_=tuple(
            torch.rand(count, samples, 3, side, side, generator=g) + fault
            for count, side in zip(locals_, (16, 8), strict=False)
            if count
        ),
        season=torch.rand(slots, 3, 16, 16, generator=g),
        place=place,
        season_weight=torch.tensor([0.25, 0.25, 0.5])[:slots],
        masks=masks,
        hidden=hidden,
        hidden_weight=torch.tensor([1 / 8] * 4 + [1 / 4] * 2),
    )


def with_anchor(seed: int) -> ViewBatch:
    """The same views, and larger ones for an anchor."""
    g = torch.Generator().manual_seed(1000 + seed)
    return replace(batch_of(seed), anchor=torch.rand(2, 4, 3, 48, 48, generator=g))


def converted(views: ViewBatch, dtype: torch.dtype) -> ViewBatch:
    """The same views in another arithmetic."""
    return ViewBatch(
        globals_=views.globals_.to(dtype),
        locals_=tuple(part.to(dtype) for part in views.locals_),
        season=views.season.to(dtype),
        place=views.place,
        season_weight=views.season_weight.to(dtype),
        masks=views.masks,
        hidden=views.hidden,
        hidden_weight=views.hidden_weight.to(dtype),
        anchor=None if views.anchor is None else views.anchor.to(dtype),
    )


def pair_of(settings: PretrainSettings, *, apart: float = 0.02, dtype: torch.dtype = torch.float32) -> Pair:
    """A student and a teacher that differ, as after some steps."""
    learner = Learner(build(SIZES["nano"], seed=0), settings.head, prototypes=settings.head.prototypes or 16, seed=0)
    pair = Pair(learner).to(dtype)
    with torch.no_grad():
        for number, parameter in enumerate(pair.student.parameters()):
            parameter.add_(apart * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)).to(dtype))
    return pair


def training_of(settings: PretrainSettings, *, steps: int = 2, pair: Pair | None = None, **given: Any) -> Training:
    """A training of the nano backbone."""
    pair = pair or pair_of(settings, apart=0.0)
    groups = parameter_groups(pair.student.named_parameters(), depth=4)
    K = settings.head.prototypes or 16
    state = LoopState(table=torch.zeros(settings.watch.log_every, len(COLUMNS)), used=torch.zeros(K, dtype=torch.bool))
    return Training(pair=pair, optimizer=AdamW(groups, betas=(0.9, 0.999)), state=state, steps=steps, **given)


def cross_entropy(target: Tensor, scores: Tensor) -> float:
    """Of one row, student temperature 0.1."""
    return float(-(target * torch.log_softmax(scores / 0.1, -1)).sum())
