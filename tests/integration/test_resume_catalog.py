"""SIGKILL at random moments of every step of `catalog`, with and without processes of its own; then the same command."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from cgeartheye.catalog.pieces import PIECE
from cgeartheye.files import read_json
from cgeartheye.seeding import stream

pytestmark = pytest.mark.slow

FILES = 5 * PIECE // 2
_AT_MOST_S = 0.3


def _count(pattern: str, least: int) -> Callable[[Path], bool]:
    return lambda out: len(list(out.glob(pattern))) >= least


STEPS: dict[str, Callable[[Path], bool]] = {
    "begin": _count("stage.json", 1),
    "first piece": _count(".work/*.parquet", 1),
    "second piece": _count(".work/*.json", 2),
    "end": _count("catalog.parquet", 1),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pieces of tiny scenes, one in fifty of them without a date, and their catalogue made in one go."""
    folder = tmp_path_factory.mktemp("many") / "archive"
    folder.mkdir()
    options = {"width": 32, "height": 32, "count": 3, "dtype": "uint8", "crs": "EPSG:32632", "driver": "GTiff"}
    for number in range(FILES):
        name = f"s{number:04d}.tif" if number % 50 == 7 else f"s{number:04d}_20230105.tif"
        place = Affine(0.75, 0, 500_000 + 24 * number, 0, -0.75, 5_000_000)
        with rasterio.open(folder / name, "w", transform=place, photometric="RGB", **options) as file:
            file.write(np.random.default_rng(number).integers(0, 255, (3, 32, 32)).astype(np.uint8))
    process = _start(folder, folder.parent / "whole", 0)
    assert process.wait() == 0
    return folder


def _start(archive: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cgeartheye", "catalog", "--scenes", str(archive), "--out", str(out), "--quiet"]
    return subprocess.Popen([*command, "--set", f"catalog.workers={workers}"], start_new_session=True, stderr=subprocess.PIPE)


def _kill_in(step: str, out: Path, wait_s: float, process: subprocess.Popen[bytes]) -> bool:
    """Kill a run and its workers after a step was seen; False if it had ended before."""
    while process.poll() is None and not STEPS[step](out / "catalog"):
        time.sleep(0.001)
    time.sleep(wait_s)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_killed_in_every_step_it_ends_with_the_same_bytes(archive: Path, workers: int) -> None:
    out = archive.parent / f"killed{workers}"
    random = stream(workers, "moments of kills")
    killed = [_kill_in(step, out, float(random.uniform(0, _AT_MOST_S)), _start(archive, out, workers)) for step in STEPS]
    process = _start(archive, out, workers)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert sum(killed) >= 2, killed
    outputs = read_json(out / "catalog" / "manifest.json")["outputs"]
    assert outputs == read_json(archive.parent / "whole" / "catalog" / "manifest.json")["outputs"]
    assert not list(out.rglob(".*"))
    shutil.rmtree(out)


def test_a_worker_that_is_killed_ends_the_run_with_a_remedy_and_its_pieces_stay(archive: Path) -> None:
    out = archive.parent / "worker"
    process = _start(archive, out, 2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not _workers(children):
        time.sleep(0.001)
    for worker in _workers(children):
        os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 4, errors.decode()
    assert b"set fewer catalog.workers" in errors
    process = _start(archive, out, 0)
    assert process.wait() == 0
    outputs = read_json(out / "catalog" / "manifest.json")["outputs"]
    assert outputs == read_json(archive.parent / "whole" / "catalog" / "manifest.json")["outputs"]


def _workers(children: Path) -> list[int]:
    """Processes of the pool, without the one that looks after shared resources."""
    try:
        found = [int(pid) for pid in children.read_text().split()]
        return [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []
