"""`plan` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from cgeartheye.cli.main import build_app
from cgeartheye.errors import InputError

TINY = {
    "steps": 6,
    "batch": 4,
    "chip_px": None,
    "views": {"global_px": 24},
    "local": {"sizes_px": [16], "views": 2},
    "head": {"prototypes": 16, "hidden": 32, "bottleneck": 16},
    "watch": {"probe_every": 0, "checkpoint_every": 5},
    "threads": 1,
    "device": "cpu",
}


def call(*arguments: str) -> str:
    result = CliRunner().invoke(build_app(), list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "field"
    folder.mkdir(parents=True)
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def project(folder: Path, **sections: Any) -> str:
    path = folder / "project.yaml"
    path.write_text(yaml.safe_dump({"out": str(folder / "out"), **sections}))
    return str(path)


def test_everything_is_planned_before_anything_is_made(tmp_path: Path, pictures: Path) -> None:
    file = project(
        tmp_path,
        curate={"source": "images", "images": str(pictures)},
        pretrain=TINY,
        evaluate={"datasets": [{"name": "own", "root": str(pictures)}]},
    )
    told = json.loads(call("plan", "-p", file, "--json"))
    assert list(told["stages"]) == ["curate", "pretrain", "evaluate"]
    assert told["stages"]["curate"]["images"] == told["stages"]["evaluate"]["images"] == 6
    assert told["stages"]["curate"]["input_bytes"] == sum(path.stat().st_size for path in pictures.rglob("*.png"))
    (phase,) = told["pretrain"]["phases"]
    assert told["pretrain"]["places"] == 6
    assert (phase["steps"], phase["samples"], phase["slots"]) == (6, 24, 0)
    assert told["pretrain"]["seconds"] is None
    assert not (tmp_path / "out").exists()
    table = call("plan", "-p", file)
    assert "to do" in table
    assert "GFLOP a step" in table
    assert "as the settings promise" in table


def test_steps_are_timed_and_leave_nothing(tmp_path: Path, pictures: Path) -> None:
    file = project(tmp_path, curate={"source": "images", "images": str(pictures)}, pretrain=TINY)
    with pytest.raises(InputError, match="curated shards"):
        call("plan", "-p", file, "--calibrate")
    call("curate", "-p", file, "-q")
    before = sorted(tmp_path.rglob("*"))
    ballast = bytearray(b"x") * 2**30  # the steps are made in another process, to which this one's memory is nothing
    told = json.loads(call("plan", "-p", file, "--calibrate", "--json"))
    del ballast
    assert sorted(tmp_path.rglob("*")) == before
    assert told["stages"]["curate"]["state"] == "done"
    (phase,), (measured,) = told["pretrain"]["phases"], told["measured"]
    assert phase["seconds_a_step"] == measured["seconds_a_step"] > 0
    assert told["stages"]["pretrain"]["seconds"] == pytest.approx(6 * phase["seconds_a_step"])
    assert 0.5 < phase["memory_bytes"] / measured["peak_bytes"] < 2
    assert told["flops_a_second"] > 0


def test_unknown_places_are_said_to_be_unknown(tmp_path: Path) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    file = project(tmp_path, catalog={"scenes": [str(scenes)]}, curate={}, pretrain=TINY)
    told = json.loads(call("plan", "-p", file, "--json"))
    assert told["pretrain"] is None
    assert "unknown" in told["stages"]["pretrain"]["note"]
    promised = json.loads(call("plan", "-p", file, "--json", "--set", "curate.places=500"))
    assert promised["pretrain"]["places"] == 500
    with pytest.raises(InputError, match="no stage"):
        call("plan", "-p", project(tmp_path))
