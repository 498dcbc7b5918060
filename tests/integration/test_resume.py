"""SIGKILL at a moment of each stage, then the same command: the same outputs as an uninterrupted run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cgeartheye.files import fingerprint, read_json
from cgeartheye.run import STAGES

pytestmark = pytest.mark.slow

DEMO = ["demo", "--quick", "--size-km", "0.96", "--seed", "5"]
SHARES = (0.15, 0.5, 0.85)
"""Moments of the kills, as shares of the seconds that the uninterrupted stage took."""


def _start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cgeartheye", *arguments, "--quiet"]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)


def _run(*arguments: str) -> None:
    process = _start(*arguments)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def _kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill the process and its children; False if it had ended before."""
    if process.poll() is not None:
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return True


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "demo"
    _run(*DEMO, "--out", str(out))
    return out


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_killed_stage_ends_as_an_uninterrupted_one(stage: str, uninterrupted: Path, tmp_path: Path) -> None:
    """In the same place, because a catalogue says where its scenes lie; the whole one is kept aside meanwhile."""
    folder, project = uninterrupted / STAGES[stage].folder, str(uninterrupted / "project.yaml")
    whole = read_json(folder / "manifest.json")
    shutil.move(folder, tmp_path / "whole")
    try:
        killed = 0
        for share in SHARES:
            process = _start(stage, "--project", project)
            while process.poll() is None and not (folder / "stage.json").exists():
                time.sleep(0.01)
            time.sleep(share * whole["seconds"])
            killed += _kill(process)
        _run(stage, "--project", project)
        assert read_json(folder / "manifest.json")["outputs"] == whole["outputs"]
        assert killed >= 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(tmp_path / "whole", folder)  # its manifest tells the times that the report shows


def test_a_killed_rendering_ends_as_an_uninterrupted_one(uninterrupted: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    clock = time.monotonic()
    _run(*DEMO, "--world-only", "--out", str(tmp_path / "timing"))
    seconds = time.monotonic() - clock
    for share in SHARES:
        process = _start(*DEMO, "--world-only", "--out", str(out))
        time.sleep(share * seconds)
        _kill(process)
    _run(*DEMO, "--world-only", "--out", str(out))
    assert fingerprint(out / "world") == fingerprint(uninterrupted / "world")
