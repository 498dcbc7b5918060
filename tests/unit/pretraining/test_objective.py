"""The objective of a batch against a slow loop over the table of allowed pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cgeartheye.losses.koleo import koleo
from cgeartheye.losses.targets import sinkhorn
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.pretraining.networks import Learner, Pair
from cgeartheye.pretraining.objective import combine, distil
from cgeartheye.pretraining.views import ViewBatch
from cgeartheye.settings.pretrain import PretrainSettings

HEAD = {"prototypes": 16, "hidden": 32, "bottleneck": 16}


def pair_of(settings: PretrainSettings) -> Pair:
    pair = Pair(Learner(build(SIZES["nano"], seed=0), settings.head, seed=0))
    with torch.no_grad():  # apart, as after some steps
        for number, parameter in enumerate(pair.student.parameters()):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    return pair


def batch() -> ViewBatch:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(2, 3, 9, dtype=torch.bool)
    masks[0, 1, :4] = True
    masks[1, 0, 2:4] = True
    return ViewBatch(
        globals_=torch.rand(2, 3, 3, 24, 24, generator=generator),
        locals_=torch.rand(2, 3, 3, 16, 16, generator=generator),
        season=torch.rand(4, 3, 16, 16, generator=generator),
        place=torch.tensor([0, 0, 2, 0]),
        filled=torch.tensor([True, True, True, False]),
        masks=masks,
    )


def cross_entropy(target: Tensor, scores: Tensor) -> float:
    return float(-(target * torch.log_softmax(scores / 0.1, -1)).sum())


@torch.no_grad()
def slow_parts(pair: Pair, views: ViewBatch) -> dict[str, float]:
    """Every view passed by itself, every pair by itself."""
    student, teacher = pair.student, pair.teacher
    class_head, patch_head = student.class_head, student.patch_head or student.class_head
    teach_patch = teacher.patch_head or teacher.class_head
    tokens = [teacher.backbone(views.globals_[g]) for g in range(2)]
    targets = sinkhorn(torch.cat([teacher.class_head(t.class_token) for t in tokens]), temperature=0.04).view(2, 3, -1)
    hidden = [tokens[g].patches[b].flatten(0, 1)[n] for g, b, n in views.masks.nonzero().tolist()]
    patch_targets = sinkhorn(teach_patch(torch.stack(hidden)), temperature=0.04)
    seen = [student.backbone(views.globals_[g], views.masks[g]) for g in range(2)]
    globals_ = [cross_entropy(targets[t, b], class_head(seen[1 - t].class_token[b])) for t in range(2) for b in range(3)]
    locals_ = [
        cross_entropy(targets[t, b], class_head(student.backbone(views.locals_[v]).class_token[b]))
        for t in range(2)
        for v in range(2)
        for b in range(3)
    ]
    season: dict[int, list[float]] = {}
    for slot in range(3):
        b = int(views.place[slot])
        scores = class_head(student.backbone(views.season[slot : slot + 1]).class_token[0])
        season.setdefault(b, []).extend(cross_entropy(targets[t, b], scores) for t in range(2))
    patches: dict[tuple[int, int], list[float]] = {}
    for row, (g, b, n) in enumerate(views.masks.nonzero().tolist()):
        scores = patch_head(seen[g].patches[b].flatten(0, 1)[n])
        patches.setdefault((g, b), []).append(cross_entropy(patch_targets[row], scores))

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    return {
        "loss_global": mean(globals_),
        "loss_local": mean(locals_),
        "loss_season": mean([mean(values) for values in season.values()]),
        "loss_patch": mean([mean(values) for values in patches.values()]),
        "koleo": sum(float(koleo(view.class_token)) for view in seen),
    }


@pytest.mark.parametrize("shared", [True, False])
def test_every_part_equals_the_slow_loop(shared: bool) -> None:
    settings = PretrainSettings(head={**HEAD, "shared": shared})
    pair, views = pair_of(settings), batch()
    terms = distil(pair, views, settings, temperature=0.04, precision=torch.float32)
    expected = slow_parts(pair, views)
    for name, value in expected.items():
        assert float(terms.parts[name]) == pytest.approx(value, rel=1e-4), name
    L, G = (4 * expected["loss_local"] + 2 * expected["loss_global"]) / 6, expected["loss_season"]
    assert float(terms.total.detach()) == pytest.approx(L + G + expected["loss_patch"] + 0.1 * expected["koleo"], rel=1e-4)


def test_the_paper_s_weights_and_the_report_s() -> None:
    one = {name: torch.tensor(value) for name, value in [("loss_global", 1.0), ("loss_local", 10.0), ("loss_season", 100.0)]}
    parts = {**one, "loss_patch": torch.tensor(1000.0), "koleo": torch.tensor(0.0)}
    add = PretrainSettings(season={"weight": 0.5}, loss={"patch_weight": 2.0})
    assert float(combine(parts, add, counts=(2, 8, 3))) == pytest.approx((2 * 1 + 16 * 10) / 18 + 50 + 2000)
    replace = PretrainSettings(season={"mode": "replace"}, loss={"patch_weight": 0.0})
    assert float(combine(parts, replace, counts=(2, 5, 3))) == pytest.approx((2 * 1 + 10 * 10 + 6 * 100) / 18)


def test_only_the_student_gets_gradients() -> None:
    settings = PretrainSettings(head=HEAD)
    pair = pair_of(settings)
    torch.autograd.backward(distil(pair, batch(), settings, temperature=0.04, precision=torch.float32).total)
    assert all(parameter.grad is None for parameter in pair.teacher.parameters())
    missing = [name for name, parameter in pair.student.named_parameters() if parameter.grad is None]
    assert missing == []


def test_centring_moves_the_centres_once_a_batch() -> None:
    settings = PretrainSettings(head=HEAD, loss={"targets": "centring"})
    pair = pair_of(settings)
    assert not pair.teacher.centre_class.any()
    distil(pair, batch(), settings, temperature=0.04, precision=torch.float32)
    scores = pair.teacher.class_head(pair.teacher.backbone(batch().globals_.flatten(0, 1)).class_token)
    torch.testing.assert_close(pair.teacher.centre_class, 0.1 * scores.mean(0))


def test_bfloat16_stays_close() -> None:
    settings = PretrainSettings(head=HEAD)
    pair = pair_of(settings)
    full = distil(pair, batch(), settings, temperature=0.04, precision=torch.float32)
    half = distil(pair, batch(), settings, temperature=0.04, precision=torch.bfloat16)
    assert half.class_targets.dtype == torch.float32
    assert float(half.total.detach()) == pytest.approx(float(full.total.detach()), rel=0.05)
    assert float(full.parts["loss_global"]) < 5 * math.log(16)
