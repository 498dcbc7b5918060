"""Pre-training from an address: the same samples as from the folder, at most one request each, resumed exactly."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from synthetic_places import place

from cgeartheye.errors import InputError, ResourceError
from cgeartheye.files import read_json, write_json
from cgeartheye.pretraining import pretrain
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.watch import Watch
from cgeartheye.run import STAGES
from cgeartheye.settings.pretrain import REMOTE_WINDOW, PretrainSettings
from cgeartheye.settings.pretrain_sections import SeasonSettings
from cgeartheye.settings.project import load_project
from cgeartheye.shards import remote, spans
from cgeartheye.shards.reader import ShardReader, index_folder
from cgeartheye.shards.writer import write_shards

TIMES = {"seconds", "cpu_seconds", "pictures_per_s", "pictures_per_cpu_s", "data_wait_share"}


class Server(ThreadingHTTPServer):
    """Serves a folder with byte ranges on loopback, and counts what is asked for."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.busy = folder, False
        self.ranges: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def translate_path(self, path: str) -> str:
        return str(self.server.folder / path.lstrip("/"))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        if not asked:
            return super().do_GET()
        self.server.ranges.append(f"{self.path} {asked}")
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        data = Path(self.translate_path(self.path)).read_bytes()[first : last + 1]
        self.send_response(503 if self.server.busy else 206)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/*")
        self.end_headers()
        self.wfile.write(data)
        return None


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fourteen places in seven shards, with a manifest as curate writes it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)
    made = [place(f"p{k}", (1, 2, 3, 4)[: 1 + k % 4], seed=k, land_cover=["forest", "water"][k % 2]) for k in range(14)]
    folder = write_shards(tmp_path / "curated", made, shard_bytes=35_000)
    assert ShardReader(folder).shard_sizes().tolist() == [3, 2, 2, 2, 2, 2, 1]
    write_json(folder / "manifest.json", {"stage": "curate", "outputs": {"index.parquet": {"sha256": "x"}}, "summary": {}})
    return folder


@pytest.fixture
def server(stored: Path) -> Iterator[Server]:
    with Server(stored) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join()


Maker = Callable[..., PretrainSettings]


@pytest.fixture
def settings_of(tiny: PretrainSettings) -> Maker:
    """A function that makes settings of four steps."""
    return lambda curated, **more: PretrainSettings.model_validate({**tiny.model_dump(), "curated": curated, "window": 2, **more})


def result_of(out: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The log without times, and the hashes of what was written."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    outputs = read_json(out / "manifest.json")["outputs"]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines], {k: v["sha256"] for k, v in outputs.items()}


def stopped(monkeypatch: pytest.MonkeyPatch, settings: PretrainSettings, out: Path, *, after: int) -> None:
    original = Watch.__call__

    def stop(self: Watch, training: Any, taught: Any, rates: Any) -> None:
        original(self, training, taught, rates)
        if training.state.step == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Watch, "__call__", stop)
        pretrain(settings, out)


def test_an_address_teaches_what_the_folder_teaches(settings_of: Maker, stored: Path, server: Server, tmp_path: Path) -> None:
    """Chips, losses, weights and card are the same to the last bit; only the order decides."""
    near, far = (pretrain(settings_of(where), tmp_path / name) for where, name in ((stored, "near"), (server.url, "far")))
    assert result_of(far) == result_of(near)
    shuffled = pretrain(settings_of(stored, window=None), tmp_path / "shuffled")
    assert result_of(shuffled)[0] != result_of(near)[0]


@pytest.mark.parametrize("begun", ["folder", "address"])
def test_a_run_is_resumed_from_an_address(
    settings_of: Maker, begun: str, stored: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data are known by their manifest, so that a run may even move from the folder to its address."""
    whole = pretrain(settings_of(server.url), tmp_path / "whole")
    stopped(monkeypatch, settings_of(stored if begun == "folder" else server.url), tmp_path / "resumed", after=3)
    assert result_of(pretrain(settings_of(server.url), tmp_path / "resumed")) == result_of(whole)


def test_a_server_that_fails_ends_the_run_which_goes_on_later(
    settings_of: Maker, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = pretrain(settings_of(server.url), tmp_path / "whole")
    monkeypatch.setattr(spans, "SPAN_BYTES", 0)
    stopped(monkeypatch, settings_of(server.url), tmp_path / "resumed", after=2)
    server.busy = True
    with pytest.raises(ResourceError, match="cannot be read after 4 tries"):
        pretrain(settings_of(server.url), tmp_path / "resumed")
    server.busy = False
    assert result_of(pretrain(settings_of(server.url), tmp_path / "resumed")) == result_of(whole)


@pytest.mark.parametrize("decoders", [1, 4])
def test_a_sample_takes_one_request_at_most(
    settings_of: Maker, decoders: int, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where next to nothing of what was fetched is kept: a place's dates are decoded one after the other."""
    monkeypatch.setattr(spans, "SPAN_BYTES", 30_000)
    quiet = {"watch": {"probe_every": 0}, "normalise": "imagenet", "cache_mb": 0}
    pretrain(settings_of(server.url, decoders=decoders, steps=6, **quiet), tmp_path / "out")
    assert 0 < len(server.ranges) <= (6 + 1) * 4  # the step after the last is decoded ahead of its time


def test_an_address_has_windows_of_its_own(stored: Path) -> None:
    far = PretrainSettings(curated="https://host/curated")
    assert (far.curated, far.window) == ("https://host/curated", REMOTE_WINDOW)
    assert PretrainSettings(curated=stored).window is None
    assert "curated" not in far.identity()
    assert far.phase(0).window == REMOTE_WINDOW
    assert PretrainSettings(curated="s3://b/c", window=3, phases=({"steps": 2},), steps=1).phase(1).window == 3
    project = load_project(None, ["pretrain={}", 'pretrain.curated="memory://curated"'])
    assert getattr(project, "pretrain").curated == "memory://curated"  # noqa: B009 - a field that the project makes
    assert "pretrain" in STAGES


def test_the_places_of_samples_follow_the_windows(stored: Path) -> None:
    """An epoch has every place once, two shards at a time; the same places are named and drawn."""
    reader = ShardReader(stored)
    places = Places(reader, SeasonSettings(), window=2)
    samples = np.arange(2 * len(places))
    names = places.names(samples, seed=5)
    assert sorted(names[: len(places)]) == sorted(names[len(places) :]) == sorted(reader.place(i) for i in range(len(reader)))
    (drawn,) = places.draw(samples[None], seed=5, slots=4)
    assert [reader.place(int(places.place_of_row[row])) for row in drawn.anchors] == names
    shard_of = np.repeat(np.arange(len(reader.shard_sizes())), reader.shard_sizes())
    numbers = {reader.place(i): int(shard_of[i]) for i in range(len(reader))}
    most = [open_at_once([numbers[name] for name in places.names(samples[: len(places)], seed=seed)]) for seed in range(6)]
    assert max(most) == 2


def open_at_once(shards: list[int]) -> int:
    """The greatest number of shards that were read before and will be read again."""
    ends = [(shards.index(shard), len(shards) - shards[::-1].index(shard)) for shard in set(shards)]
    return max(sum(first <= at < end for first, end in ends) for at in range(len(shards)))


def test_a_bucket_is_an_address_too(settings_of: Maker, stored: Path, tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    files.put(str(stored), "/curated", recursive=True)
    try:
        far, near = (pretrain(settings_of(w), tmp_path / n) for w, n in (("memory://curated", "far"), (stored, "near")))
        assert result_of(far) == result_of(near)
    finally:
        files.rm("/curated", recursive=True)


def test_no_data_set_at_an_address(settings_of: Maker, server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no index\.parquet here"):
        pretrain(settings_of(server.url + "/elsewhere"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, b"<html>not found</html>", b"[1]"])
def test_a_manifest_that_is_none_is_not_kept(content: bytes | None, stored: Path, server: Server) -> None:
    manifest = stored / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_bytes(content)
    assert [path.name for path in index_folder(server.url).iterdir()] == ["index.parquet"]
