"""Write shards: the same places always become the same bytes, and a shard is either whole or absent."""

from __future__ import annotations

import datetime
import io
import json
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cgeartheye.errors import DataError
from cgeartheye.files import atomic_path
from cgeartheye.shards.format import (
    BLOCK,
    INDEX_NAME,
    INDEX_SCHEMA,
    SCHEMA_VERSION,
    SHARD_FOLDER,
    Place,
    chip_member,
    padded,
    shard_name,
)

ROW_GROUP: Final = 65_536
_NOTE_BYTES: Final = 2048
_NOTE_BYTES_A_DATE: Final = 1024
"""Allowance for a place's JSON member when shards are planned [ours; those of the demo have 800 and 500]."""
_UNDATED: Final = {"year": 0, "quarter": 0}


def write_shard(path: Path, places: Iterable[Place]) -> pa.Table:
    """Write one shard atomically and return its rows of the index (:data:`INDEX_SCHEMA`).

    Plain ustar without extended headers; time, owner and group are 0 and the mode is 0644, so equal places give equal bytes.

    Raises:
        DataError: if a place comes twice, or a member name does not fit a ustar header.
    """
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for place in places:
            if place.name in seen:
                raise DataError(f"the place {place.name!r} comes twice", where=str(path))
            seen.add(place.name)
            rows.extend(_add_place(tar, place, path.name))
    return table_of(rows)


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Return index rows as a table of :data:`INDEX_SCHEMA`; missing columns become null."""
    columns = {name: [row.get(name) for row in rows] for name in INDEX_SCHEMA.names}
    return pa.table(columns, schema=INDEX_SCHEMA)


def _add_place(tar: tarfile.TarFile, place: Place, shard: str) -> list[dict[str, Any]]:
    rows = []
    for number, chip in enumerate(place.chips):
        rows.append(
            {
                **_UNDATED,
                **place.columns,
                **chip.columns,
                "place": place.name,
                "date_index": number,
                "shard": shard,
                "offset": _add_member(tar, chip_member(place.name, number), chip.jpeg),
                "length": len(chip.jpeg),
                "crc32": zlib.crc32(chip.jpeg),
            }
        )
    dates = [{"date_index": number, **chip.columns} for number, chip in enumerate(place.chips)]
    note = {"schema_version": SCHEMA_VERSION, "place": place.name, **place.columns, "dates": dates}
    _add_member(tar, f"{place.name}.json", json.dumps(note, sort_keys=True, default=_plain).encode())
    return rows


def _plain(value: object) -> object:
    if isinstance(value, datetime.date):
        return value.isoformat()
    return value.item()  # type: ignore[attr-defined]  # NumPy scalars; anything else is our bug and raises here


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Append one regular file and return the offset of its first byte."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = 0o644
    header = tar.offset
    tar.addfile(info, io.BytesIO(data))
    if tar.offset != header + padded(len(data)):
        raise DataError(f"the member name {name!r} does not fit a plain ustar header")
    return header + BLOCK


def plan_shards(sizes: Sequence[Sequence[int]], shard_bytes: int) -> list[range]:
    """Cut places into shards of at most ``shard_bytes``, in the order given.

    Args:
        sizes: for every place the bytes of its chips.
        shard_bytes: upper bound of a shard file; a single place above it gets a shard of its own.

    Returns: ranges of positions, one a shard; empty for no places.
    """
    room = shard_bytes - tarfile.RECORDSIZE  # the end mark takes at most one record
    shards: list[range] = []
    first, filled = 0, 0
    for number, chips in enumerate(sizes):
        need = sum(map(padded, chips)) + padded(_NOTE_BYTES + _NOTE_BYTES_A_DATE * len(chips))
        if filled and filled + need > room:
            shards.append(range(first, number))
            first, filled = number, 0
        filled += need
    if filled:
        shards.append(range(first, len(sizes)))
    return shards


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file atomically; equal tables give equal bytes."""
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, row_group_size=ROW_GROUP, compression="zstd")


def write_index(folder: Path, parts: Iterable[pa.Table]) -> Path:
    """Join the shards' index parts to ``folder/index.parquet``; memory is that of two row groups and one part.

    Args:
        folder: receives the index.
        parts: rows of :data:`INDEX_SCHEMA`, one table a shard or several, sorted by shard and offset, none of them twice. An
            iterator that reads each when its turn comes keeps memory flat.

    Returns: the path; equal rows give equal bytes, however they are cut into parts.
    Raises: DataError: if the parts are not in order of shard and offset.
    """
    path = folder / INDEX_NAME
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, INDEX_SCHEMA, compression="zstd") as file:
        for group in _groups(_in_order(parts, path)):
            file.write_table(group, row_group_size=ROW_GROUP)
    return path


def _groups(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables anew into tables of :data:`ROW_GROUP` rows, the last one shorter."""
    kept = INDEX_SCHEMA.empty_table()
    for part in parts:
        kept = pa.concat_tables([kept, part.cast(INDEX_SCHEMA)])
        whole = len(kept) // ROW_GROUP * ROW_GROUP
        for start in range(0, whole, ROW_GROUP):
            yield kept.slice(start, ROW_GROUP).combine_chunks()
        if whole:
            kept = kept.slice(whole).combine_chunks()
    if len(kept):
        yield kept.combine_chunks()


def _in_order(parts: Iterable[pa.Table], path: Path) -> Iterator[pa.Table]:
    last = ("", -1)
    for part in parts:
        if not len(part):
            continue
        shards, offsets = (part[name].combine_chunks() for name in ("shard", "offset"))
        same = pc.equal(shards[1:], shards[:-1])
        rises = pc.or_(pc.greater(shards[1:], shards[:-1]), pc.and_(same, pc.greater(offsets[1:], offsets[:-1])))
        first = (shards[0].as_py(), offsets[0].as_py())
        if first <= last or pc.all(rises).as_py() is False:
            raise DataError(f"the parts of the index are not in order of shard and offset, at {first[0]}", where=str(path))
        last = (shards[-1].as_py(), offsets[-1].as_py())
        yield part


def write_shards(folder: Path, places: Sequence[Place], *, shard_bytes: int = 256 * 10**6) -> Path:
    """Write places held in memory as ``folder/shards/*.tar`` and ``folder/index.parquet``, in the order given.

    Returns: ``folder``, ready for :class:`cgeartheye.shards.reader.ShardReader`.
    """
    plan = plan_shards([[len(chip.jpeg) for chip in place.chips] for place in places], shard_bytes)
    parts = [
        write_shard(folder / SHARD_FOLDER / shard_name(number), [places[i] for i in members])
        for number, members in enumerate(plan)
    ]
    write_index(folder, parts)
    return folder
