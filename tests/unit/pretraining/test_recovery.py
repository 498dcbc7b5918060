"""What a run does when steps cannot be made, when it continues from weights, and when it has two phases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic_places import place

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import read_json
from cgeartheye.pretraining import pretrain, stage
from cgeartheye.pretraining.batch import ViewBatch
from cgeartheye.pretraining.probe import Probe
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.pretraining.watch import Watch
from cgeartheye.progress import Progress
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.writer import write_shards
from cgeartheye.weights.store import load_own


class Heard(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def changed(settings: PretrainSettings, **changes: Any) -> PretrainSettings:
    return PretrainSettings.model_validate({**settings.model_dump(), **changes})


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def break_steps(monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    """Make the views of steps for which ``broken(maker, step)`` is true undefined."""
    original = ViewMaker.__call__

    def call(self: ViewMaker, step: int, piece: int) -> ViewBatch:
        views = original(self, step, piece)
        return replace(views, globals_=views.globals_ * float("nan")) if broken(self, step) else views

    monkeypatch.setattr(ViewMaker, "__call__", call)


def test_one_broken_step_is_left_out_named_and_kept_as_evidence(
    tiny: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(monkeypatch, lambda _, step: step == 2)
    heard = Heard()
    out = pretrain(changed(tiny, steps=5), tmp_path / "out", progress=heard)
    assert read_json(out / "manifest.json")["summary"]["skipped"] == 1
    (evidence,) = read_json(out / "evidence" / "step_00000002.json")["steps"]
    assert evidence["step"] == 2
    assert evidence["values"]["loss"] == "nan"
    assert len(evidence["places"]) == tiny.batch
    assert all(name[0] in "ps" for name in evidence["places"])
    assert any("left out: 2" in line for line in heard.lines)
    assert all(torch.isfinite(value).all() for value in load_own(out).model.state_dict().values())


def test_after_repeated_ones_it_goes_back_with_half_the_rate(
    tiny: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the weights were at fault: the steps work once the run has gone back."""
    calls: list[int] = []

    def broken(_: ViewMaker, step: int) -> bool:
        calls.append(step)
        return step in {5, 6, 7} and calls.count(step) == 1

    break_steps(monkeypatch, broken)
    heard = Heard()
    settings = changed(tiny, steps=10, watch={**tiny.watch.model_dump(), "checkpoint_every": 2, "keep": 5})
    out = pretrain(settings, tmp_path / "out", progress=heard)
    assert any("back to step 4 at 0.5 of the learning rate" in line for line in heard.lines)
    lines = lines_of(out)
    assert [line["step"] for line in lines] == list(range(11))  # none twice
    assert [line["rollbacks"] for line in lines[1:]] == [0] * 4 + [1] * 6
    rates = {line["step"]: line["lr"] for line in lines[1:]}
    whole = lines_of(pretrain(settings, tmp_path / "whole"))  # whose steps work, as each has been asked for before
    assert [rates[k] / whole[k]["lr"] for k in range(1, 11)] == pytest.approx([1] * 4 + [0.5] * 6)


def test_it_gives_up_with_the_evidence_when_going_back_does_not_help(
    tiny: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(monkeypatch, lambda _, step: step >= 5)
    with pytest.raises(DataError, match="not finite again and again") as caught:
        pretrain(changed(tiny, steps=20), tmp_path / "out")
    assert "evidence" in str(caught.value)
    assert (tmp_path / "out" / "checkpoints").is_dir()
    monkeypatch.undo()
    pretrain(changed(tiny, steps=20), tmp_path / "out")  # mended, it goes on


@pytest.fixture
def parent(tiny: PretrainSettings, tmp_path: Path) -> Path:
    return pretrain(tiny, tmp_path / "parent")


def test_it_continues_from_weights_and_carries_their_licence(tiny: PretrainSettings, parent: Path, tmp_path: Path) -> None:
    card = json.loads((parent / "backbone.json").read_text())
    card["card"]["licence"] = "CC-BY-NC-4.0"
    (parent / "backbone.json").write_text(json.dumps(card))
    settings = changed(tiny, start={"weights": parent, "heads_only": 0.5, "ramp": 0.25, "guard": None}, optimizer={}, steps=4)
    heard = Heard()
    out = pretrain(settings, tmp_path / "out", progress=heard)
    found = json.loads((out / "backbone.json").read_text())["card"]
    assert "CC-BY-NC-4.0" in found["licence"]
    assert found["restricted_by"]
    assert found["parent"]["sha256"]
    assert any("not for commercial use" in line for line in heard.lines)
    lines = lines_of(out)
    assert lines[0]["probe_patch"] == pytest.approx(lines_of(parent)[-1]["probe_patch"], abs=0.05)  # it begins as the parent
    again = changed(settings, seed=1)
    with pytest.raises(Exception, match="seed"):
        pretrain(again, tmp_path / "out")


def test_a_run_that_spoils_its_parent_is_stopped(
    tiny: PretrainSettings, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, measured = Probe.measure, []

    def measure(self: Probe, backbone: Any) -> dict[str, float | str]:
        measured.append(1)
        found = original(self, backbone)
        return {**found, "probe_class": 0.9 / len(measured), "probe_patch": 0.9 / len(measured)}

    monkeypatch.setattr(Probe, "measure", measure)
    settings = changed(tiny, start={"weights": parent, "heads_only": 0.0, "ramp": 0.0, "guard": 0.05}, optimizer={}, steps=8)
    with pytest.raises(DataError, match="below the parent's") as caught:
        pretrain(settings, tmp_path / "out")
    assert "start.guard" in str(caught.value)
    assert lines_of(tmp_path / "out")[-1]["step"] == 4  # the second probe in a row


def test_weights_of_another_size_are_refused_before_anything_is_written(
    tiny: PretrainSettings, parent: Path, tmp_path: Path
) -> None:
    settings = PretrainSettings(curated=tiny.curated, backbone="small", steps=1, batch=4, start={"weights": parent})
    with pytest.raises(InputError, match="nano"):
        pretrain(settings, tmp_path / "out")


PHASES = ({"steps": 4, "batch": 2, "views": {"global_px": 40}, "local": {"sizes_px": (24, 16), "views": 3}},)


def test_two_phases_are_one_run(tiny: PretrainSettings, tmp_path: Path) -> None:
    out = pretrain(changed(tiny, phases=PHASES), tmp_path / "out")
    lines = lines_of(out)
    assert [(line["step"], line["phase"]) for line in lines] == [(k, int(k > 4)) for k in range(9)]
    assert [line["samples"] for line in lines] == [0, 4, 8, 12, 16, 18, 20, 22, 24]
    assert lines[-1]["lr"] < lines[4]["lr"]
    config = load_own(out).model.config
    assert config.position_px == 40  # 24 before
    assert json.loads((out / "backbone.json").read_text())["card"]["recipe"]["phases"]


@pytest.mark.parametrize("at", [3, 4, 5, 7])
def test_interrupted_in_any_phase_it_ends_the_same(
    at: int, tiny: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = changed(tiny, phases=PHASES)
    whole = pretrain(settings, tmp_path / "whole")
    original = Watch.__call__

    def stop(self: Watch, training: Any, taught: Any, rates: Any) -> None:
        original(self, training, taught, rates)
        if self._position.first_step + training.state.step == at:
            raise KeyboardInterrupt

    monkeypatch.setattr(Watch, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, tmp_path / "resumed")
    monkeypatch.undo()
    resumed = pretrain(settings, tmp_path / "resumed")
    assert (resumed / "backbone.safetensors").read_bytes() == (whole / "backbone.safetensors").read_bytes()


def test_the_best_probe_is_kept(tiny: PretrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.5, 0.9, 0.3, 0.2, 0.1, 0.1, 0.1])
    original = Probe.measure
    monkeypatch.setattr(Probe, "measure", lambda self, net: {**original(self, net), "probe_patch": next(scores)})
    watch = {**tiny.watch.model_dump(), "keep": 1, "checkpoint_every": 3, "probe_every": 1}
    out = pretrain(changed(tiny, steps=6, watch=watch), tmp_path / "out")
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["step_00000002", "step_00000006"]


def test_tensorboard_is_written_when_asked(tiny: PretrainSettings, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    watch = {**tiny.watch.model_dump(), "tensorboard": True}
    out = pretrain(changed(tiny, watch=watch), tmp_path / "out")
    assert list((out / "tensorboard").glob("events*"))


def test_a_vanished_shard_is_named_and_the_run_goes_on(tiny: PretrainSettings, tmp_path: Path) -> None:
    many = [place(f"p{k}", (1, 2), seed=k, land_cover="forest") for k in range(12)]
    folder = write_shards(tmp_path / "split", many, shard_bytes=6000)
    shards = sorted((folder / "shards").glob("*.tar"))
    assert len(shards) > 2
    shards[1].unlink()
    out = pretrain(changed(tiny, curated=folder), tmp_path / "out")
    left_out = read_json(out / "left_out.json")
    assert left_out
    assert all("missing" in entry["reason"] for entry in left_out)


def test_the_stage_keeps_no_second_way_to_train() -> None:
    assert stage.pretrain is pretrain
