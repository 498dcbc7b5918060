"""A copy of the index's positions as arrays that processes map and share, so that a large index opens at once.

It is a hidden folder of ``.npy`` files beside the index, named by what the index is; where that folder may not be written, in the
user's cache. It may be removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.shards.format import INDEX_SCHEMA, POSITION_COLUMNS, SCHEMA_VERSION
from cgeartheye.shards.positions import ARRAYS, Gathered, Positions, gather

_LOG = logging.getLogger(__name__)

MAPPED_FROM: Final = 2**18
"""Chips from which an index is mapped rather than read: below, reading takes less than 0.2 s and 10 MB [ours]."""
_BATCH: Final = 2**17
_LAYOUT: Final = 1
"""Raised when the arrays change, so that copies of older releases are not used."""
_PREFIX: Final = ".positions-"


def open_positions(path: Path) -> Positions:
    """Return the positions of an index file: mapped from their copy, which is made first if the index is large.

    Raises:
        DataError: if the file cannot be read, has another schema version, lacks columns or is torn.
    """
    name = _PREFIX + identity(path)
    for folder in (path.parent, cache_folder()):
        if (found := _mapped(folder / name, path)) is not None:
            return found
    index = open_index(path)
    if index.metadata.num_rows < MAPPED_FROM:
        gathered = Gathered()
        return gathered.positions(gather(_batches(index, path), gathered, where=str(path)))
    for folder in (path.parent, cache_folder()):
        if _copied(index, path, folder / name) and (found := _mapped(folder / name, path)) is not None:
            return found
    _LOG.warning("%s: neither its folder nor the user's cache may be written; every process keeps its own copy in memory", path)
    gathered = Gathered()
    return gathered.positions(gather(_batches(index, path), gathered, where=str(path)))


def cache_folder() -> Path:
    """Return the user's cache of this package; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cgeartheye"


def identity(path: Path) -> str:
    """Return 20 hexadecimal digits that change with the index: hash of its size, time and footer.

    The footer of a Parquet file holds extremes, sizes and offsets of every column's chunks.

    Raises:
        DataError: if it cannot be read or is no Parquet file.
    """
    try:
        with path.open("rb") as handle:
            stat = os.fstat(handle.fileno())
            handle.seek(max(0, stat.st_size - 8))
            tail = handle.read(8)
            handle.seek(max(0, stat.st_size - 8 - int.from_bytes(tail[:4], "little")))
            footer = handle.read() if tail[4:] == b"PAR1" else None
    except OSError as error:
        raise unreadable(path, error) from error
    if footer is None:
        raise unreadable(path, "it is no Parquet file, or cut short")
    told = f"{_LAYOUT} {stat.st_size} {stat.st_mtime_ns} ".encode()
    return hashlib.sha256(told + footer).hexdigest()[:20]


def open_index(path: Path) -> pq.ParquetFile:
    """Open an index file and check its version and columns; raises DataError as :func:`open_positions`."""
    try:
        index = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error
    version = (index.schema_arrow.metadata or {}).get(b"schema_version", b"absent").decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise DataError(f"schema_version {version!r} is not known to this release", where=str(path))
    if missing := {*POSITION_COLUMNS, *DESCRIBED} - set(index.schema_arrow.names):
        raise DataError(f"lacks the columns {', '.join(sorted(missing))}", where=str(path), remedy="curate again")
    return index


DESCRIBED: Final = ("date", "year", "quarter", "scene", "label")
"""Columns that describe a chip and are read only where they are asked for."""


def cast(table: pa.Table) -> pa.Table:
    """Return the known columns of an index in the types of :data:`cgeartheye.shards.format.INDEX_SCHEMA`."""
    fields = [INDEX_SCHEMA.field(name) for name in table.column_names if name in INDEX_SCHEMA.names]
    return table.select([field.name for field in fields]).cast(pa.schema(fields))


def unreadable(path: Path, why: object) -> DataError:
    """Return the error of an index file that cannot be read."""
    return DataError(f"cannot be read as an index ({why})", where=str(path), remedy="curate again")


def _batches(index: pq.ParquetFile, path: Path) -> Iterator[pa.RecordBatch]:
    try:
        for batch in index.iter_batches(_BATCH, columns=list(POSITION_COLUMNS), use_threads=False):
            yield from cast(pa.Table.from_batches([batch])).combine_chunks().to_batches()
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


class _Files:
    """A sink of ``.npy`` files whose lengths are known at the end."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, BinaryIO] = {name: (folder / f"{name}.npy").open("wb") for name in ARRAYS}
        self._counts = dict.fromkeys(ARRAYS, 0)
        for name in ARRAYS:
            self._head(name)

    def add(self, name: str, values: NDArray[np.generic]) -> None:
        """Append (n,) values to the array of this name."""
        self._files[name].write(np.ascontiguousarray(values, dtype=ARRAYS[name]).data)
        self._counts[name] += len(values)

    def close(self) -> None:
        """Write the lengths and sync; always closes the files."""
        try:
            for name, handle in self._files.items():
                handle.seek(0)
                self._head(name)
                handle.flush()
                os.fsync(handle.fileno())
        finally:
            for handle in self._files.values():
                handle.close()

    def _head(self, name: str) -> None:
        told = {"descr": npy.dtype_to_descr(ARRAYS[name]), "fortran_order": False, "shape": (self._counts[name],)}
        npy.write_array_header_1_0(self._files[name], told)  # NumPy leaves room for the length to grow


def _copied(index: pq.ParquetFile, path: Path, target: Path) -> bool:
    """Write the copy, whole or not at all; False where the folder may not be written or has no room."""
    work = target.with_name(f".tmp-{uuid.uuid4().hex[:8]}{target.name}")
    try:
        work.mkdir(parents=True)
        files = _Files(work)
        try:
            shards = gather(_batches(index, path), files, where=str(path))
        finally:
            files.close()
        (work / "shards.json").write_text(json.dumps(shards))
        _drop_older(target)
        with contextlib.suppress(OSError):  # another process was first: its copy is the same
            work.rename(target)
    except OSError as error:
        _LOG.info("no mapped copy in %s (%s)", target.parent, error)
        return False
    finally:
        shutil.rmtree(work, ignore_errors=True)
        pa.default_memory_pool().release_unused()  # Arrow keeps what decoding took, hundreds of megabytes
    return target.is_dir()


def _drop_older(target: Path) -> None:
    """Remove copies of what the index beside ``target`` was before; in the user's cache they may be of other indexes and stay."""
    if target.parent != cache_folder():
        for older in target.parent.glob(f"{_PREFIX}*"):
            shutil.rmtree(older, ignore_errors=True)


def _mapped(folder: Path, path: Path) -> Positions | None:
    """Map a copy; None where there is none or it is damaged, which is then removed."""
    if not folder.is_dir():
        return None
    try:
        arrays: dict[str, Any] = {name: _map(folder / f"{name}.npy", kind) for name, kind in ARRAYS.items()}
        shards = tuple(map(str, json.loads((folder / "shards.json").read_text())))
        positions = Positions(**arrays, shards=shards)
        positions.refuse_torn(str(path))
    except (OSError, ValueError, DataError) as error:
        _LOG.warning("%s is damaged (%s) and is made again", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return positions


def _map(path: Path, kind: np.dtype[Any]) -> NDArray[Any]:
    with path.open("rb") as handle:
        if npy.read_magic(handle) != (1, 0):
            message = f"{path.name} is of another version"
            raise ValueError(message)
        shape, _, found = npy.read_array_header_1_0(handle)
        start = handle.tell()
    if found != kind or len(shape) != 1:
        message = f"{path.name} holds {found} of shape {shape}"
        raise ValueError(message)
    # an empty file cannot be mapped; a plain view is faster to index than numpy.memmap itself
    return np.asarray(np.memmap(path, kind, "r", start, shape)) if shape[0] else np.empty(0, kind)
