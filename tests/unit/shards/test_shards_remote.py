from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import fsspec
import numpy as np
import pytest
from PIL import Image

from cgeartheye.errors import DataError, InputError, ResourceError
from cgeartheye.pretraining.chips import Chips
from cgeartheye.shards import remote, spans
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.reader import ShardReader
from cgeartheye.shards.remote import TRIES, HttpShards
from cgeartheye.shards.sampler import WindowOrder, sample_index
from cgeartheye.shards.writer import write_shards


class Server(ThreadingHTTPServer):
    """Serves a folder with byte ranges on loopback; ``faults`` are what it does to the next requests instead."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests: list[tuple[str, str, str | None]] = []
        self.faults: list[str] = []
        self.always: str | None = None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def chips(self) -> list[str]:
        """The paths of requests for bytes of shards."""
        return [path for method, path, _ in self.requests if method == "GET" and path.endswith(".tar")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement of its head
    server: Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.command, self.path, asked))
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        path = self.server.folder / unquote(self.path).lstrip("/")
        if fault and fault.isdigit():
            return self._send(int(fault), b"", None)
        if not path.is_file():
            return self._send(404, b"no such file", None)
        if not asked or fault == "no ranges":
            return self._send(200, path.read_bytes() if with_body else b"", None, length=path.stat().st_size)
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        with path.open("rb") as handle:
            handle.seek(first)
            data = handle.read(last + 1 - first)
        if fault == "hang up":
            self.close_connection = True
            return None
        if fault == "other bytes":
            first += 1
        if fault == "flipped":
            data = bytes([data[0] ^ 1]) + data[1:]
        if fault == "too long":
            data += b"more"
        self._send(206, data, f"bytes {first}-{first + len(data) - 1}/*", half=fault == "half")
        return None

    def _send(self, status: int, data: bytes, ranged: str | None, *, length: int | None = None, half: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.send_header("ETag", "x")
        if ranged:
            self.send_header("Content-Range", ranged)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        if half:
            self.close_connection = True


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)


def coded(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def made(folder: Path, places: int, *, dates: int = 4, shard_bytes: int = 30_000) -> Path:
    found = [Place(f"p{i}", tuple(Chip(coded(dates * i + j), {}) for j in range(dates)), {}) for i in range(places)]
    return write_shards(folder, found, shard_bytes=shard_bytes)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("thousand"), 2000, dates=2, shard_bytes=25_000)


@pytest.mark.parametrize("window", [None, 8])
def test_a_thousand_shards_in_shuffled_order_take_one_request_a_sample(thousand: Path, window: int | None) -> None:
    folder = thousand
    local = ShardReader(folder)
    sizes = local.shard_sizes()
    assert len(sizes) >= 1000
    t = np.arange(len(local))
    order = sample_index(3, t, len(local)) if window is None else WindowOrder(sizes, window).index(3, t)
    with serving(folder) as server:
        far = ShardReader(server.url)
        assert len(far) == len(local)
        for i in order.tolist():
            assert far.read_place(i) == local.read_place(i)
        assert len(server.chips()) == len(order)
        assert len(set(server.chips())) == len(sizes)


def test_threads_that_ask_for_dates_of_places_share_requests(tmp_path: Path) -> None:
    """As pre-training reads: by row, several threads, dates of a place at different moments."""
    folder = made(tmp_path / "curated", 30)
    local = ShardReader(folder)
    with serving(folder) as server:
        far = ShardReader(server.url)
        rows = np.random.default_rng(0).permutation(120)
        places = np.repeat(np.arange(30), 4)
        chips = Chips(far, places, shrink_px=None, cache_mb=0, decoders=8)
        pictures = chips.fetch(rows)
        chips.close()
        assert all(np.array_equal(picture.pixels, local.decode_row(row)) for row, picture in zip(rows, pictures, strict=True))
        assert len(server.chips()) == 30


def test_what_is_kept_of_remote_places_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "curated", 12)
    monkeypatch.setattr(spans, "SPAN_BYTES", 6000)
    with serving(folder) as server:
        far = ShardReader(server.url)
        for _ in range(2):
            for row in range(48):
                far.read_row(row)
        assert far._spans is not None
        assert far._spans._bytes <= 6000
        assert len(server.chips()) == 24  # each round asks anew, but once a place


@pytest.mark.parametrize("fault", ["503", "429", "hang up", "half"])
@pytest.mark.parametrize("times", [1, TRIES - 1])
def test_passing_faults_are_tried_again(tmp_path: Path, fault: str, times: int) -> None:
    folder = made(tmp_path / "curated", 3)
    with serving(folder) as server:
        far = ShardReader(server.url)
        before = len(server.requests)
        server.faults = [fault] * times
        assert far.read_place(1) == ShardReader(folder).read_place(1)
        assert len(server.requests) == before + times + 1


@pytest.mark.parametrize("fault", ["503", "hang up", "half"])
def test_lasting_faults_end_after_a_few_tries_and_are_named(tmp_path: Path, fault: str) -> None:
    folder = made(tmp_path / "curated", 3)
    with serving(folder) as server:
        far = ShardReader(server.url)
        before = len(server.requests)
        server.always = fault
        with pytest.raises(ResourceError, match=r"/shards/000000\.tar: cannot be read after 4 tries"):
            far.read_row(0)
        assert len(server.requests) == before + TRIES
        server.always = None
        assert far.read_row(0) == ShardReader(folder).read_row(0)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("404", "missing"),
        ("403", "does not give"),
        ("416", "ends before"),
        ("301", "answered 301"),
        ("no ranges", "no byte ranges"),
        ("other bytes", "other bytes"),
        ("too long", "other bytes"),
        ("flipped", r"p0\.d0\.jpg does not match its checksum"),
    ],
)
def test_faults_that_no_retry_mends_are_told_at_once(tmp_path: Path, fault: str, told: str) -> None:
    folder = made(tmp_path / "curated", 3)
    with serving(folder) as server:
        far = ShardReader(server.url)
        before = len(server.requests)
        server.faults = [fault]
        with pytest.raises(DataError, match=rf"http://127.*/shards/000000\.tar.*{told}"):
            far.read_row(0)
        assert len(server.requests) == before + 1
        assert far.read_row(0) == ShardReader(folder).read_row(0)


def test_a_shorter_shard_is_found(tmp_path: Path) -> None:
    folder = made(tmp_path / "curated", 3)
    with serving(folder) as server:
        far = ShardReader(server.url)
        path = folder / "shards" / "000000.tar"
        path.write_bytes(path.read_bytes()[:900])
        with pytest.raises(DataError, match=r"000000\.tar.*checksum"):
            far.read_place(0)


def test_the_index_is_fetched_once(tmp_path: Path) -> None:
    folder = made(tmp_path / "curated", 3)
    with serving(folder) as server:
        for _ in range(3):
            ShardReader(server.url + "/")
        assert [method for method, path, _ in server.requests if path == "/index.parquet"].count("GET") == 1
        server.faults = ["", "", "half"]
        (tmp_path / "user").rename(tmp_path / "moved")
        assert len(ShardReader(server.url)) == 3
    with pytest.raises(ResourceError, match="cannot be read after 4 tries"):
        ShardReader(server.url)


def test_no_index_no_reader(tmp_path: Path) -> None:
    with serving(tmp_path) as server, pytest.raises(InputError, match=r"there is no index\.parquet here"):
        ShardReader(server.url)


@pytest.mark.parametrize("url", ["http://", "http://name:password@host/x", "http://host/x?token=1"])
def test_addresses_with_secrets_or_without_a_host_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="no plain http"):
        HttpShards(url)


def test_buckets_are_read_by_ranges() -> None:
    files = fsspec.filesystem("memory")
    with fsspec.open("memory://bucket/probe", "wb") as handle:
        handle.write(b"x")
    try:
        source = remote.remote("memory://bucket")
        files.pipe("/bucket/a.tar", bytes(range(200)))
        assert source.read("a.tar", 10, 5) == bytes(range(10, 15))
        with pytest.raises(DataError, match=r"memory://bucket/b\.tar.*missing"):
            source.read("b.tar", 0, 1)
    finally:
        files.rm("/bucket", recursive=True)
    with pytest.raises(InputError, match="cannot be opened"):
        remote.remote("nosuchprotocol://bucket")


def test_a_curated_folder_in_a_bucket(tmp_path: Path) -> None:
    folder = made(tmp_path / "curated", 5)
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/curated", recursive=True)
    try:
        far, local = ShardReader("memory://curated"), ShardReader(folder)
        assert [far.read_place(i) for i in range(5)] == [local.read_place(i) for i in range(5)]
        assert far.dates(2) == local.dates(2)
    finally:
        files.rm("/curated", recursive=True)


def test_forked_processes_and_threads_read_right(tmp_path: Path) -> None:
    folder = made(tmp_path / "curated", 20)
    expected = [hashlib.sha256(b"".join(ShardReader(folder).read_place(i))).hexdigest() for i in range(20)]
    with serving(folder) as server:
        far = ShardReader(server.url)
        far.read_place(0)  # a connection that a fork would share

        def digests(_: int) -> list[str]:
            return [hashlib.sha256(b"".join(far.read_place(i))).hexdigest() for i in range(20)]

        child = os.fork()
        if not child:
            os._exit(0 if digests(0) == expected else 1)
        assert digests(0) == expected
        assert os.waitpid(child, 0)[1] == 0
        with ThreadPoolExecutor(4) as pool:
            assert all(found == expected for found in pool.map(digests, range(4)))
