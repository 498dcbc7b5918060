"""The same pieces on a local Ray cluster of two nodes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cgeartheye.curation import curate
from cgeartheye.curation.pieces import Workers
from cgeartheye.errors import DataError, InputError, ResourceError
from cgeartheye.progress import SILENT
from cgeartheye.settings.curate import CurateSettings

Make = Callable[..., CurateSettings]
Results = Callable[[Path], dict[str, str]]
PORT = 26_379


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes of one core each, as two users' machines would start them."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--object-store-memory=80000000", "--block"]
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    folder = tmp_path_factory.mktemp("ray")
    head = [f"--port={PORT}", "--head", "--include-dashboard=false", "--dashboard-agent-listen-port=0", f"--temp-dir={folder}"]
    nodes = []
    try:
        for more in (head, [f"--address=127.0.0.1:{PORT}"]):
            with (folder / f"node{len(nodes)}.log").open("wb") as log:
                started = subprocess.Popen(
                    [*command, "--node-ip-address=127.0.0.1", *more],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            nodes.append(started)
            _wait_for(len(nodes))
        yield f"127.0.0.1:{PORT}"
    finally:
        for node in nodes[::-1]:
            os.killpg(node.pid, signal.SIGTERM)
            node.wait(60)


def _wait_for(nodes: int) -> None:
    """Return when so many nodes have joined, as another process sees them."""
    program = f"""
import time, ray
for _ in range(120):
    try:
        ray.init(address="127.0.0.1:{PORT}", log_to_driver=False, configure_logging=False)
        break
    except (ConnectionError, RuntimeError, ValueError):
        time.sleep(1)
while sum(node["Alive"] for node in ray.nodes()) < {nodes}:
    time.sleep(0.2)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=240, env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(tmp_path: Path, archive_settings: Make, address: str, results_of: Results) -> None:
    alone = curate(archive_settings(shard_mb=0.08), tmp_path / "alone")
    work = {"cluster": address, "piece_places": 8}
    spread = curate(archive_settings(shard_mb=0.08, work=work), tmp_path / "spread")
    assert results_of(spread) == results_of(alone)


def _note_node(path: Path) -> None:
    import ray

    path.write_text(ray.get_runtime_context().get_node_id())


def _refuse(path: Path) -> None:
    raise DataError("is broken", where=str(path), remedy="mend it")


@pytest.mark.slow
def test_both_nodes_work_and_a_fault_arrives_as_itself(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [Path(f"{number}.txt") for number in range(60)]  # relative: the nodes stand elsewhere
    with Workers(0, SILENT, cluster=address) as workers:
        workers.run(_note_node, made, lambda number: (made[number],), title="x")
        assert len({path.read_text() for path in made}) == 2
        absent = [tmp_path / "never"]
        with pytest.raises(DataError, match="mend it"):
            workers.run(_refuse, absent, lambda number: (absent[number],), title="x")


def test_no_cluster_at_the_address_is_told_as_such(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    made = [tmp_path / "never"]
    with Workers(0, SILENT, cluster="127.0.0.1:1") as workers, pytest.raises(ResourceError, match="no Ray cluster answers"):
        workers.run(_refuse, made, lambda number: (made[number],), title="x")


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cgeartheye.curation.cluster", None)
    made = [tmp_path / "never"]
    with Workers(0, SILENT, cluster="auto") as workers, pytest.raises(InputError, match=r"cgeartheye\[cluster\]"):
        workers.run(_refuse, made, lambda number: (made[number],), title="x")
