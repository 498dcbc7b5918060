"""The package's own loop on views and masks prepared before."""

from __future__ import annotations

import dataclasses
from contextlib import suppress

import torch
from served import GLOBALS, LOCAL_PX, Turns, Work, begin

from cgeartheye.models.sizes import SIZES, build
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.build import begin as begin_training
from cgeartheye.pretraining.loop import COLUMNS, Rates, Training, fit
from cgeartheye.pretraining.objective import Taught
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.distributed import World
from cgeartheye.training.runtime import runtime

STEPS = 200_000
"""Length that the schedules are told, as the peers are."""


class FinishedError(Exception):
    """The parent wants no more steps."""


class TakeTurns:
    """Waits for the parent where the loop asks for views; everything up to the next time is the step."""

    def __init__(self, turns: Turns, views: ViewBatch, training: Training) -> None:
        self.turns, self.views, self.training = turns, views, training

    def views_at(self, step: int, piece: int) -> ViewBatch:  # noqa: ARG002
        """Tell of the last step, wait, and return the same views as ever."""
        table = self.training.state.table
        self.turns.terms = dict(zip(COLUMNS, table[(step - 1) % len(table)], strict=True))
        if not self.turns.next():
            raise FinishedError
        return self.views

    def after_step(self, training: Training, taught: Taught, rates: Rates) -> None:  # noqa: ARG002
        """Look when it is time, as a run does."""
        if training.state.due(training.state.step, last=training.steps):
            training.state.look(training.world)


def settings_of(work: Work) -> PretrainSettings:
    head = {"prototypes": work.prototypes, "hidden": work.hidden, "bottleneck": work.bottleneck, "layers": work.layers}
    return PretrainSettings.model_validate(
        {
            "backbone": "small",
            "drop_path": 0.0,
            "batch": work.batch,
            "steps": STEPS,
            "season": {"mode": "off"},
            "head": {**head, "shared": False},
            "loss": {"targets": "sinkhorn"},
            "optimizer": {"clip": work.clip, "layer_decay": work.layer_decay, "freeze_last": 0.0},
            "device": "cpu",
            "precision": "float32",
        }
    )


def views_of(work: Work) -> ViewBatch:
    globals_, locals_ = work.images()
    masks = work.masks()
    hidden, weights = work.hidden_rows(masks)
    return ViewBatch(
        globals_=torch.stack(globals_),
        locals_=(torch.stack(locals_),),
        season=torch.zeros(0, 3, LOCAL_PX, LOCAL_PX),
        place=torch.zeros(0, dtype=torch.int64),
        season_weight=torch.zeros(0),
        masks=masks.unflatten(0, (GLOBALS, work.batch)),
        hidden=hidden,
        hidden_weight=weights / weights.sum(),
    )


def main() -> None:
    work, turns = begin([])
    settings, views = settings_of(work), views_of(work)
    backbone = build(dataclasses.replace(SIZES["small"], drop_path=0.0), seed=0)
    places = work.batch
    training = begin_training(settings, backbone, prototypes=work.prototypes, places=places, world=World(), pieces=1)
    student, teacher = training.pair.student, training.pair.teacher
    turns.ready(
        {
            "teacher tokens": teacher.backbone.blocks[0],
            "student tokens": student.backbone.blocks[0],
            "teacher class rows": teacher.class_head,
            "student class rows": student.class_head,
            "teacher patch rows": teacher.of_patches,
            "student patch rows": student.of_patches,
        }
    )
    takes = TakeTurns(turns, views, training)
    with runtime(threads=1), suppress(FinishedError):
        fit(training, settings, views_at=takes.views_at, after_step=takes.after_step)


if __name__ == "__main__":
    main()
