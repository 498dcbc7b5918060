"""SIGKILL at random moments of every step of `curate`, one after the other in one folder; then the same command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cgeartheye.files import read_json
from cgeartheye.seeding import stream

pytestmark = pytest.mark.slow

DEMO = ["demo", "--quick", "--size-km", "0.96", "--seed", "5", "--world-only"]
_AT_MOST_S = 0.4
"""A kill comes at a random moment of so many seconds after its step was seen to have begun."""


def _count(pattern: str, least: int) -> Callable[[Path], bool]:
    return lambda out: len(list(out.glob(pattern))) >= least


STEPS: dict[str, Callable[[Path], bool]] = {
    "begin": _count("stage.json", 1),
    "cells": _count(".work/cells/*", 1),
    "draw": _count("cells.parquet", 1),
    "chips": _count(".work/chips/notes/*.json", 2),
    "features": _count(".work/features/*.npy", 2),
    "selection": _count("rejected.parquet", 1),
    "shards": _count("shards/*.tar", 1),
    "tables": _count("index.parquet", 1),
    "report": _count("balance.parquet", 1),
}


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cgeartheye", *arguments, "--quiet"]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def _run(*arguments: str) -> None:
    process = _start(*arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def _kill_in(step: str, out: Path, wait_s: float, *command: str) -> bool:
    """Start the command and kill it and its workers after a step was seen; False if it had ended before."""
    process = _start(*command)
    while process.poll() is None and not STEPS[step](out):
        time.sleep(0.002)
    time.sleep(wait_s)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project file over a rendered archive, with its catalogue and one uninterrupted `curate` put aside."""
    root = tmp_path_factory.mktemp("world")
    _run(*DEMO, "--out", str(root))
    layers = root / "world" / "layers"
    curate = {
        "land_cover": str(layers / "land_cover.tif"),
        "elevation": str(layers / "elevation.tif"),
        "regions": str(layers / "regions.geojson"),
        "cell_m": 96,
        "chip_px": 96,
        "shard_mb": 0.5,
        "clusters": {"keep_share": 0.6},
        "work": {"piece_places": 6},
    }
    given = {
        "name": "killed",
        "out": str(root / "out"),
        "catalog": {"scenes": [str(root / "world" / "scenes")]},
        "curate": curate,
    }
    (root / "project.yaml").write_text(yaml.safe_dump(given))
    _run("catalog", "--project", str(root / "project.yaml"))
    _run("curate", "--project", str(root / "project.yaml"))
    shutil.move(root / "out" / "curated", root / "whole")
    return root / "project.yaml"


@pytest.mark.parametrize(("seed", "workers"), [(0, 0), (1, 2), (2, 3)])
def test_killed_in_every_step_it_ends_with_the_same_bytes(project: Path, seed: int, workers: int) -> None:
    out = project.parent / "out" / "curated"
    shutil.rmtree(out, ignore_errors=True)
    random = stream(seed, "moments of kills")
    command = ("curate", "--project", str(project), "--set", f"curate.workers={workers}")
    killed = [_kill_in(step, out, float(random.uniform(0, _AT_MOST_S)), *command) for step in STEPS]
    _run(*command)
    assert sum(killed) >= 5, killed
    assert read_json(out / "manifest.json")["outputs"] == read_json(project.parent / "whole" / "manifest.json")["outputs"]
    assert not list(out.rglob(".*.tmp*"))


def test_parts_killed_and_repeated_in_any_order_end_with_the_same_bytes(project: Path) -> None:
    out = project.parent / "out" / "curated"
    shutil.rmtree(out, ignore_errors=True)
    for part, step in ((2, "cells"), (3, "chips"), (1, "features"), (3, None), (2, None), (1, None)):
        command = ("curate", "--project", str(project), "--part", f"{part}/3")
        if step is None:
            _run(*command)
        else:
            _kill_in(step, out, 0.1, *command)
    _run("curate", "--project", str(project))
    assert read_json(out / "manifest.json")["outputs"] == read_json(project.parent / "whole" / "manifest.json")["outputs"]
