"""The anchor of dense features: when it is taken, what it sees, what it is compared with, and resuming at any moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from synthetic import HEAD, batch_of, pair_of, training_of, with_anchor
from test_loop import StoppedError, Watching
from test_pretrain_stage import lines_of, outputs_of
from test_views import changed, maker_of
from torch import Tensor

from cgeartheye.pretraining import objective, pretrain
from cgeartheye.pretraining.anchor import Anchor, acts_at, anchor_px, is_taken_at
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.loop import Rates, Training, fit
from cgeartheye.pretraining.networks import Pair
from cgeartheye.pretraining.objective import PARTS, Mode, Taught, Terms, learn, teach
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.pretraining.watch import Watch
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.settings.pretrain_sections import GramSettings
from cgeartheye.shards.reader import ShardReader

SETTINGS = PretrainSettings(
    head=HEAD,
    optimizer={"warm_up": 0.0, "freeze_last": 0.0, "ema": (0.5, 0.5)},
    gram={"weight": 2.0, "after": 0.3, "refresh": 2, "most_refreshes": 2},
    watch={"log_every": 4},
)


def anchored_pair(settings: PretrainSettings = SETTINGS, dtype: torch.dtype = torch.float32) -> Pair:
    """Student, teacher and anchor that all differ."""
    plain = pair_of(settings, dtype=dtype)
    pair = Pair(plain.student, anchored=True)
    pair.teacher.load_state_dict(plain.teacher.state_dict())
    with torch.no_grad():
        for number, parameter in enumerate(pair.anchor.parameters()):  # type: ignore[union-attr]
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(900 + number)))
    return pair


def anchored_training(steps: int) -> Training:
    return training_of(SETTINGS, steps=steps, pair=Pair(pair_of(SETTINGS, apart=0.0).student, anchored=True))


def views(step: int, piece: int = 0) -> ViewBatch:
    return with_anchor(100 * step + piece)


@pytest.mark.parametrize(
    ("gram", "acts", "taken"),
    [
        ({"weight": 0.0}, set(), set()),
        ({"weight": 1.0}, {5, 6, 7, 8, 9}, {5}),
        ({"weight": 1.0, "after": 0.1}, set(range(1, 10)), {1}),
        ({"weight": 1.0, "after": 0.25, "refresh": 3}, set(range(3, 10)), {3, 6, 9}),
        ({"weight": 1.0, "after": 0.0, "refresh": 2, "most_refreshes": 2}, set(range(10)), {0, 2, 4}),
        ({"weight": 1.0, "after": 0.0, "refresh": 2, "most_refreshes": 0}, set(range(10)), {0}),
    ],
)
def test_when_it_is_taken_is_a_function_of_the_step(gram: dict[str, Any], acts: set[int], taken: set[int]) -> None:
    settings = GramSettings.model_validate(gram)
    assert {step for step in range(12) if acts_at(settings, step, 10)} == acts
    assert {step for step in range(12) if is_taken_at(settings, step, 10)} == taken


def test_it_is_the_teacher_of_that_moment_and_stays_so() -> None:
    training = anchored_training(10)
    teachers: list[Tensor] = []
    anchors: list[Tensor] = []
    losses: list[float] = []
    name = "backbone.blocks.0.attn.qkv.weight"

    def note(training: Training, taught: Taught, rates: Rates) -> None:
        teachers.append(training.pair.teacher.get_parameter(name).clone())
        anchors.append(training.pair.anchor.get_parameter(name).clone())  # type: ignore[union-attr]
        losses.append(float(training.state.table[(training.state.step - 1) % 4, PARTS.index("loss_gram")]))

    fit(training, SETTINGS, views_at=views, after_step=note)
    of_step = {3: 3, 4: 3, 5: 5, 6: 5, 7: 7, 8: 7, 9: 7}  # the step before which it was taken
    for step, taken in of_step.items():
        assert torch.equal(anchors[step], teachers[taken - 1]), step
    assert [loss > 0 for loss in losses] == [False] * 3 + [True] * 7


@pytest.mark.parametrize("stop_at", [2, 3, 4, 6])
def test_a_saved_state_goes_on_as_if_it_had_not_stopped(stop_at: int) -> None:
    whole, first, second = (anchored_training(7) for _ in range(3))
    fit(whole, SETTINGS, views_at=views)

    def stop(training: Training, taught: Taught, rates: Rates) -> None:
        if training.state.step == stop_at:
            raise StoppedError

    with pytest.raises(StoppedError):
        fit(first, SETTINGS, views_at=views, after_step=stop)
    assert any(name.startswith("networks.anchor.backbone.") for name in first.tensors())
    for name, value in second.tensors().items():
        value.copy_(first.tensors()[name])
    second.state.step = first.state.step
    fit(second, SETTINGS, views_at=views)
    assert all(torch.equal(value, second.tensors()[name]) for name, value in whole.tensors().items())


def test_between_looks_the_host_never_waits_and_shapes_stay() -> None:
    training = anchored_training(7)
    batches = [views(step) for step in range(7)]
    seen: list[Watching] = []
    watching = Watching()
    watching.__enter__()

    def turn(training: Training, taught: Taught, rates: Rates) -> None:
        nonlocal watching
        watching.__exit__(None, None, None)
        seen.append(watching)
        watching = Watching()
        watching.__enter__()

    fit(training, SETTINGS, views_at=lambda step, _piece: batches[step], after_step=turn)
    watching.__exit__(None, None, None)
    assert [step.waits for step in seen] == [[]] * 7
    assert seen[3].shapes == seen[5].shapes  # taken
    assert seen[4].shapes == seen[6].shapes


def terms_of(pair: Pair, views: ViewBatch, settings: PretrainSettings = SETTINGS, *, anchored: bool = True) -> Terms:
    mode = Mode(temperature=0.04, anchor=pair.anchor if anchored else None)
    taught = teach(pair.teacher, [views], settings, mode=mode)
    return learn(pair.student, views, taught, settings, number=0, mode=mode)


@torch.no_grad()
def slow_gram(pair: Pair, views: ViewBatch) -> float:
    """Picture by picture: the student sees its masks, the anchor everything."""
    assert pair.anchor is not None
    assert views.anchor is not None
    G, B = views.globals_.shape[:2]
    each = []
    for view in range(G):
        for b in range(B):
            own = pair.student.backbone(views.globals_[view, b : b + 1], views.masks[view, b : b + 1]).patches.view(9, -1)
            large = pair.anchor.backbone(views.anchor[view, b : b + 1]).patches  # (1, 6, 6, D)
            small = F.interpolate(large.permute(0, 3, 1, 2), scale_factor=0.5, mode="bicubic")[0].flatten(1).T
            grams = [cosines(x) for x in (own, small)]
            each.append(float((grams[0] - grams[1]).square().mean()))
    return sum(each) / len(each)


def cosines(x: Tensor) -> Tensor:
    return F.cosine_similarity(x[:, None], x[None], dim=-1)


def check(pair: Pair, views: ViewBatch) -> None:
    with_, without = terms_of(pair, views), terms_of(pair, views, anchored=False)
    expected = slow_gram(pair, views)
    parts = dict(zip(PARTS, with_.parts.tolist(), strict=True))
    assert parts["loss_gram"] == pytest.approx(expected, rel=1e-4)
    assert float((with_.total - without.total).detach()) == pytest.approx(2 * expected, rel=1e-3)
    assert parts["loss"] == float(with_.total.detach())


def test_the_objective_gains_the_weighted_term() -> None:
    check(anchored_pair(), with_anchor(0))


ORIGINAL: Any = Anchor.patches
SEE: Any = objective._see
GRAM: Any = objective.gram_loss


def _student_whole(student: Any, views: ViewBatch, mode: Mode) -> Any:
    classes, hidden, _ = SEE(student, views, mode)
    return classes, hidden, student.backbone(views.globals_.flatten(0, 1)).patches


FAULTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "views in another order": (Anchor, "patches", lambda self, views: ORIGINAL(self, views).roll(1, 0)),
    "patches in another order": (
        Anchor,
        "patches",
        lambda self, views: ORIGINAL(self, views).view(8, 3, 3, -1).transpose(1, 2).flatten(1, 2),
    ),
    "the student's own views": (Anchor, "patches", lambda self, views: ORIGINAL(self, replace(views, anchor=None))),
    "the student unmasked": (objective, "_see", _student_whole),
    "another scale": (objective, "gram_loss", lambda own, fixed: 0.5 * GRAM(own, fixed)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, fault = FAULTS[name]
    monkeypatch.setattr(owner, attribute, fault)
    with pytest.raises(AssertionError):
        check(anchored_pair(), with_anchor(0))


def test_only_the_student_gets_gradients() -> None:
    pair = anchored_pair()
    torch.autograd.backward(terms_of(pair, with_anchor(0)).total)
    assert {name.split(".")[0] for name, p in pair.named_parameters() if p.grad is not None} == {"student"}


def test_without_an_anchor_nothing_changes() -> None:
    pair = anchored_pair()
    off = SETTINGS.model_copy(update={"gram": GramSettings()})
    plain = terms_of(pair, batch_of(0), off, anchored=False)
    ready = terms_of(pair, with_anchor(0), SETTINGS, anchored=False)
    assert torch.equal(plain.parts, ready.parts)
    assert float(plain.parts[PARTS.index("loss_gram")]) == 0
    assert Pair(pair.student).anchor is None


def test_half_precision_stays_close() -> None:
    pair, given = anchored_pair(), with_anchor(0)
    mode = Mode(temperature=0.04, anchor=pair.anchor, precision=torch.bfloat16)
    taught = teach(pair.teacher, [given], SETTINGS, mode=mode)
    half = learn(pair.student, given, taught, SETTINGS, number=0, mode=mode)
    assert float(half.parts[PARTS.index("loss_gram")]) == pytest.approx(slow_gram(pair, given), rel=0.05)


@pytest.mark.parametrize(
    ("global_px", "patch_px", "zoom", "expected"),
    [
        (224, 14, 2.0, (448, 448)),
        (518, 14, 1.5, (784, 784)),  # 55.5 patches: 56
        (20, 8, 2.0, (40, 48)),
        (20, 8, 1.0, (20, 24)),
    ],
)
def test_sides_of_the_larger_views(global_px: int, patch_px: int, zoom: float, expected: tuple[int, int]) -> None:
    assert anchor_px(global_px, patch_px, zoom) == expected


def maker(settings: PretrainSettings, steps: int) -> ViewMaker:
    made = maker_of(settings)
    reader = ShardReader(settings.curated)  # type: ignore[arg-type] # set by the fixture
    return ViewMaker(
        Places(reader, settings.season), made._chips, settings=settings, patch_px=8, device=torch.device("cpu"), steps=steps
    )


def test_larger_views_show_the_same_crops_without_distortions(tiny: PretrainSettings) -> None:
    plain = {"blur": {"share": 0.0}, "jitter": {"share": 0.0}}
    settings = changed(tiny, gram={"weight": 1.0}, views=plain)
    make = maker(settings, 4)
    assert [make(step, 0).anchor is None for step in range(4)] == [True, True, False, False]
    found = make(2, 0)
    assert found.anchor is not None
    assert found.anchor.shape == (2, 4, 3, 48, 48)
    halved = F.interpolate(found.anchor.flatten(0, 1), size=24, mode="bicubic", antialias=True).view_as(found.globals_)
    assert float((halved - found.globals_).abs().mean()) < 0.03
    assert float((halved.roll(1, 1) - found.globals_).abs().mean()) > 0.1
    distorted = maker(changed(settings, views={"jitter": {"share": 1.0}}), 4)(2, 0)
    assert distorted.anchor is not None
    assert torch.equal(distorted.anchor, found.anchor)
    assert not torch.equal(distorted.globals_, found.globals_)


def test_larger_views_are_padded_like_the_student_s(tiny: PretrainSettings) -> None:
    found = maker(changed(tiny, gram={"weight": 1.0, "after": 0.0}, views={"global_px": 20}), 4)(0, 0).anchor
    assert found is not None
    assert found.shape == (2, 4, 3, 48, 48)
    assert torch.equal(found[..., 40:, :], found[..., 39:40, :].expand_as(found[..., 40:, :]))


@pytest.mark.parametrize("gram", [{"weight": 0.0}, {"weight": 1.0, "zoom": 1.0, "after": 0.0}])
def test_no_larger_views_where_none_are_needed(tiny: PretrainSettings, gram: dict[str, Any]) -> None:
    assert maker(changed(tiny, gram=gram), 4)(3, 0).anchor is None


@pytest.fixture
def anchored(tiny: PretrainSettings) -> PretrainSettings:
    return changed(
        tiny, steps=5, gram={"weight": 2.0, "after": 0.4, "refresh": 2}, watch={"checkpoint_every": 1, "probe_every": 0}
    )


def test_interrupted_when_the_anchor_is_taken_it_ends_the_same(
    anchored: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken before steps 2 and 4, counted from 0."""
    whole = pretrain(anchored, tmp_path / "whole")
    assert [line["loss_gram"] > 0 for line in lines_of(whole)] == [False, False, True, True, True]
    for at in (1, 2, 3, 4):
        original = Watch.__call__

        def stop(self: Watch, training: Any, terms: Any, rates: Any, at: int = at) -> None:
            original(self, training, terms, rates)  # noqa: B023 - put back before the next turn
            if training.state.step == at:
                raise KeyboardInterrupt

        monkeypatch.setattr(Watch, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(anchored, tmp_path / "resumed")
        monkeypatch.undo()
    pretrain(anchored, tmp_path / "resumed")
    assert outputs_of(tmp_path / "resumed") == outputs_of(whole)
    assert lines_of(tmp_path / "resumed") == lines_of(whole)


def test_a_later_phase_takes_an_anchor_of_its_own(tiny: PretrainSettings, tmp_path: Path) -> None:
    later = ({"steps": 2, "views": {"global_px": 32}, "gram": {"weight": 2.0}}, {"steps": 1, "gram": {"weight": 0.0}})
    lines = lines_of(pretrain(changed(tiny, steps=1, phases=later, watch={"probe_every": 0}), tmp_path / "out"))
    assert [line["loss_gram"] > 0 for line in lines] == [False, True, True, False]
