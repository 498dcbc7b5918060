"""Index a tar that nobody indexed: headers only, nothing is extracted, and anything odd is refused."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from cgeartheye.errors import DataError
from cgeartheye.shards.format import CHIP_BYTE_LIMIT, CHIP_PATTERN, INDEX_SCHEMA
from cgeartheye.shards.writer import table_of


def scan_shards(paths: Sequence[Path]) -> pa.Table:
    """Index foreign WebDataset shards by their headers.

    ``KEY.dN.jpg`` is date N of the place KEY, ``KEY.jpg`` a place with one date; other members are passed over. What
    only an index can know (date, cell, checksum ...) is null, year and quarter are 0.

    Returns: a table of :data:`INDEX_SCHEMA`; a place's rows are adjacent and its dates are numbered 0 .. N - 1.
    Raises: DataError: for a link or device, an absolute name or one with ``..``, a key that comes twice, or a member
        that reaches beyond the file's end.
    """
    rows: list[dict[str, Any]] = []
    owners: dict[str, str] = {}
    for path in paths:
        places: dict[str, dict[int, dict[str, Any]]] = {}
        for place, date_index, info in _chips(path):
            if owners.setdefault(place, path.name) != path.name or date_index in places.setdefault(place, {}):
                raise DataError(f"the key {info.name!r} comes twice", where=str(path))
            places[place][date_index] = {"shard": path.name, "offset": info.offset_data, "length": info.size}
        for place, dates in places.items():
            numbered = enumerate(dates[number] for number in sorted(dates))
            rows.extend({"place": place, "date_index": n, "year": 0, "quarter": 0, **row} for n, row in numbered)
    return table_of(rows) if rows else INDEX_SCHEMA.empty_table()


def _chips(path: Path) -> Iterator[tuple[str, int, tarfile.TarInfo]]:
    end = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                _refuse(info, path, end)
                name = info.name
                if matched := CHIP_PATTERN.fullmatch(name):
                    yield matched["place"], int(matched["date_index"]), info
                elif name.lower().endswith((".jpg", ".jpeg")):
                    yield name.rsplit(".", 1)[0], 0, info
    except tarfile.TarError as error:
        raise DataError(
            f"is no readable tar ({error})", where=str(path), remedy="fetch the file again or leave it out"
        ) from error


def _refuse(info: tarfile.TarInfo, path: Path, end: int) -> None:
    name = PurePosixPath(info.name)
    fault = None
    if info.isdir():
        return
    if not info.isreg() or info.issparse():
        fault = "is a link, a device or sparse; only regular files are read"
    elif name.is_absolute() or ".." in name.parts or "\\" in info.name or "\0" in info.name:
        fault = "has a name that points outside the archive"
    elif info.offset_data + info.size > end:
        fault = f"ends at byte {info.offset_data + info.size}, beyond the file's end at {end}"
    elif info.size > CHIP_BYTE_LIMIT:
        fault = f"has {info.size} bytes, more than a chip can have"
    if fault:
        raise DataError(f"the member {info.name!r} {fault}", where=str(path), remedy="do not use this file, or fetch it again")
