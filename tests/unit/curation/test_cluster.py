"""The same pieces on a local Ray cluster of two nodes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
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


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two nodes of one core each, started as two users' machines would be; the address that the first one prints."""
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--object-store-memory=80000000", "--block"]
    command += ["--node-ip-address=127.0.0.1"]  # nobody else's machine may join
    path = os.pathsep.join(filter(None, [*sys.path, str(Path(__file__).parent)]))
    # Ray starts workers 15 steps nicer than itself, which hardly run at all on a busy machine
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "PYTHONPATH": path}
    folder = tmp_path_factory.mktemp("ray")
    ports = [
        f"--{name}={port}"
        for name, port in zip(("port", "ray-client-server-port", "dashboard-port"), _free_ports(3), strict=True)
    ]
    head = ["--head", *ports, "--include-dashboard=false", f"--temp-dir={folder}"]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        said = _start_node([*command, *head], folder / "head.log", environment, nodes)
        found = re.search(r"--address='([^']+)'", said)
        assert found, said
        _start_node([*command, f"--address={found[1]}"], folder / "second.log", environment, nodes)
        yield found[1]
    finally:
        for node in nodes[::-1]:
            with contextlib.suppress(ProcessLookupError):  # the node could not start
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def _free_ports(number: int) -> list[int]:
    """Return ports that nobody uses, because other clusters may run on the machine that runs this."""
    with contextlib.ExitStack() as closing:
        sockets = [closing.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _start_node(command: list[str], log: Path, environment: dict[str, str], nodes: list[subprocess.Popen[bytes]]) -> str:
    """Start a node in a session of its own; return what it printed until it was up."""
    with log.open("wb") as handle:
        nodes.append(subprocess.Popen(command, env=environment, stdout=handle, stderr=handle, start_new_session=True))
    for _ in range(1200):
        if "Ray runtime started" in (said := log.read_text()) and "terminate the Ray runtime" in said:
            return said
        if nodes[-1].poll() is not None:
            break
        time.sleep(0.1)
    pytest.skip(f"Ray starts no node on this machine: {' '.join(log.read_text().split())[-300:]}")


@pytest.fixture(autouse=True)
def _not_for_ever() -> Iterator[None]:
    """End a test that waits for a cluster which does not come."""

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(tmp_path: Path, archive_settings: Make, address: str, results_of: Results) -> None:
    alone = curate(archive_settings(shard_mb=0.08), tmp_path / "alone")
    work = {"cluster": address, "piece_places": 8}
    spread = curate(archive_settings(shard_mb=0.08, work=work), tmp_path / "spread")
    assert results_of(spread) == results_of(alone)


def _note_node(path: Path) -> None:
    context = sys.modules["ray"].get_runtime_context()
    path.write_text(context.get_node_id())
    time.sleep(0.2)  # long enough that the other node takes some


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
