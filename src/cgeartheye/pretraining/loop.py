"""The training loop, on one page: a plain function over views, student, teacher and optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from cgeartheye.errors import DataError
from cgeartheye.pretraining.networks import Pair
from cgeartheye.pretraining.objective import Terms, distil
from cgeartheye.pretraining.views import ViewBatch
from cgeartheye.seeding import derive
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.optimizer import optimizer_tensors, set_rates, step_if_finite
from cgeartheye.training.schedules import cosine, linear, warm_cosine

SKIPS_IN_A_ROW: Final = 20
"""Steps without finite gradients after which a run gives up [ours]."""


@dataclass
class LoopState:
    """What the loop remembers from step to step, besides the networks and the optimizer.

    Args:
        step: steps done.
        skipped: steps whose gradients were not finite, in the whole run.
        skipped_in_a_row: the same, since the last good step.
        sums: sums of the log's values since its last line, and under ``n`` their number.
        used: (K,) bool on the CPU, prototypes that were some class token's best since the last line.
    """

    used: Tensor
    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float]) -> None:
        """Add one step's values to the sums."""
        for name, value in {**values, "n": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take_means(self) -> dict[str, float]:
        """Return the means since the last call and begin anew."""
        n = self.sums.pop("n", 1.0)
        means = {name: value / n for name, value in self.sums.items()}
        means["prototypes_used"] = float(self.used.sum())
        self.sums = {}
        self.used.zero_()
        return means


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """All that training changes.

    Args:
        pair: student and teacher.
        optimizer: of the student's parameters, with groups as :func:`cgeartheye.training.parameters.parameter_groups` makes.
        state: where the run stands.
        steps: where it ends.
        precision: arithmetic of the networks.
    """

    pair: Pair
    optimizer: torch.optim.Optimizer
    state: LoopState
    steps: int
    precision: torch.dtype = torch.float32

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by name; they are the training's own, so that loading into them restores it."""
        networks = {f"networks.{name}": value for name, value in self.pair.state_dict().items()}
        moments = {f"moments.{name}": value for name, value in optimizer_tensors(self.optimizer).items()}
        return {**networks, **moments, "used": self.state.used}


@dataclass(frozen=True, slots=True)
class Rates:
    """The scheduled values of one step."""

    lr: float
    weight_decay: float
    ema: float
    temperature: float
    freeze_last: bool


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
        freeze_last=share < o.freeze_last,
    )


def fit(
    training: Training,
    settings: PretrainSettings,
    *,
    views_at: Callable[[int], ViewBatch],
    after_step: Callable[[Training, Terms, Rates], None] | None = None,
) -> None:
    """Train from ``training.state.step`` to ``training.steps``.

    The result depends on ``training``, ``settings`` and ``views_at`` alone, so that a run which was saved after any step and
    continued equals one that never stopped.

    Args:
        training: networks, optimizer and state, changed in place.
        settings: schedules, weights, seed.
        views_at: the views of a step.
        after_step: called after every step; logs, probes and checkpoints live there.

    Raises:
        DataError: if gradients stay infinite or undefined.
    """
    pair, optimizer, state = training.pair, training.optimizer, training.state
    pair.student.train()
    while state.step < training.steps:
        rates = rates_at(settings, (state.step + 1) / training.steps)
        set_rates(optimizer, lr=rates.lr, weight_decay=rates.weight_decay, freeze_last=rates.freeze_last)
        pair.student.backbone.reseed(derive(settings.seed, "drop path", state.step))
        views = views_at(state.step)
        terms = distil(pair, views, settings, temperature=rates.temperature, precision=training.precision)
        torch.autograd.backward(terms.total)
        norm, stepped = step_if_finite(optimizer, clip=settings.optimizer.clip)
        if stepped:
            pair.follow(rates.ema)
        _note(state, terms, norm=norm, stepped=stepped)
        if after_step is not None:
            after_step(training, terms, rates)


def _note(state: LoopState, terms: Terms, *, norm: float, stepped: bool) -> None:
    state.step += 1
    state.skipped_in_a_row = 0 if stepped else state.skipped_in_a_row + 1
    if not stepped:
        state.skipped += 1
        if state.skipped_in_a_row >= SKIPS_IN_A_ROW:
            raise DataError(
                f"gradients were not finite in {SKIPS_IN_A_ROW} steps in a row, up to step {state.step}",
                remedy="lower optimizer.lr, or look for broken chips; the run continues from its last checkpoint",
            )
        return
    targets = terms.class_targets
    entropy = -torch.special.xlogy(targets, targets).sum(-1).mean() / math.log(targets.shape[-1])
    values = {name: float(value) for name, value in terms.parts.items()}
    state.add({**values, "teacher_entropy": float(entropy), "grad_norm": norm})
    state.used[targets.argmax(-1).cpu()] = True
