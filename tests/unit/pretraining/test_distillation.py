"""Distillation: the loss against a slow loop, students that do not touch one another, exact resume, and that it teaches."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from synthetic import batch_of, converted
from torch import Tensor

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import read_json
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.models.vit import VisionTransformer
from cgeartheye.pretraining import pretrain
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.distil_watch import DistilWatch
from cgeartheye.pretraining.distillation import PARTS, Distilling, distil, learn, student_of, teach
from cgeartheye.pretraining.objective import term_weights
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.weights.checkpoints import load_step
from cgeartheye.weights.store import load_own, save_backbone

TIMES = {"seconds", "cpu_seconds", "pictures_per_s", "pictures_per_cpu_s", "data_wait_share"}
CPU = torch.device("cpu")


def network(*, seed: int, width: int = 128) -> VisionTransformer:
    """A nano network whose features depend on the picture; untrained ones hardly do."""
    heads = width // 32
    model = build(dataclasses.replace(SIZES["nano"], width=width, heads=heads, hidden=4 * width, depth=2), seed=seed).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and name.startswith("blocks."):
                parameter.mul_(4.0)
    return model


def lines_of(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def outputs_of(out: Path) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in read_json(out / "manifest.json")["outputs"].items()}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A wider network of another licence, as its own folder."""
    card = {"name": "big", "licence": "CC-BY-NC-4.0", "parent": None, "recipe": {"steps": 1}, "restricted_by": ["CC-BY-NC-4.0"]}
    save_backbone(tmp_path / "teacher", network(seed=7, width=160), card)
    (tmp_path / "teacher" / "training_names.txt").write_text("port/b.jpg\n")
    return tmp_path / "teacher"


@pytest.fixture
def two_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second size with patches of 8 px that trains in no time."""
    monkeypatch.setitem(SIZES, "small", dataclasses.replace(SIZES["nano"], name="small", width=64, heads=2, hidden=128))


def distilled(tiny: PretrainSettings, teacher: Path | str, *students: str, **changes: Any) -> PretrainSettings:
    given = tiny.model_dump(exclude_unset=True)
    return PretrainSettings.model_validate({**given, "distil": {"teacher": teacher, "students": students}, **changes})


def slow_loss(mapped: Any, teacher: VisionTransformer, views: ViewBatch, settings: PretrainSettings) -> dict[str, float]:
    """Picture by picture, each view in a pass of its own."""

    def see(model: VisionTransformer, image: Tensor) -> tuple[Tensor, Tensor]:
        features = model(image[None])
        return features.class_token[0], features.patches[0]

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return 1 - F.cosine_similarity(a, b, dim=-1)

    B = views.globals_.shape[1]
    own, mean, wide, close = [], [], [], []
    for b in range(B):
        tokens = []
        for v in range(2):
            class_token, patches = see(teacher, views.globals_[v, b])
            student, student_patches = see(mapped.backbone, views.globals_[v, b])
            tokens.append(class_token / class_token.norm())
            own.append(distance(mapped.class_map(student), class_token))
            for y in range(3):
                for x in range(3):
                    made, meant = mapped.patch_map(student_patches[y, x]), patches[y, x]
                    wide.append(distance(made, meant))
                    close.append(F.smooth_l1_loss(made, meant))
        mean.append((tokens[0] + tokens[1]) / 2)
    local = [
        distance(mapped.class_map(see(mapped.backbone, part[k, b])[0]), mean[b])
        for part in views.locals_
        for k in range(len(part))
        for b in range(B)
    ]
    season = [
        views.season_weight[s] * distance(mapped.class_map(see(mapped.backbone, views.season[s])[0]), mean[int(views.place[s])])
        for s in range(len(views.season))
    ]
    parts = {
        "loss_global": torch.stack(own).mean(),
        "loss_local": torch.stack(local).mean() if local else torch.zeros(()),
        "loss_season": torch.stack(season).sum() if season else torch.zeros(()),
        "loss_patch": 0.9 * torch.stack(wide).mean() + 0.1 * torch.stack(close).mean(),
    }
    weights = term_weights(settings, locals_=len(local) // B, season=bool(season))
    values = {name: float(value.detach()) for name, value in parts.items()}
    return {"loss": sum(weights[name] * value for name, value in values.items()), **values}


@pytest.mark.parametrize(("locals_", "slots", "mode"), [((2, 1), 3, "add"), ((2, 1), 3, "replace"), ((), 0, "off")])
def test_the_loss_is_what_a_slow_loop_says(locals_: tuple[int, ...], slots: int, mode: str) -> None:
    settings = PretrainSettings(steps=1, season={"mode": mode, "weight": 0.7}, loss={"patch_weight": 0.6})
    views = converted(batch_of(0, locals_=locals_, slots=slots), torch.float64)
    big = network(seed=7, width=160).double()
    student = student_of("nano", network(seed=1), settings, width=160, device=CPU).mapped.double().eval()
    total, parts = learn(student, views, teach(big, views, precision=torch.float32), settings, precision=torch.float32)
    expected = slow_loss(student, big, views, settings)
    assert dict(zip(PARTS, parts.tolist(), strict=True)) == pytest.approx(expected, abs=1e-12)
    assert float(total.detach()) == pytest.approx(expected["loss"], abs=1e-12)


def test_only_the_student_learns_and_empty_slots_do_not_teach() -> None:
    settings = PretrainSettings(steps=1)
    views = batch_of(0)
    views = dataclasses.replace(views, season_weight=torch.tensor([0.5, 0.0, 0.5]))
    other = dataclasses.replace(views, season=views.season.clone().index_fill_(0, torch.tensor([1]), 0.3))
    big = network(seed=7, width=160)
    student = student_of("nano", network(seed=1), settings, width=160, device=CPU)
    student.mapped.eval()
    full = torch.float32
    losses = [learn(student.mapped, v, teach(big, v, precision=full), settings, precision=full) for v in (views, other)]
    torch.testing.assert_close(losses[0][0], losses[1][0])
    losses[0][0].backward()
    assert all(parameter.grad is None for parameter in (*big.parameters(), *student.average.parameters()))
    without = {name for name, p in student.mapped.named_parameters() if p.grad is None}
    assert without <= {"backbone.mask_token"}  # no view is masked


def run_of(settings: PretrainSettings, seeds: tuple[int, ...], *, pieces: int = 1) -> Distilling:
    students = [
        student_of(f"s{seed}", network(seed=seed, width=32 * seed), settings, width=160, device=CPU, lr_factor=1 / seed)
        for seed in seeds
    ]
    big = network(seed=7, width=160)
    return Distilling(teacher=big.requires_grad_(requires_grad=False), students=students, steps=4, pieces=pieces)


def nothing(run: Distilling, rates: Any) -> None:
    """After a step."""
    del run, rates


def test_several_students_learn_what_each_learns_alone() -> None:
    settings = PretrainSettings(steps=4, batch=4, drop_path=0.2, watch={"log_every": 2})
    ended: dict[str, dict[str, Tensor]] = {}
    for seeds in [(1, 2), (1,), (2,)]:
        run = run_of(settings, seeds)
        distil(run, settings, views_at=lambda step, _: batch_of(step), after_step=nothing)
        for student in run.students:
            tensors = student.tensors()
            before = ended.setdefault(student.size, tensors)
            assert all(torch.equal(before[name], tensors[name]) for name in before)
    assert len(ended) == 2


def test_microbatches_add_up_to_the_batch() -> None:
    """Of one class of views: with the same number of samples in each piece means of means are the mean."""
    settings = PretrainSettings(steps=4, batch=4, season={"mode": "off"}, watch={"log_every": 4}, optimizer={"clip": 1e9})

    def views_at(step: int, piece: int, pieces: int) -> ViewBatch:
        whole = batch_of(step, slots=0)
        share = slice(piece * 4 // pieces, (piece + 1) * 4 // pieces)
        return dataclasses.replace(whole, globals_=whole.globals_[:, share], locals_=tuple(p[:, share] for p in whole.locals_))

    tables = []
    for pieces in (1, 2):
        run = run_of(settings, (1,), pieces=pieces)
        distil(run, settings, views_at=lambda s, p, n=pieces: views_at(s, p, n), after_step=nothing)
        tables.append(run.students[0].table)
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("two_sizes")
def test_it_writes_every_student_with_the_teachers_licence(tiny: PretrainSettings, teacher: Path, tmp_path: Path) -> None:
    out = pretrain(distilled(tiny, teacher, "small"), tmp_path / "out")
    for folder, size, width in [(out, "nano", 128), (out / "students" / "small", "small", 64)]:
        assert load_own(folder).width == width
        card = read_json(folder / "backbone.json")["card"]
        assert (card["name"], card["parent"], card["distilled_from"]["name"]) == (f"cgeartheye-{size}", None, "big")
        assert card["licence"] == "CC0-1.0; CC-BY-NC-4.0"
        assert card["restricted_by"] == ["CC-BY-NC-4.0"]
        assert card["metrics"]["steps"] == 4
        assert "small_loss" not in card["metrics"]
        assert "Distilled from" in (folder / "MODEL_CARD.md").read_text()
        assert (folder / "training_names.txt").read_text() == "port/b.jpg\n"
    lines = lines_of(out)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert {f"{prefix}{name}" for prefix in ("", "small_") for name in (*PARTS, "grad_norm")} <= lines[-1].keys()
    assert {"probe_patch", "small_probe_patch"} <= lines[2].keys()
    assert load_step(out, 2).width == 128


@pytest.mark.usefixtures("two_sizes")
@pytest.mark.parametrize("at", [1, 2, 3])
def test_interrupted_after_any_step_it_ends_the_same(
    at: int, tiny: PretrainSettings, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = {"log_every": 3, "checkpoint_every": 1, "probe_every": 2}
    settings = distilled(tiny, teacher, "small", watch=watch, drop_path=0.2)
    whole = pretrain(settings, tmp_path / "whole")
    original = DistilWatch.__call__

    def stop(self: DistilWatch, run: Distilling, rates: Any) -> None:
        original(self, run, rates)
        if run.step == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(DistilWatch, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, tmp_path / "resumed")
    monkeypatch.setattr(DistilWatch, "__call__", original)
    pretrain(settings, tmp_path / "resumed")
    assert outputs_of(tmp_path / "resumed") == outputs_of(whole)
    assert lines_of(tmp_path / "resumed") == lines_of(whole)


def test_a_student_comes_close_to_its_teacher(tiny: PretrainSettings, tmp_path: Path) -> None:
    """A new linear map of its class tokens tells the teacher's of pictures that none has seen, of an untrained network's not."""
    save_backbone(tmp_path / "teacher", network(seed=7), {"name": "big", "licence": "CC0-1.0", "recipe": {}})
    watch = {"log_every": 20, "checkpoint_every": 60, "probe_every": 0}
    settings = distilled(tiny, tmp_path / "teacher", steps=60, batch=8, watch=watch, optimizer={"lr": 1e-3, "ema": (0.9, 1.0)})
    out = pretrain(settings, tmp_path / "out")
    lines = lines_of(out)
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    student, big = load_own(out).model, load_own(tmp_path / "teacher").model
    untrained = [build(student.config, seed=seed).eval() for seed in (settings.seed, 5)]
    assert explained(student, big) > max(explained(model, big) for model in untrained) + 0.2


@torch.no_grad()
def explained(model: VisionTransformer, teacher: VisionTransformer) -> float:
    """Share of the variance of the teacher's class tokens that a ridge regression explains on pictures it was not fitted on."""
    coarse = torch.rand(300, 3, 4, 4, generator=torch.Generator().manual_seed(10))
    pictures = F.interpolate(coarse, (24, 24), mode="bicubic").clamp(0, 1)
    x, y = (each(pictures).class_token.double() for each in (model, teacher))
    x = torch.cat([x, torch.ones(300, 1, dtype=x.dtype)], dim=1)
    fitted, judged = slice(0, 200), slice(200, 300)
    gram = x[fitted].T @ x[fitted] + 0.02 * torch.eye(x.shape[1], dtype=x.dtype)
    wrong = y[judged] - x[judged] @ torch.linalg.solve(gram, x[fitted].T @ y[fitted])
    return float(1 - wrong.square().sum() / (y[judged] - y[judged].mean(0)).square().sum())


def test_a_step_that_is_not_finite_is_left_out_and_three_end_the_run(
    tiny: PretrainSettings, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ViewMaker.__call__

    def spoil(broken: Callable[[int], bool]) -> None:
        def call(self: ViewMaker, step: int, piece: int) -> ViewBatch:
            views = original(self, step, piece)
            return dataclasses.replace(views, globals_=views.globals_ * float("nan")) if broken(step) else views

        monkeypatch.setattr(ViewMaker, "__call__", call)

    spoil(lambda step: step == 1)
    out = pretrain(distilled(tiny, teacher), tmp_path / "one")
    assert [line["skipped"] for line in lines_of(out)[1:]] == [0, 1, 0, 0]
    assert all(value.isfinite().all() for value in load_own(out).model.state_dict().values())
    spoil(lambda step: step >= 1)
    with pytest.raises(DataError, match="not finite in 3"):
        pretrain(distilled(tiny, teacher), tmp_path / "three")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"start": {"weights": "x"}}, "not both"),
        ({"phases": ({"steps": 2},)}, "no phases"),
        ({"shard": True}, "no shard"),
        ({"distil": {"students": ("small",)}}, "need a distil.teacher"),
        ({"distil": {"teacher": "x", "students": ("nano",)}}, "different sizes"),
        ({"distil": {"teacher": "x", "students": ("small", "small")}}, "different sizes"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        PretrainSettings.model_validate({"steps": 3, "distil": {"teacher": "x"}, **changes})


def test_another_patch_is_refused(tiny: PretrainSettings, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="patches of 8 px, but small has 14 px"):
        pretrain(distilled(tiny, teacher, "small"), tmp_path / "out")


def test_students_drop_no_paths_unless_told() -> None:
    assert PretrainSettings(backbone="large", distil={"teacher": "x"}).drop_path == 0.0
    assert PretrainSettings(backbone="large", distil={"teacher": "x"}, drop_path=0.2).drop_path == 0.2
