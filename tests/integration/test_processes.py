"""Several processes against one: the same losses and the same network, sharded or not; elastic resume; a process that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cgeartheye.models.sizes import SIZES, build
from cgeartheye.shards.writer import write_shards
from cgeartheye.weights.store import save_backbone

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "pretraining"))
from synthetic_places import place

WORKER = Path(__file__).parent / "workers" / "twenty_steps.py"


def launch(count: int, *arguments: str) -> list[str]:
    """The command that starts ``count`` processes of a script or module."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", *arguments]


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=300)


def steps(tmp_path: Path, name: str, count: int, **choices: Any) -> dict[str, Any]:
    out = tmp_path / name
    arguments = [str(WORKER), str(out), json.dumps(choices)]
    done = run(launch(count, *arguments) if count > 1 else [sys.executable, *arguments])
    assert done.returncode == 0, done.stderr[-3000:]
    return {"losses": json.loads((out / "losses.json").read_text()), "features": load_file(out / "features.safetensors")}


def same(one: dict[str, Any], other: dict[str, Any], *, losses: float, outputs: float) -> None:
    assert len(one["losses"]) == len(other["losses"]) == 20
    for name in one["losses"][0]:
        assert [row[name] for row in other["losses"]] == pytest.approx([row[name] for row in one["losses"]], rel=losses), name
    for name, value in one["features"].items():
        difference = (other["features"][name] - value).norm() / value.norm()
        assert difference < outputs, (name, float(difference))


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["sinkhorn", "centring"])
def test_two_processes_equal_one_in_double_precision(tmp_path: Path, targets: str) -> None:
    one = steps(tmp_path, "one", 1, dtype="float64", targets=targets)
    two = steps(tmp_path, "two", 2, dtype="float64", targets=targets)
    same(one, two, losses=1e-9, outputs=1e-9)


def test_two_processes_and_shards_equal_one_in_single_precision(tmp_path: Path) -> None:
    one = steps(tmp_path, "one", 1, dtype="float32")
    for name, choices in (("two", {}), ("sharded", {"shard": True})):
        same(one, steps(tmp_path, name, 2, dtype="float32", **choices), losses=1e-5, outputs=1e-4)


@pytest.mark.slow
def test_an_anchor_is_the_same_in_two_processes_and_sharded(tmp_path: Path) -> None:
    gram = {"weight": 2.0, "after": 0.2, "refresh": 5}
    one = steps(tmp_path, "one", 1, dtype="float64", gram=gram)
    assert [row["loss_gram"] > 0 for row in one["losses"]] == [False] * 4 + [True] * 16
    for name, choices in (("two", {}), ("sharded", {"shard": True})):
        same(one, steps(tmp_path, name, 2, dtype="float64", gram=gram, **choices), losses=1e-9, outputs=1e-9)


@pytest.mark.slow
def test_shards_equal_the_whole_in_double_precision(tmp_path: Path) -> None:
    one = steps(tmp_path, "one", 1, dtype="float64")
    same(one, steps(tmp_path, "sharded", 2, dtype="float64", shard=True), losses=1e-9, outputs=1e-9)


@pytest.mark.slow
def test_what_only_one_process_balances_is_another_objective(tmp_path: Path) -> None:
    """The comparison above sees reductions that are left out."""
    one = steps(tmp_path, "one", 1, dtype="float64")
    for fault in ("targets", "gradients"):
        with pytest.raises(AssertionError):
            same(one, steps(tmp_path, fault, 2, dtype="float64", without=fault), losses=1e-9, outputs=1e-9)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project file over twelve tiny places, four samples a step in two microbatches."""
    many = [place(f"p{k}", (1, 2, 3, 4), seed=k, land_cover=["forest", "water"][k % 2]) for k in range(12)]
    write_shards(tmp_path / "curated", many)
    path = tmp_path / "project.yaml"
    path.write_text(
        json.dumps(
            {
                "schema_version": 1,
                "name": "processes",
                "pretrain": {
                    "curated": str(tmp_path / "curated"),
                    "threads": 1,
                    "steps": 9,
                    "batch": 4,
                    "microbatch": 2,
                    "views": {"global_px": 24},
                    "local": {"sizes_px": [16], "views": 2},
                    "head": {"prototypes": 16, "hidden": 32, "bottleneck": 16},
                    "watch": {"log_every": 1, "checkpoint_every": 3, "probe_every": 3, "keep": 9},
                },
            }
        )
    )
    return path


def pretrain(project: Path, out: Path, count: int, **options: Any) -> subprocess.CompletedProcess[str]:
    arguments = ["-m", "cgeartheye", "pretrain", "-p", str(project), "--out", str(out)]
    arguments += [f"--set=pretrain.{key}={json.dumps(value)}" for key, value in options.items()]
    return run(launch(count, *arguments) if count > 1 else [sys.executable, *arguments])


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "pretrained" / "metrics.jsonl").read_text().splitlines()]


def cut(whole: Path, at: int) -> None:
    """Bring a finished folder back to where it was when it had made ``at`` steps and was killed."""
    stage = whole / "pretrained"
    manifest = json.loads((stage / "manifest.json").read_text())
    (stage / "manifest.json").unlink()
    (stage / "stage.json").write_text(
        json.dumps({k: manifest[k] for k in ("schema_version", "stage", "settings", "inputs", "seconds")})
    )
    for checkpoint in (stage / "checkpoints").iterdir():
        if int(checkpoint.name.removeprefix("step_")) > at:
            subprocess.run(["rm", "-r", str(checkpoint)], check=True)


@pytest.mark.slow
def test_students_of_a_trained_network_learn_the_same_on_two_processes(project: Path, tmp_path: Path) -> None:
    card = {"name": "big", "licence": "CC0-1.0", "parent": None, "recipe": {}}
    save_backbone(tmp_path / "teacher", build(SIZES["nano"], seed=7), card)
    distil = {"teacher": str(tmp_path / "teacher")}
    done = [pretrain(project, tmp_path / str(count), count, distil=distil) for count in (1, 2)]
    assert [each.returncode for each in done] == [0, 0], done
    assert "2 processes" in (tmp_path / "2" / "pretrained" / "run.log").read_text() + done[1].stderr
    expected = lines(tmp_path / "1")
    cut(tmp_path / "1", 3)
    assert pretrain(project, tmp_path / "1", 2, distil=distil).returncode == 0
    for out in ("1", "2"):
        for line, other in zip(lines(tmp_path / out), expected, strict=True):
            assert line["step"] == other["step"]
            for name in {"loss", "loss_season", "loss_patch", "grad_norm"} & other.keys():  # none at step 0
                assert line[name] == pytest.approx(other[name], rel=1e-4)
        assert len(expected) == 10


@pytest.mark.parametrize("sharded", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_one_then_two_then_one_process_see_the_same_batches(project: Path, tmp_path: Path, sharded: bool) -> None:
    options = {"shard": True} if sharded else {}
    done = pretrain(project, tmp_path / "whole", 1)
    assert done.returncode == 0, done.stderr
    expected = lines(tmp_path / "whole")
    cut(tmp_path / "whole", 3)
    done = pretrain(project, tmp_path / "whole", 2, **options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed at step 3" in done.stderr + done.stdout
    cut(tmp_path / "whole", 6)
    assert pretrain(project, tmp_path / "whole", 1).returncode == 0
    found = lines(tmp_path / "whole")
    assert [line["step"] for line in found] == [line["step"] for line in expected] == list(range(10))
    for name in ("loss", "loss_local", "loss_season", "loss_patch"):  # other batches would differ by percents
        assert [line[name] for line in found[1:]] == pytest.approx([line[name] for line in expected[1:]], rel=1e-4)
    features = [load_file(path / "pretrained" / "backbone.safetensors") for path in (tmp_path / "whole",)]
    assert all(torch.isfinite(value).all() for value in features[0].values())


def test_three_processes_cannot_share_two_microbatches(project: Path, tmp_path: Path) -> None:
    done = pretrain(project, tmp_path / "out", 3)
    assert done.returncode != 0
    assert "2 microbatches a step cannot be shared equally by 3 processes" in done.stderr


@pytest.mark.slow
def test_a_process_that_dies_stops_the_run_and_the_same_command_goes_on(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["-m", "cgeartheye", "pretrain", "-p", str(project), "--out", str(out), "--set=pretrain.steps=400"]
    launched = subprocess.Popen(
        launch(2, *arguments),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    checkpoints = out / "pretrained" / "checkpoints"
    while launched.poll() is None and not list(checkpoints.glob("step_*")):
        time.sleep(0.05)
    children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, told = launched.communicate(timeout=120)
    assert launched.returncode != 0
    assert "SIGKILL" in told or "Signal 9" in told
    resumed = run([sys.executable, *arguments])
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed at step" in resumed.stderr + resumed.stdout
    assert lines(out)[-1]["step"] == 400
