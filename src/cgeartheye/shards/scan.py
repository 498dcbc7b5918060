"""Index a tar that nobody indexed: headers only, nothing is extracted, and anything odd is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from cgeartheye.errors import DataError
from cgeartheye.shards.format import CHIP_BYTE_LIMIT, CHIP_PATTERN, INDEX_SCHEMA
from cgeartheye.shards.kept_scans import SCAN_SCHEMA, kept_scan
from cgeartheye.shards.tar import Member, TarFaultError, walk


def scan_shards(paths: Sequence[Path]) -> pa.Table:
    """Index foreign WebDataset shards by their headers.

    ``KEY.dN.jpg`` is date N of the place KEY, ``KEY.jpg`` a place with one date; other members and hidden files are passed over.
    What only an index can know (date, cell, checksum ...) is null, year and quarter are 0.

    Returns: a table of :data:`INDEX_SCHEMA`; a place's rows are adjacent and its dates are numbered 0 .. N - 1.
    Raises: DataError: for a file that is no tar or is cut short, a link or device, an absolute name or one with ``..``, a key
        that comes twice, an empty chip, or a member that is larger than a chip can be or reaches beyond the file's end.
    """
    owners: dict[str, str] = {}
    tables = []
    for path in paths:
        found = kept_scan(path, _scan)
        for place in found["place"].unique().to_pylist():
            if owners.setdefault(place, path.name) != path.name:
                raise _twice(place, path)
        tables.append(_indexed(path.name, found))
    return pa.concat_tables(tables).combine_chunks() if tables else INDEX_SCHEMA.empty_table()


def _scan(path: Path) -> pa.Table:
    """Walk one tar: a table of :data:`cgeartheye.shards.kept_scans.SCAN_SCHEMA`."""
    places: dict[str, dict[int, Member]] = {}
    for place, date_index, member in _chips(path):
        if date_index in places.setdefault(place, {}):
            raise _twice(member.name, path)
        places[place][date_index] = member
    rows = [(place, n, dates[number]) for place, dates in places.items() for n, number in enumerate(sorted(dates))]
    columns = {
        "place": [place for place, _, _ in rows],
        "date_index": [number for _, number, _ in rows],
        "offset": [member.offset for _, _, member in rows],
        "length": [member.size for _, _, member in rows],
    }
    return pa.table(columns, schema=SCAN_SCHEMA)


def _twice(name: str, path: Path) -> DataError:
    return DataError(f"the key {name!r} comes twice", where=str(path))


def _indexed(shard: str, found: pa.Table) -> pa.Table:
    """Return a scan as rows of an index."""
    known = {
        **{name: found[name] for name in SCAN_SCHEMA.names},
        "shard": pa.repeat(shard, len(found)),
        "year": pa.repeat(pa.scalar(0, pa.int32()), len(found)),
        "quarter": pa.repeat(pa.scalar(0, pa.int32()), len(found)),
    }
    return pa.table([known.get(f.name, pa.nulls(len(found), f.type)) for f in INDEX_SCHEMA], schema=INDEX_SCHEMA)


def _chips(path: Path) -> Iterator[tuple[str, int, Member]]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        for member in walk(descriptor, os.fstat(descriptor).st_size):
            _refuse(member, path)
            if member.kind == "folder" or PurePosixPath(member.name).name.startswith("."):
                continue
            if matched := CHIP_PATTERN.fullmatch(member.name):
                yield matched["place"], int(matched["date_index"]), member
            elif member.name.lower().endswith((".jpg", ".jpeg")):
                yield member.name.rsplit(".", 1)[0], 0, member
    except TarFaultError as error:
        raise DataError(str(error), where=str(path), remedy="fetch the file again or leave it out") from error
    finally:
        os.close(descriptor)


def _refuse(member: Member, path: Path) -> None:
    name = PurePosixPath(member.name)
    fault = None
    if member.kind == "other":
        fault = "is a link, a device or sparse; only regular files are read"
    elif name.is_absolute() or ".." in name.parts or "\\" in member.name or "\0" in member.name:
        fault = "has a name that points outside the archive"
    elif member.size > CHIP_BYTE_LIMIT:
        fault = f"has {member.size} bytes, more than a chip can have"
    elif not member.size and member.name.lower().endswith((".jpg", ".jpeg")):
        fault = "is empty"
    if fault:
        raise DataError(f"the member {member.name!r} {fault}", where=str(path), remedy="do not use this file, or fetch it again")
