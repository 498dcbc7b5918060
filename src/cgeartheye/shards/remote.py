"""Bytes of shards that lie elsewhere: by HTTP range requests, or in a bucket."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import fsspec

from cgeartheye.errors import DataError, InputError, ResourceError
from cgeartheye.files import atomic_path
from cgeartheye.shards.format import INDEX_NAME, MANIFEST_NAME, SHARD_FOLDER
from cgeartheye.shards.sources import Source

TRIES: Final = 4
"""Times a request is made before its failure is told [ours]."""
PAUSE_S: Final = 0.2
"""Wait before the second try; it is four times as long before each further one [ours]."""
TIMEOUT_S: Final = 30.0
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_BLOCK: Final = 2**20

Result = TypeVar("Result")


class HttpShards:
    """Shards behind an HTTP server that answers range requests; one connection a thread, kept open.

    Args:
        base: URL of a folder, ``http://`` or ``https://``.

    Raises:
        InputError: if it is none.
    """

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
            raise InputError("is no plain http or https address", where=base, remedy="leave out names, passwords and queries")
        self._secure, self._host = parts.scheme == "https", parts.netloc
        self._base, self._path = base.rstrip("/"), parts.path.rstrip("/")
        self._open = threading.local()

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """Return bytes by one range request, tried again after a broken connection or a busy server's answer.

        Raises:
            DataError: if the server has no such shard, or serves no ranges or other bytes than were asked for.
            ResourceError: if it cannot be reached or stays busy.
        """
        headers = {"Range": f"bytes={offset}-{offset + length - 1}"}

        def once() -> bytes:
            with self._answer("GET", shard, headers) as answer:
                told = answer.getheader("Content-Range", "")
                if answer.status == 206 and told.startswith(f"bytes {offset}-") and (answer.length or 0) <= length:
                    return _read(answer, answer.length or 0)
                raise self._fault(shard, answer.status, told)

        return _tried(once, self.where(shard))

    def where(self, shard: str) -> str:
        """Return the URL of a shard."""
        return f"{self._base}/{quote(shard)}"

    def state(self, name: str) -> str:
        """Return what changes when a file changes, as the server tells it; raises as :meth:`read`."""

        def once() -> str:
            with self._answer("HEAD", name, {}) as answer:
                if answer.status != 200:
                    raise self._fault(name, answer.status, "")
                return " ".join(answer.getheader(key) or "" for key in ("ETag", "Last-Modified", "Content-Length"))

        return _tried(once, self.where(name))

    def fetch(self, name: str, target: Path) -> None:
        """Copy a whole file to ``target``, which appears whole or not at all; raises as :meth:`read`."""

        def once() -> None:
            with atomic_path(target) as temporary, temporary.open("wb") as handle, self._answer("GET", name, {}) as answer:
                if answer.status != 200:
                    raise self._fault(name, answer.status, "")
                while block := answer.read(_BLOCK):
                    handle.write(block)
                if answer.length:
                    raise ConnectionError(f"ended {answer.length} bytes too soon")

        _tried(once, self.where(name))

    @contextlib.contextmanager
    def _answer(self, method: str, name: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """Make a request; the connection is kept only if its answer was read to the end."""
        connection = self._connection()
        whole = False
        try:
            connection.request(method, f"{self._path}/{quote(name)}", headers=headers)
            answer = connection.getresponse()
            yield answer
            whole = answer.isclosed() or answer.length == 0
            answer.close()
        finally:
            if not whole:
                connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        """Return this thread's connection; a forked process makes its own, because two cannot share a socket."""
        mine = self._open.__dict__
        if mine.get("process") != os.getpid():
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            mine["process"], mine["connection"] = os.getpid(), kind(self._host, timeout=TIMEOUT_S)
        connection: http.client.HTTPConnection = mine["connection"]
        return connection

    def _fault(self, name: str, status: int, told: str) -> DataError | ConnectionError:
        """Return what to raise for an answer: a ConnectionError is tried again."""
        if status in _AGAIN:
            return ConnectionError(f"the server answered {status}")
        what = {
            200: "the server serves no byte ranges",
            206: f"the server sent other bytes than were asked for ({told or 'it does not say which'})",
            403: "the server does not give this file (403)",
            404: "this file is missing",
            416: "the file ends before this chip",
        }.get(status, f"the server answered {status}")
        return DataError(what, where=self.where(name), remedy="check the address and what lies there")


class BucketShards:
    """Shards of any file system that fsspec knows (``s3://``, ``gs://``, ``memory://`` ...).

    Args:
        base: URL of a folder.

    Raises:
        InputError: if fsspec does not know the protocol or lacks its package.
    """

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")
        try:
            self._files, self._path = fsspec.core.url_to_fs(self._base)
        except (ImportError, ValueError) as error:
            raise InputError(f"cannot be opened ({error})", where=base) from error

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """Return bytes by one ranged read; raises as :meth:`HttpShards.read`."""
        return _tried(
            lambda: bytes(self._files.cat_file(self._name(shard), start=offset, end=offset + length)), self.where(shard)
        )

    def where(self, shard: str) -> str:
        """Return the URL of a shard."""
        return f"{self._base}/{shard}"

    def state(self, name: str) -> str:
        """Return what changes when a file changes; raises as :meth:`read`."""
        return _tried(lambda: str(self._files.checksum(self._name(name))), self.where(name))

    def fetch(self, name: str, target: Path) -> None:
        """Copy a whole file, as :meth:`HttpShards.fetch` does."""

        def once() -> None:
            with atomic_path(target) as temporary:
                self._files.get_file(self._name(name), str(temporary))

        _tried(once, self.where(name))

    def _name(self, name: str) -> str:
        return f"{self._path}/{name}"


def remote(url: str) -> HttpShards | BucketShards:
    """Return the source of a URL."""
    return HttpShards(url) if url.startswith(("http://", "https://")) else BucketShards(url)


def fetch_index(url: str, folder: Path) -> tuple[Path, Source]:
    """Keep the index of a remote data set, and its manifest if it has one, and return the index with the source of the shards.

    They are kept in a place of their own for each state of the index, below ``folder``.

    Raises:
        InputError: if there is no index.
        ResourceError: if the server cannot be reached.
    """
    source = remote(url)
    try:
        state = source.state(INDEX_NAME)
        name = hashlib.sha256(f"{source.where(INDEX_NAME)} {state}".encode()).hexdigest()[:20]
        index = folder / f"remote-{name}" / INDEX_NAME
        if not index.exists():
            _fetch_manifest(source, index.parent)
            source.fetch(INDEX_NAME, index)
    except DataError as error:
        what = f"there is no {INDEX_NAME} here ({error.what})"
        raise InputError(what, where=url, remedy="give the address of a folder that cgeartheye curate wrote") from error
    return index, remote(f"{url.rstrip('/')}/{SHARD_FOLDER}")


def _fetch_manifest(source: HttpShards | BucketShards, folder: Path) -> None:
    """Keep the stage's manifest, by which the data are the same ones here and in a folder; many a data set has none."""
    target = folder / MANIFEST_NAME
    with contextlib.suppress(DataError):
        source.fetch(MANIFEST_NAME, target)
        if not isinstance(_json(target), dict):  # servers may answer anything for a file that is missing
            target.unlink()


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _read(answer: http.client.HTTPResponse, promised: int) -> bytes:
    """Read a body; asked for an amount, http.client returns less of it without a word when the connection breaks."""
    data = answer.read(promised)
    if len(data) < promised:
        raise ConnectionError(f"ended {promised - len(data)} bytes too soon")
    return data


def _tried(once: Callable[[], Result], where: str) -> Result:
    """Call ``once`` until it succeeds, at most :data:`TRIES` times."""
    fault: Any = None
    for number in range(TRIES):
        if number:
            time.sleep(PAUSE_S * 4 ** (number - 1))
        try:
            return once()
        except FileNotFoundError as error:
            raise DataError("this file is missing", where=where) from error
        except (OSError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}:
                raise
            fault = error
    raise ResourceError(
        f"cannot be read after {TRIES} tries ({type(fault).__name__}: {fault})",
        where=where,
        remedy="see whether the server can be reached, then repeat the command",
    )
