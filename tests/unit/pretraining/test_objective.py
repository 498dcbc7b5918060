"""The objective of a batch against a slow loop over the table of allowed pairs, and planted faults that the loop must see."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from synthetic import HEAD, batch_of, cross_entropy, pair_of
from torch import Tensor

from cgeartheye.losses.koleo import koleo
from cgeartheye.losses.targets import sinkhorn
from cgeartheye.models.heads.projection import ProjectionHead
from cgeartheye.pretraining import objective
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.networks import Pair
from cgeartheye.pretraining.objective import PARTS, Mode, Terms, learn, teach, term_weights
from cgeartheye.settings.pretrain import PretrainSettings

MODE = Mode(temperature=0.04)
SETTINGS = PretrainSettings(head=HEAD, season={"weight": 0.5}, loss={"local_weight": 0.25, "patch_weight": 2.0})


def terms_of(pair: Pair, views: ViewBatch, settings: PretrainSettings = SETTINGS, mode: Mode = MODE) -> Terms:
    taught = teach(pair.teacher, [views], settings, mode=mode)
    return learn(pair.student, views, taught, settings, number=0, mode=mode)


def scores(head: ProjectionHead, token: Tensor) -> Tensor:
    rows, prototypes = head(token[None])
    return (rows @ prototypes.T)[0]


@torch.no_grad()
def slow_parts(pair: Pair, views: ViewBatch) -> dict[str, float]:
    """Every view passed by itself, every pair by itself."""
    student, teacher = pair.student, pair.teacher
    B = views.globals_.shape[1]
    tokens = [teacher.backbone(views.globals_[g]) for g in range(2)]
    of_class = torch.stack([scores(teacher.class_head, t) for g in range(2) for t in tokens[g].class_token])
    targets = sinkhorn(of_class, temperature=0.04).view(2, B, -1)
    masked = views.masks.nonzero().tolist()
    hidden = [tokens[g].patches[b].flatten(0, 1)[n] for g, b, n in masked]
    patch_targets = sinkhorn(torch.stack([scores(teacher.of_patches, t) for t in hidden]), temperature=0.04)
    seen = [student.backbone(views.globals_[g], views.masks[g]) for g in range(2)]

    def against(target: Tensor, token: Tensor) -> float:
        return cross_entropy(target, scores(student.class_head, token))

    globals_ = [against(targets[t, b], seen[1 - t].class_token[b]) for t in range(2) for b in range(B)]
    locals_ = [
        against(targets[t, b], student.backbone(part[v]).class_token[b])
        for part in views.locals_
        for v in range(len(part))
        for t in range(2)
        for b in range(B)
    ]
    season: dict[int, list[float]] = {}
    for slot in range(len(views.season)):
        b = int(views.place[slot])
        token = student.backbone(views.season[slot : slot + 1]).class_token[0]
        season.setdefault(b, []).extend(against(targets[t, b], token) for t in range(2))
    patches: dict[tuple[int, int], list[float]] = {}
    for row, (g, b, n) in enumerate(masked):
        token = seen[g].patches[b].flatten(0, 1)[n]
        patches.setdefault((g, b), []).append(cross_entropy(patch_targets[row], scores(student.of_patches, token)))

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return {
        "loss_global": mean(globals_),
        "loss_local": mean(locals_),
        "loss_season": mean([mean(values) for values in season.values()]),
        "loss_patch": mean([mean(values) for values in patches.values()]),
        "koleo": sum(float(koleo(view.class_token[None])) for view in seen),
    }


def weighted(expected: dict[str, float]) -> float:
    """The paper's sum with the weights of SETTINGS: 2 crossed and 6 local pairs of a sample."""
    pairs = (2 * expected["loss_global"] + 0.25 * 6 * expected["loss_local"]) / 8
    return pairs + 0.5 * expected["loss_season"] + 2 * expected["loss_patch"] + 0.1 * expected["koleo"]


def check(pair: Pair, views: ViewBatch, settings: PretrainSettings = SETTINGS) -> None:
    terms, expected = terms_of(pair, views, settings), slow_parts(pair, views)
    parts = dict(zip(PARTS, terms.parts.tolist(), strict=True))
    for name, value in expected.items():
        assert parts[name] == pytest.approx(value, rel=1e-4), name
    assert parts["loss"] == pytest.approx(weighted(expected), rel=1e-4)
    assert float(terms.total.detach()) == pytest.approx(weighted(expected), rel=1e-4)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("normalise", ["unit", "weight"])
def test_every_part_equals_the_slow_loop(shared: bool, normalise: str) -> None:
    settings = SETTINGS.model_copy(update={"head": SETTINGS.head.model_copy(update={"shared": shared, "normalise": normalise})})
    check(pair_of(settings), batch_of(0), settings)


def _diagonal(views: ViewBatch, weights: dict[str, float], *, first: int) -> Any:
    index, weight = ORIGINAL["pairs"](views, weights, first=first)
    index[:, : 2 * views.globals_.shape[1]] = torch.arange(2 * views.globals_.shape[1])
    return index, weight


def _one_teacher(views: ViewBatch, weights: dict[str, float], *, first: int) -> Any:
    index, weight = ORIGINAL["pairs"](views, weights, first=first)
    return index[:1], weight


def _places_off_by_one(views: ViewBatch, weights: dict[str, float], *, first: int) -> Any:
    return ORIGINAL["pairs"](replace(views, place=(views.place + 1) % views.globals_.shape[1]), weights, first=first)


def _absent_dates_in_the_mean(views: ViewBatch, weights: dict[str, float], *, first: int) -> Any:
    return ORIGINAL["pairs"](views, {**weights, "loss_season": weights["loss_season"] * 2 / 4}, first=first)


def _patches_off_by_one(student: Any, views: ViewBatch, mode: Mode) -> Any:
    return ORIGINAL["see"](student, replace(views, hidden=views.hidden + 1), mode)


def _unmasked(student: Any, views: ViewBatch, mode: Mode) -> Any:
    return ORIGINAL["see"](student, replace(views, masks=torch.zeros_like(views.masks)), mode)


def _unequal_shares(settings: PretrainSettings, *, locals_: int, season: bool) -> dict[str, float]:
    weights = ORIGINAL["weights"](settings, locals_=locals_, season=season)
    return {**weights, "loss_global": weights["loss_global"] * 2}


def _softmax(given: Tensor, *, temperature: float, **_: Any) -> Tensor:
    return torch.softmax(given / temperature, -1)


ORIGINAL: dict[str, Any] = {"pairs": objective._pairs, "see": objective._see, "weights": objective.term_weights}
FAULTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "pairs on the diagonal": ("_pairs", _diagonal),
    "only one teacher of local views": ("_pairs", _one_teacher),
    "season of the next place": ("_pairs", _places_off_by_one),
    "season mean over absent dates": ("_pairs", _absent_dates_in_the_mean),
    "masked positions off by one": ("_see", _patches_off_by_one),
    "student sees what is hidden": ("_see", _unmasked),
    "global pairs counted twice": ("term_weights", _unequal_shares),
    "targets not balanced": ("sinkhorn", _softmax),
    "one KoLeo over both views": ("koleo", lambda tokens: 2 * koleo(tokens.flatten(0, 1)[None])),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute, fault = FAULTS[name]
    monkeypatch.setattr(objective, attribute, fault)
    with pytest.raises(AssertionError):
        check(pair_of(SETTINGS), batch_of(0))


def gradients(pair: Pair, views: ViewBatch, mode: Mode = MODE) -> dict[str, Tensor]:
    pair.zero_grad()
    torch.autograd.backward(terms_of(pair, views, mode=mode).total)
    return {name: p.grad.clone() for name, p in pair.named_parameters() if p.grad is not None}


def test_only_the_student_gets_gradients_and_all_of_it() -> None:
    pair = pair_of(SETTINGS)
    found = gradients(pair, batch_of(0))
    assert {name for name, _ in pair.student.named_parameters()} == {name.removeprefix("student.") for name in found}


def test_gradients_equal_finite_differences() -> None:
    pair, views = pair_of(SETTINGS, dtype=torch.float64), batch_of(0)
    mode = Mode(temperature=0.04)
    found = gradients(pair, views, mode)
    for name in ("student.backbone.blocks.1.attn.qkv.weight", "student.class_head.prototypes", "student.backbone.mask_token"):
        parameter, direction = pair.get_parameter(name), torch.sign(found[name])
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(direction, alpha=step)
                ends.append(float(terms_of(pair, views, mode=mode).total.detach()))
                parameter.sub_(direction, alpha=step)
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float((found[name] * direction).sum()), rel=1e-4), name


def test_a_place_with_one_date_adds_nothing_to_the_season_and_loses_nothing() -> None:
    pair = pair_of(SETTINGS)
    alone = replace(batch_of(0), season_weight=torch.zeros(3))
    without = batch_of(0, slots=0)
    parts = [dict(zip(PARTS, terms_of(pair, views).parts.tolist(), strict=True)) for views in (alone, without)]
    assert parts[0]["loss_season"] == parts[1]["loss_season"] == 0
    assert parts[0]["loss"] == pytest.approx(parts[1]["loss"], rel=1e-6)
    empty, absent = gradients(pair, alone), gradients(pair, without)
    for name, value in absent.items():
        torch.testing.assert_close(empty[name], value, rtol=1e-4, atol=1e-5)
    assert all(torch.isfinite(value).all() for value in empty.values())


def test_frozen_backbones_and_prototypes_get_no_gradient() -> None:
    pair = pair_of(SETTINGS)
    names = set(gradients(pair, batch_of(0), Mode(temperature=0.04, frozen=True, still=True)))
    assert names == {
        f"student.{head}.mlp.{k}.{kind}" for head in ("class_head",) for k in range(3) for kind in ("weight", "bias")
    }


def test_the_paper_s_weights_and_the_report_s() -> None:
    add = term_weights(PretrainSettings(season={"weight": 0.5}, loss={"patch_weight": 2.0}), locals_=8, season=True)
    assert add == pytest.approx(
        {"loss_global": 2 / 18, "loss_local": 16 / 18, "loss_season": 0.5, "loss_patch": 2.0, "koleo": 0.1}
    )
    replaced = term_weights(PretrainSettings(local={"views": 8}, season={"mode": "replace"}), locals_=5, season=True)
    assert replaced == pytest.approx(
        {"loss_global": 2 / 18, "loss_local": 10 / 18, "loss_season": 6 / 18, "loss_patch": 1.0, "koleo": 0.1}
    )
    assert term_weights(PretrainSettings(), locals_=8, season=False)["loss_season"] == 0


def test_microbatches_of_one_process_add_up_to_the_whole_batch() -> None:
    """Targets are balanced over all of them; only KoLeo, which compares the rows of one pass, is left out here."""
    settings = SETTINGS.model_copy(update={"loss": SETTINGS.loss.model_copy(update={"koleo_weight": 0.0})})
    pair = pair_of(settings, dtype=torch.float64)
    mode = Mode(temperature=0.04)
    halves = [batch_of(seed) for seed in (0, 1)]
    taught = teach(pair.teacher, halves, settings, mode=mode)
    for number, views in enumerate(halves):
        torch.autograd.backward(learn(pair.student, views, taught, settings, number=number, mode=mode).total / 2)
    added = {name: p.grad.clone() for name, p in pair.student.named_parameters() if p.grad is not None}
    pair.zero_grad()
    whole = joined(*halves)
    taught = teach(pair.teacher, [whole], settings, mode=mode)
    torch.autograd.backward(learn(pair.student, whole, taught, settings, number=0, mode=mode).total)
    for name, parameter in pair.student.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(added[name], parameter.grad, rtol=1e-7, atol=1e-9, msg=name)


def joined(a: ViewBatch, b: ViewBatch) -> ViewBatch:
    """Two microbatches as one."""
    B = a.globals_.shape[1]
    masks = torch.cat([a.masks, b.masks], 1)
    weight = torch.zeros(masks.numel())
    for view in masks.flatten(0, 1).nonzero()[:, 0].unique():
        rows = masks.flatten(0, 1)[view]
        weight.view(-1, 9)[view][rows] = 1 / (rows.sum() * 4)
    hidden = masks.flatten().nonzero()[:, 0]
    return ViewBatch(
        globals_=torch.cat([a.globals_, b.globals_], 1),
        locals_=tuple(torch.cat([p, q], 1) for p, q in zip(a.locals_, b.locals_, strict=True)),
        season=torch.cat([a.season, b.season]),
        place=torch.cat([a.place, b.place + B]),
        season_weight=torch.cat([a.season_weight, b.season_weight]) / 2,
        masks=masks,
        hidden=hidden,
        hidden_weight=weight[hidden],
    )


def test_centring_moves_the_centres_once_a_step() -> None:
    settings = PretrainSettings(head=HEAD, loss={"targets": "centring"})
    pair, views = pair_of(settings), batch_of(0)
    assert not pair.teacher.centre_class.any()
    taught = teach(pair.teacher, [views], settings, mode=MODE)
    tokens = pair.teacher.backbone(views.globals_.flatten(0, 1)).class_token
    rows, prototypes = pair.teacher.class_head(tokens)
    torch.testing.assert_close(pair.teacher.centre_class, 0.1 * (rows @ prototypes.T).mean(0))
    torch.testing.assert_close(taught.classes, torch.softmax(rows @ prototypes.T / 0.04, -1))  # with the centre of before


def test_bfloat16_stays_close() -> None:
    pair, views = pair_of(SETTINGS), batch_of(0)
    full = terms_of(pair, views)
    half = terms_of(pair, views, mode=Mode(temperature=0.04, precision=torch.bfloat16))
    assert float(half.total.detach()) == pytest.approx(float(full.total.detach()), rel=0.05)
    assert float(full.parts[PARTS.index("loss_global")]) < 5 * math.log(16)
