"""The loop: a plain function that takes any views."""

from __future__ import annotations

import pytest
import torch

from cgeartheye.errors import DataError
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.pretraining.loop import SKIPS_IN_A_ROW, LoopState, Rates, Training, fit, rates_at
from cgeartheye.pretraining.networks import Learner, Pair
from cgeartheye.pretraining.objective import Terms
from cgeartheye.pretraining.views import ViewBatch
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.training.optimizer import adamw
from cgeartheye.training.parameters import parameter_groups

SETTINGS = PretrainSettings(
    head={"prototypes": 16, "hidden": 32, "bottleneck": 16}, optimizer={"warm_up": 0.0, "freeze_last": 0.0}
)


def views(step: int, *, fault: float = 0.0) -> ViewBatch:
    generator = torch.Generator().manual_seed(step)
    masks = torch.zeros(2, 4, 9, dtype=torch.bool)
    masks[0, :2, :3] = True
    return ViewBatch(
        globals_=torch.rand(2, 4, 3, 24, 24, generator=generator),
        locals_=torch.rand(2, 4, 3, 16, 16, generator=generator) + fault,
        season=torch.zeros(0, 3, 16, 16),
        place=torch.zeros(0, dtype=torch.int64),
        filled=torch.zeros(0, dtype=torch.bool),
        masks=masks,
    )


def training_of(settings: PretrainSettings = SETTINGS, *, steps: int = 2) -> Training:
    pair = Pair(Learner(build(SIZES["nano"], seed=0), settings.head, seed=0))
    groups = parameter_groups(pair.student.named_parameters(), depth=4)
    state = LoopState(used=torch.zeros(16, dtype=torch.bool))
    return Training(pair=pair, optimizer=adamw(groups, betas=(0.9, 0.999)), state=state, steps=steps)


def test_two_batches() -> None:
    training, seen = training_of(), []

    def note(training: Training, terms: Terms, rates: Rates) -> None:
        seen.append((training.state.step, float(terms.parts["loss"]), rates.lr))

    fit(training, SETTINGS, views_at=views, after_step=note)
    assert [step for step, _, _ in seen] == [1, 2]
    assert seen[0][2] > seen[1][2] == pytest.approx(5e-4 * 0.02)
    assert training.state.sums["n"] == 2
    assert training.state.sums["loss"] == pytest.approx(seen[0][1] + seen[1][1])
    means = training.state.take_means()
    assert means["loss"] == pytest.approx((seen[0][1] + seen[1][1]) / 2)
    assert 0 < means["teacher_entropy"] <= 1
    assert 1 <= means["prototypes_used"] <= 16  # two steps of eight class tokens
    assert not training.state.used.any()


def test_it_learns_one_batch_by_heart() -> None:
    losses: list[float] = []
    training = training_of(steps=12)

    def note(training: Training, terms: Terms, rates: Rates) -> None:
        losses.append(float(terms.parts["loss"]))

    fit(training, SETTINGS, views_at=lambda step: views(step * 0), after_step=note)
    assert losses[-1] < losses[0] - 0.5


def test_the_teacher_is_the_moving_average_of_the_student() -> None:
    settings = SETTINGS.model_copy(update={"optimizer": SETTINGS.optimizer.model_copy(update={"ema": (0.75, 0.75)})})
    training = training_of(settings, steps=3)
    expected = {name: value.clone() for name, value in training.pair.teacher.named_parameters()}

    def average(training: Training, terms: Terms, rates: Rates) -> None:
        for name, value in training.pair.student.named_parameters():
            expected[name] = 0.75 * expected[name] + 0.25 * value.detach()

    fit(training, settings, views_at=views, after_step=average)
    for name, value in training.pair.teacher.named_parameters():
        torch.testing.assert_close(value, expected[name])


def test_a_saved_state_goes_on_as_if_it_had_not_stopped() -> None:
    whole = training_of(steps=4)
    fit(whole, SETTINGS, views_at=views)
    first, second = training_of(steps=4), training_of(steps=4)

    class StoppedError(Exception):
        pass

    def stop(training: Training, terms: Terms, rates: Rates) -> None:
        if training.state.step == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(first, SETTINGS, views_at=views, after_step=stop)
    for name, value in second.tensors().items():
        value.copy_(first.tensors()[name])
    second.state.step, second.state.sums = first.state.step, dict(first.state.sums)
    fit(second, SETTINGS, views_at=views)
    assert all(torch.equal(value, second.tensors()[name]) for name, value in whole.tensors().items())
    assert second.state.sums == whole.state.sums


def test_a_broken_batch_is_skipped_and_counted() -> None:
    training = training_of(steps=3)
    kept: list[torch.Tensor] = []

    def note(training: Training, terms: Terms, rates: Rates) -> None:
        kept.append(training.pair.student.get_parameter("backbone.blocks.0.attn.qkv.weight").detach().clone())

    fit(training, SETTINGS, views_at=lambda step: views(step, fault=float("nan") if step == 1 else 0.0), after_step=note)
    assert training.state.skipped == 1
    assert training.state.skipped_in_a_row == 0
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[1], kept[2])
    assert training.state.sums["n"] == 2
    assert all(torch.isfinite(value).all() for value in training.pair.state_dict().values())


def test_it_gives_up_when_nothing_is_finite() -> None:
    training = training_of(steps=SKIPS_IN_A_ROW + 5)
    with pytest.raises(DataError, match="not finite"):
        fit(training, SETTINGS, views_at=lambda step: views(step, fault=float("nan")))
    assert training.state.step == SKIPS_IN_A_ROW


def test_rates_over_a_run() -> None:
    settings = PretrainSettings(backbone="small", batch=1024, epochs=1)
    start, middle, end = (rates_at(settings, share) for share in (0.001, 0.3, 1.0))
    assert start.freeze_last
    assert not middle.freeze_last
    assert [start.lr, end.lr] == pytest.approx([1e-5, 1e-5])
    assert [start.temperature, middle.temperature] == pytest.approx([0.04, 0.07], abs=1e-3)
    assert start.ema == pytest.approx(0.992, abs=1e-4)
    assert end.ema == 1.0
    assert end.weight_decay == pytest.approx(0.2)
