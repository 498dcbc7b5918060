"""The training loop, on one page: a plain function over views, student, teacher and optimizer.

Between two looks (every ``watch.log_every`` steps) nothing travels from the device to the host: losses, gradient norms and
skipped steps are kept in a table on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from cgeartheye.errors import DataError
from cgeartheye.pretraining.anchor import Anchor, acts_at, is_taken_at
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.networks import Pair
from cgeartheye.pretraining.objective import PARTS, Mode, Taught, learn, teach
from cgeartheye.pretraining.start import trainable_share
from cgeartheye.seeding import derive
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.settings.pretrain_sections import GramSettings
from cgeartheye.training.distributed import World
from cgeartheye.training.optimizer import AdamW, clip_and_step, set_rates
from cgeartheye.training.schedules import cosine, linear, warm_cosine

COLUMNS: Final = (*PARTS, "grad_norm", "finite")
"""Columns of the table on the device."""


@dataclass
class LoopState:
    """What the loop remembers from step to step, besides the networks and the optimizer.

    Args:
        table: (steps between looks, 9) float32 on the device, one row a step since the last look; :data:`COLUMNS`.
        used: (K,) bool on the device, prototypes that were some class token's best since the last look.
        step: steps done.
        skipped: steps whose gradients were not finite, among those looked at.
        lr_factor: on the learning rate; halved when a run is rolled back.
        rollbacks: how often it was.
    """

    table: Tensor
    used: Tensor
    step: int = 0
    skipped: int = 0
    lr_factor: float = 1.0
    rollbacks: int = 0

    def record(self, parts: Tensor, norm: Tensor, finite: Tensor, classes: Tensor) -> None:
        """Note a step: (7,) parts, () norm, () whether it was made, (rows, K) class targets."""
        row = torch.cat([parts, torch.stack([norm.to(parts.dtype), finite.to(parts.dtype)])])
        self.table[self.step % len(self.table)] = row
        self.used.index_fill_(0, classes.argmax(-1), 1)
        self.step += 1

    def due(self, step: int, *, last: int) -> bool:
        """Whether it is time to look after step ``step`` of ``last``."""
        return step % len(self.table) == 0 or step == last

    def look(self, world: World) -> Look:
        """Read the steps since the last look: the one moment at which the host waits for the device."""
        rows = (self.step - 1) % len(self.table) + 1
        table = world.mean(self.table[:rows]).double().cpu()
        used = int((world.total(self.used.float()) > 0).sum())
        self.used.zero_()
        finite = table[:, COLUMNS.index("finite")] > 0.5
        first = self.step - rows
        skipped = [first + k for k in (~finite).nonzero()[:, 0].tolist()]
        self.skipped += len(skipped)
        kept = table[finite] if finite.any() else table
        means = dict(zip(COLUMNS[:-1], kept.mean(0).tolist(), strict=False))
        evidence = {first + k: dict(zip(COLUMNS, table[k].tolist(), strict=True)) for k in (~finite).nonzero()[:, 0].tolist()}
        return Look({**means, "prototypes_used": float(used)}, evidence)


@dataclass(frozen=True, slots=True)
class Look:
    """What happened since the last look.

    Args:
        means: of the steps that were made, by name.
        skipped: numbers (from 0) of the steps that were not made, with their row of the table.
    """

    means: dict[str, float]
    skipped: dict[int, dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """All that training changes, and where it runs.

    Args:
        pair: student and teacher.
        optimizer: of the student's parameters, with groups as :func:`cgeartheye.training.parameters.parameter_groups` makes.
        state: where the run stands.
        steps: where it ends.
        precision: arithmetic of the networks.
        world: the processes that share it.
        pieces: microbatches of a step, over all processes.
        sharded: whether parameters are sharded, so that gradients are averaged while they are made.
    """

    pair: Pair
    optimizer: AdamW
    state: LoopState
    steps: int
    precision: torch.dtype = torch.float32
    world: World = field(default_factory=World)
    pieces: int = 1
    sharded: bool = False

    @property
    def mine(self) -> range:
        """The microbatches of this process."""
        share = self.pieces // self.world.size
        return range(self.world.rank * share, (self.world.rank + 1) * share)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by name; they are the training's own, so that loading into them restores it."""
        networks = {f"networks.{name}": value for name, value in self.pair.state_dict().items()}
        moments = {f"moments.{name}": value for name, value in self.optimizer.tensors().items()}
        return {**networks, **moments, "table": self.state.table, "used": self.state.used}


@dataclass(frozen=True, slots=True)
class Rates:
    """The scheduled values of one step; ``backbone`` is a factor on its learning rate, 0 while only the heads learn."""

    lr: float
    weight_decay: float
    ema: float
    temperature: float
    still: bool
    backbone: float


def rates_at(settings: PretrainSettings, share: float) -> Rates:
    """Return the scheduled values when ``share`` of the samples are done."""
    o, loss = settings.optimizer, settings.loss
    if o.lr is None:
        raise DataError("the learning rate was never resolved")
    return Rates(
        lr=warm_cosine(o.lr, o.lr * o.end_lr, share, warm_up=o.warm_up),
        weight_decay=cosine(*o.weight_decay, share),
        ema=cosine(*o.ema, share),
        temperature=linear(*loss.teacher_temperature, share, over=loss.teacher_warm_up),
        still=share < o.freeze_last,
        backbone=trainable_share(settings, share),
    )


AfterStep = Callable[[Training, Taught, Rates], None]


def fit(
    training: Training,
    settings: PretrainSettings,
    *,
    views_at: Callable[[int, int], ViewBatch],
    after_step: AfterStep | None = None,
) -> None:
    """Train from ``training.state.step`` to ``training.steps``.

    The result depends on ``training``, ``settings`` and ``views_at`` alone, so that a run which was saved after any step and
    continued equals one that never stopped.

    Args:
        training: networks, optimizer and state, changed in place.
        settings: schedules, weights, seed.
        views_at: the views of a step's microbatch.
        after_step: called after every step; logs, probes and checkpoints live there.
    """
    training.pair.student.train()
    while training.state.step < training.steps:
        rates = rates_at(settings, (training.state.step + 1) / training.steps)
        taught = take_step(training, settings, rates, views_at)
        if after_step is not None:
            after_step(training, taught, rates)
        del taught  # the next step's targets are made when these are gone


def take_step(training: Training, settings: PretrainSettings, rates: Rates, views_at: Callable[[int, int], ViewBatch]) -> Taught:
    """Teach, learn, step, follow; return what the teacher said (the patches' targets left out)."""
    pair, state, world = training.pair, training.state, training.world
    student, step = pair.student, state.step
    set_rates(training.optimizer, lr=rates.lr * state.lr_factor, weight_decay=rates.weight_decay, backbone=rates.backbone)
    mode = Mode(
        temperature=rates.temperature,
        precision=training.precision,
        still=rates.still,
        frozen=rates.backbone == 0.0,
        anchor=_anchor_now(training, settings.gram),
    )
    batches = [views_at(step, piece) for piece in training.mine]
    taught = teach(pair.teacher, batches, settings, mode=mode, reduce=world)
    parts = []
    for number, (piece, views) in enumerate(zip(training.mine, batches, strict=True)):
        student.backbone.reseed(derive(settings.seed, "drop path", step, piece))
        terms = learn(student, views, taught, settings, number=number, mode=mode)
        torch.autograd.backward(terms.total / len(batches))
        parts.append(terms.parts)
    if not training.sharded:
        world.average_gradients(student.parameters())
    norm, finite = clip_and_step(training.optimizer, clip=settings.optimizer.clip)
    pair.follow(rates.ema)  # of a step that was not made too: the student is where it was, and finite
    state.record(torch.stack(parts).mean(0), norm, finite, taught.classes)
    return Taught(taught.classes, taught.classes[:0], taught.class_tokens)


def _anchor_now(training: Training, gram: GramSettings) -> Anchor | None:
    """Return the anchor of the step that comes, taken anew if it is time, or None if the step has none."""
    anchor, step = training.pair.anchor, training.state.step
    if anchor is None or not acts_at(gram, step, training.steps):
        return None
    if is_taken_at(gram, step, training.steps):
        anchor.take(training.pair.teacher.backbone)
    return anchor
