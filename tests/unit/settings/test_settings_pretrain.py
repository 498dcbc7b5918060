"""Defaults by size, what users may not ask for, and what decides identity."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from cgeartheye.settings.pretrain import PretrainSettings, ViewSettings


def test_nano_has_its_own_recipe_and_users_win() -> None:
    nano = PretrainSettings(local={"views": 6})
    assert (nano.views.global_px, nano.local.sizes_px, nano.local.views) == (48, (24,), 6)
    assert (nano.head.prototypes, nano.head.shared, nano.batch, nano.steps, nano.epochs) == (256, True, 32, 3000, None)
    assert nano.optimizer.lr == pytest.approx(5e-4)
    assert (nano.views.jitter.brightness, nano.views.jitter.channel_gain, nano.views.jitter.share) == (0.3, 0.15, 1.0)
    assert nano.season.size_px == 24


@pytest.mark.parametrize("size", ["small", "base", "large", "huge", "giant"])
def test_published_sizes_see_published_views(size: str) -> None:
    settings = PretrainSettings(backbone=size, batch=1024)
    assert (settings.views.global_px, settings.local.sizes_px, settings.local.views, settings.season.views) == (224, (98,), 8, 3)
    assert settings.head.prototypes is None  # by the number of chips
    assert settings.optimizer.ema == (0.992, 1.0)
    assert settings.optimizer.lr == pytest.approx(
        {"small": 1e-3, "base": 7e-4, "large": 3.5e-4, "huge": 2.5e-4, "giant": 2e-4}[size]
    )
    assert settings.epochs == 100


def test_resolved_settings_are_stable() -> None:
    once = PretrainSettings(season={"pair": "date"}, batch=16)
    again = PretrainSettings.model_validate(once.model_dump())
    assert again == once
    assert PretrainSettings.model_validate(json.loads(once.model_dump_json())) == once


def test_a_whole_section_in_python_is_taken_as_it_is() -> None:
    assert PretrainSettings(views=ViewSettings(turns=False)).views.global_px == 224


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 5, "epochs": 1.0},
        {"season": {"mode": "replace", "views": 5}},
        {"views": {"global_scale": (0.5, 0.2)}},
        {"masks": {"ratio": (0.1, 1.5)}},
        {"backbone": "tiny"},
        {"view": {}},
        {"head": {"prototypes": 1}},
        {"batch": 8, "microbatch": 3},
        {"local": {"sizes_px": ()}},
        {"local": {"sizes_px": (4,)}},
        {"views": {"blur": {"sigma_px": (2.0, 1.0)}}},
        {"phases": [{"backbone": "small"}]},
        {"phases": [{"steps": 5, "views": {"global": 96}}]},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PretrainSettings.model_validate(wrong)


def test_identity_leaves_out_what_never_changes_the_result() -> None:
    identity = PretrainSettings(cache_mb=5, decoders=7, device="cpu").identity()
    assert {"curated", "cache_mb", "decoders", "device", "threads"}.isdisjoint(identity)
    assert "checkpoint_every" not in identity["watch"]
    assert identity["views"]["global_px"] == 48


def test_a_later_phase_keeps_what_the_first_ended_with() -> None:
    given = {"backbone": "small", "batch": 1024, "epochs": 100}
    settings = PretrainSettings.model_validate(
        {**given, "phases": [{"epochs": 5, "batch": 512, "views": {"global_px": 518}, "local": {"sizes_px": (98, 126)}}]}
    )
    second = settings.phase(1)
    assert (second.epochs, second.batch, second.views.global_px, second.local.sizes_px) == (5, 512, 518, (98, 126))
    assert second.local.views == 8
    assert second.season.size_px == 126  # follows the local side
    assert second.optimizer.lr == pytest.approx(1e-4)
    assert second.optimizer.weight_decay == (0.2, 0.2)
    assert second.optimizer.ema == (0.999, 1.0)
    assert second.loss.teacher_temperature == (0.07, 0.07)
    assert settings.phase(0).phases == ()
    assert settings.phase(0).epochs == 100


def test_continuing_is_careful_by_default() -> None:
    settings = PretrainSettings(backbone="base", batch=256, start={"weights": "weights.pth"})
    assert settings.optimizer.lr == pytest.approx(2.5e-5)
    assert (settings.optimizer.end_lr, settings.optimizer.weight_decay, settings.optimizer.freeze_last) == (
        1.0,
        (0.04, 0.04),
        0.0,
    )
    assert PretrainSettings(backbone="base", start={"weights": "w.pth"}, optimizer={"lr": 1.0}).optimizer.lr == 1.0
