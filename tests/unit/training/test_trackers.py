"""Log lines in TensorBoard's and W&B's own files, read back with their own readers."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cgeartheye.errors import ResourceError
from cgeartheye.settings.base import StageSettings
from cgeartheye.stage import open_stage, read_manifest
from cgeartheye.training.trackers import trackers


def test_nothing_asked_for_writes_nothing(tmp_path: Path) -> None:
    tracker = trackers(tmp_path, tensorboard=False, wandb=None, name="run", step=0)
    tracker.write({"step": 1, "loss": 2.0})
    tracker.close()
    assert list(tmp_path.iterdir()) == []


def _scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_a_resumed_run_shows_no_step_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for begin, end in ((0, 5), (3, 6)):  # killed after step 5, its checkpoint is of step 3
        tracker = trackers(tmp_path, tensorboard=True, wandb=None, name="run", step=begin)
        if begin == 0:
            tracker.write({"step": 0, "probe_class": 0.25})
        for step in range(begin + 1, end + 1):
            tracker.write({"step": step, "loss": 10.0 * begin + step, "none": None, "nan": math.nan, "words": "label"})
        tracker.close()
    assert _scalars(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 34.0), (5, 35.0), (6, 36.0)]
    assert _scalars(tmp_path, "probe_class") == [(0, 0.25)]


def test_what_is_no_number_is_no_curve(tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = trackers(tmp_path, tensorboard=True, wandb=None, name="run", step=0)
    tracker.write({"step": 1, "loss": 1.0, "none": None, "infinite": math.inf, "probe_labels": "label"})
    tracker.close()
    events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert events.Tags()["tensors"] == ["probe_labels/text_summary"]


@pytest.mark.parametrize(
    ("module", "asked"),
    [("torch.utils.tensorboard", {"tensorboard": True, "wandb": None}), ("wandb", {"tensorboard": False, "wandb": "project"})],
)
def test_a_missing_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, asked: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as Python itself marks what cannot be imported
    with pytest.raises(ResourceError, match=r"cgeartheye\[track\]") as raised:
        trackers(tmp_path, **asked, name="run", step=0)
    assert raised.value.exit_code == 4


class _Wandb(SimpleNamespace):
    """The part of W&B's interface that is called, keeping what it is told."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__(told=[], fails=fails, Error=RuntimeError, Settings=dict)

    def init(self, **given: Any) -> _Wandb:
        if self.fails:
            raise RuntimeError("not logged in")
        self.told.append(given)
        return self

    def log(self, values: dict[str, Any], *, step: int) -> None:
        self.told.append((step, values))

    def finish(self) -> None:
        self.told.append("finished")


def test_a_folder_is_one_run_of_wandb_and_tells_nothing_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    for step in (0, 4):
        tracker = trackers(tmp_path, tensorboard=False, wandb="project", name="nano", step=step)
        tracker.write({"step": step + 1, "loss": 1.5, "gone": None})
        tracker.close()
    first, line, end, second = library.told[:4]
    assert (first["project"], first["name"], first["resume"]) == ("project", "nano", "allow")
    assert first["id"] == second["id"]
    assert (line, end) == ((1, {"loss": 1.5}), "finished")
    assert all(first["settings"][key] for key in ("disable_git", "disable_code", "x_disable_stats", "x_disable_machine_info"))
    other = trackers(tmp_path / "other", tensorboard=False, wandb="project", name="nano", step=0)
    other.close()
    assert library.told[-2]["id"] != first["id"]


def test_wandb_that_cannot_begin_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", _Wandb(fails=True))
    with pytest.raises(ResourceError, match="WANDB_MODE=offline"):
        trackers(tmp_path, tensorboard=False, wandb="project", name="nano", step=0)


def test_wandb_itself_takes_lines_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = trackers(tmp_path, tensorboard=False, wandb="project", name="nano", step=0)
    tracker.write({"step": 1, "loss": 1.5, "probe_labels": "label"})
    tracker.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))


def test_what_trackers_write_is_no_result_of_a_stage(tmp_path: Path) -> None:
    with open_stage(tmp_path / "run", "pretrain", StageSettings(), {}) as stage:
        for name in ("tensorboard/events.1", "wandb/run_id.txt", "kept/tensorboard/file"):
            (stage.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (stage.folder / name).write_text(json.dumps(name))
        stage.finish({})
    assert list(read_manifest(tmp_path / "run")["outputs"]) == ["kept/tensorboard/file"]
