"""What scanning a foreign tar found, kept beside it, so that it is scanned once and not at every opening.

A hidden Parquet file, named by the tar and tied to its name, size and time of change; where the folder may not be written, in the
user's cache. It may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cgeartheye.errors import ResourceError
from cgeartheye.files import atomic_path
from cgeartheye.shards.format import CHIP_BYTE_LIMIT
from cgeartheye.shards.mapped import cache_folder

_LOG = logging.getLogger(__name__)

KEPT_FROM: Final = 100
"""Chips of a tar from which its scan is kept; fewer are scanned in a few milliseconds [ours]."""
SETTLED_S: Final = 2.0
"""A tar that changed less than so many seconds ago may change again within one tick of the clock; its scan is not kept [ours]."""
_LAYOUT: Final = 1
_KEY: Final = b"scan_of"
SCAN_SCHEMA: Final = pa.schema(
    [("place", pa.string()), ("date_index", pa.int32()), ("offset", pa.int64()), ("length", pa.int32())]
)
"""One row a chip, places adjacent and their dates in order."""


def kept_scan(path: Path, scan: Callable[[Path], pa.Table]) -> pa.Table:
    """Return ``scan(path)``, from where it was kept if the tar has not changed since.

    Args:
        path: of a tar.
        scan: returns a table of :data:`SCAN_SCHEMA`; what it raises is raised.
    """
    told, size = _identity(path)
    where = (path.with_name(f".{path.name}.scan.parquet"), _of_user(path))
    for file in where:
        if (found := _read(file, told, size)) is not None:
            return found
    table = scan(path)
    settled = time.time_ns() - path.stat().st_mtime_ns > SETTLED_S * 1e9
    if len(table) >= KEPT_FROM and settled and _identity(path)[0] == told:
        any(_written(file, table, told) for file in where)  # the first that can be
    return table


def _identity(path: Path) -> tuple[bytes, int]:
    stat = path.stat()
    told = {"layout": _LAYOUT, "name": path.name, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return json.dumps(told, sort_keys=True).encode(), stat.st_size


def _of_user(path: Path) -> Path:
    return cache_folder() / f"scan-{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:20]}.parquet"


def _read(file: Path, told: bytes, size: int) -> pa.Table | None:
    """Return a kept scan; None if there is none, or it is of another tar, damaged or reaches beyond the tar's end."""
    if not file.is_file():
        return None
    try:
        found = pq.ParquetFile(file, page_checksum_verification=True)
        if (found.schema_arrow.metadata or {}).get(_KEY) != told:
            return None
        table = found.read().cast(SCAN_SCHEMA)
    except (OSError, ValueError, pa.ArrowException) as error:
        _LOG.warning("%s is damaged (%s) and is made again", file, error)
        return None
    length, end = table["length"], pc.add(table["offset"], table["length"].cast(pa.int64()))
    inside = [pc.min(table["offset"]), pc.min(length), pc.max(length), pc.max(end)]
    least, shortest, longest, last = (value.as_py() for value in inside)
    whole = not any(column.null_count for column in table.columns)
    if len(table) and whole and least >= 0 and shortest > 0 and longest <= CHIP_BYTE_LIMIT and last <= size:
        return table
    _LOG.warning("%s does not fit its tar and is made again", file)
    return None


def _written(file: Path, table: pa.Table, told: bytes) -> bool:
    """Write a scan, whole or not at all; False where that is not allowed or there is no room."""
    try:
        with atomic_path(file) as temporary:
            noted = table.replace_schema_metadata({_KEY: told})
            pq.write_table(noted, temporary, compression="zstd", write_page_checksum=True)
    except (OSError, ResourceError) as error:
        _LOG.info("the scan is not kept in %s (%s)", file, error)
        return False
    return True
