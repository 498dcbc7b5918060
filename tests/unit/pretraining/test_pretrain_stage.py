"""The stage as a whole, on twelve tiny places."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cgeartheye.errors import InputError, StaleStageError
from cgeartheye.files import read_json
from cgeartheye.pretraining import pretrain
from cgeartheye.pretraining.watch import Watch
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.weights.card import restricted
from cgeartheye.weights.store import load_own

TIMES = {"seconds", "cpu_seconds", "pictures_per_s", "pictures_per_cpu_s", "data_wait_share"}


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The log without what no two runs share."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def outputs_of(out: Path) -> dict[str, str]:
    manifest = read_json(out / "manifest.json")
    return {name: entry["sha256"] for name, entry in manifest["outputs"].items() if name != "metrics.jsonl"}


@pytest.fixture
def whole(tiny: PretrainSettings, tmp_path: Path) -> Path:
    return pretrain(tiny, tmp_path / "whole")


def test_it_writes_a_backbone_with_its_provenance(whole: Path, tiny: PretrainSettings) -> None:
    backbone = load_own(whole)
    assert backbone.width == 128
    card = read_json(whole / "backbone.json")["card"]
    assert card["data"]["places"] == 12
    assert card["data"]["chips"] == 36
    assert card["data"]["places_with_pairs"] == 8
    assert (card["licence"], card["gsd_m"], card["init_seed"]) == ("CC0-1.0", 0.75, 0)
    assert card["recipe"]["season"]["size_px"] == 16  # resolved, not left to the reader
    assert card["recipe"]["optimizer"]["lr"] == pytest.approx(5e-4 * (4 / 32) ** 0.5)
    assert 0.2 < backbone.model.config.mean[0] < 0.8
    text = (whole / "MODEL_CARD.md").read_text()
    assert "12 places, 36 chips" in text
    assert not (whole / "training_names.txt").exists()  # georeferenced places have no class folders
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == ["step_00000002", "step_00000004"]
    assert read_json(whole / "manifest.json")["summary"]["steps"] == 4


def test_the_log_has_a_line_a_step_and_the_untrained_probe_first(whole: Path) -> None:
    lines = lines_of(whole)
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert [line["step"] for line in lines if "probe_patch" in line] == [0, 2, 4]
    assert lines[0]["probe_labels"] == "land_cover"
    for line in lines[1:]:
        assert {
            "loss",
            "loss_global",
            "loss_local",
            "loss_season",
            "loss_patch",
            "koleo",
            "teacher_entropy",
            "rank",
        } <= line.keys()
        assert line["loss_season"] > 0


def test_the_same_call_changes_nothing_and_another_is_refused(whole: Path, tiny: PretrainSettings) -> None:
    before = (whole / "manifest.json").read_bytes()
    assert pretrain(tiny, whole) == whole
    assert (whole / "manifest.json").read_bytes() == before
    with pytest.raises(StaleStageError, match=r"settings\.batch"):
        pretrain(PretrainSettings.model_validate({**tiny.model_dump(), "batch": 5}), whole)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_interrupted_after_any_step_it_ends_the_same(
    at: int, whole: Path, tiny: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Watch.__call__

    def stop(self: Watch, training: Any, terms: Any, rates: Any) -> None:
        original(self, training, terms, rates)
        if training.state.step == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny, tmp_path / "resumed")
    monkeypatch.undo()
    pretrain(tiny, tmp_path / "resumed")
    assert outputs_of(tmp_path / "resumed") == outputs_of(whole)
    assert lines_of(tmp_path / "resumed") == lines_of(whole)


def test_killed_it_ends_the_same(whole: Path, tiny: PretrainSettings, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    code = (
        "import json, sys; from pathlib import Path; from cgeartheye.pretraining import pretrain;"
        "from cgeartheye.settings.pretrain import PretrainSettings;"
        "pretrain(PretrainSettings.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tiny.model_dump_json(), str(out)], start_new_session=True)
    checkpoints = out / "checkpoints"
    while process.poll() is None and not (checkpoints.exists() and any(checkpoints.glob("step_*"))):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    pretrain(tiny, out)
    assert outputs_of(out) == outputs_of(whole)
    assert lines_of(out) == lines_of(whole)


def test_memory_and_speed_settings_never_change_the_backbone(whole: Path, tiny: PretrainSettings, tmp_path: Path) -> None:
    other = PretrainSettings.model_validate({**tiny.model_dump(), "cache_mb": 0, "decoders": 3})
    pretrain(other, tmp_path / "other")
    assert (tmp_path / "other" / "backbone.safetensors").read_bytes() == (whole / "backbone.safetensors").read_bytes()


def test_another_seed_makes_another_backbone(whole: Path, tiny: PretrainSettings, tmp_path: Path) -> None:
    pretrain(PretrainSettings.model_validate({**tiny.model_dump(), "seed": 1}), tmp_path / "other")
    assert (tmp_path / "other" / "backbone.safetensors").read_bytes() != (whole / "backbone.safetensors").read_bytes()


@pytest.mark.parametrize("season", [{"mode": "replace", "views": 2}, {"mode": "off"}, {"pair": "date", "size_px": 24}])
def test_the_other_readings_of_the_season(season: dict[str, Any], tiny: PretrainSettings, tmp_path: Path) -> None:
    settings = PretrainSettings.model_validate({**tiny.model_dump(), "steps": 1, "season": season})
    lines = lines_of(pretrain(settings, tmp_path / "out"))
    assert (lines[-1]["loss_season"] > 0) == (season.get("mode") != "off")


def test_small_runs_the_same_loop(tiny: PretrainSettings, tmp_path: Path) -> None:
    settings = PretrainSettings(
        curated=tiny.curated,
        backbone="small",
        threads=1,
        steps=2,
        batch=2,
        views={"global_px": 56},
        local={"sizes_px": (28,), "views": 2},
        head={"prototypes": 64, "hidden": 32, "bottleneck": 16},
        watch={"log_every": 1, "probe_every": 0},
    )
    out = pretrain(settings, tmp_path / "small")
    assert load_own(out).model.config.depth == 12
    lines = lines_of(out)
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["skipped"] == 0 for line in lines)


def test_plain_pictures_leave_their_names(shards: Callable[..., Path], place: Callable[..., Any], tmp_path: Path) -> None:
    named = [
        place(f"a-{k}", (0,), seed=k, label=kind, scene=f"{kind}/{k:02d}.jpg") for k, kind in enumerate(["lake", "field", "lake"])
    ]
    settings = PretrainSettings(
        curated=shards(named),
        threads=1,
        epochs=1,
        batch=2,
        views={"global_px": 24},
        local={"sizes_px": (16,), "views": 1},
        watch={"probe_every": 0},
    )
    out = pretrain(settings, tmp_path / "out")
    assert (out / "training_names.txt").read_text().splitlines() == ["field/01.jpg", "lake/00.jpg", "lake/02.jpg"]
    assert read_json(out / "manifest.json")["summary"]["steps"] == 2  # three places in batches of two


def test_restricted_licences_are_marked() -> None:
    names = ["CC-BY-4.0", "CC-BY-NC-SA-4.0", "research", "CC0-1.0", "free for scientific use", "public domain", "non-commercial"]
    assert restricted(names) == ["CC-BY-NC-SA-4.0", "research", "free for scientific use", "non-commercial"]


def test_no_shards_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="curated"):
        pretrain(PretrainSettings(), tmp_path / "out")
