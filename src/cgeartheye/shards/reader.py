"""Read chips out of shards by position: one ``pread`` each, checked, nothing unpacked."""

from __future__ import annotations

import datetime
import io
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cgeartheye.errors import DataError, InputError
from cgeartheye.shards.format import (
    CHIP_PIXEL_LIMIT,
    INDEX_NAME,
    INDEX_SCHEMA,
    POSITION_COLUMNS,
    SCHEMA_VERSION,
    SHARD_FOLDER,
    chip_member,
)
from cgeartheye.shards.scan import scan_shards

OPEN_SHARDS: Final = 64
"""Shards a thread keeps open at most [ours]."""
_NUMBERS: Final = ("offset", "length", "year", "quarter")
_TEXTS: Final = ("shard", "scene", "label")
_LOADED: Final = (*POSITION_COLUMNS, "date", "year", "quarter", "scene", "label")


@dataclass(frozen=True, slots=True)
class ChipRecord:
    """Where a chip lies and what is known of it without reading it.

    Args:
        place: its place.
        date_index: position among the place's dates, from 0.
        row: its row in the index.
        shard, offset, length, crc32: file name, bytes and checksum; crc32 is None in a shard without an index.
        date, year, quarter: None, 0, 0 where unknown.
        scene: the picture it was cut from, as the index names it.
        label: class folder of plain pictures.
    """

    place: str
    date_index: int
    row: int
    shard: str
    offset: int
    length: int
    crc32: int | None
    date: datetime.date | None
    year: int
    quarter: int
    scene: str | None
    label: str | None


class ShardReader:
    """A folder of shards as a sequence of places.

    Keeps ten columns of the index in memory as arrays (about 60 bytes a chip), opens shards when first read and at most
    :data:`OPEN_SHARDS` a thread. May be pickled, forked and shared by threads.

    Args:
        folder: a curated folder (``index.parquet`` and ``shards/``), or one with tar files of any origin, which are then
            indexed by their headers.

    Raises:
        InputError: if the folder holds neither.
        DataError: if the index is unreadable, of another schema version or points beyond a shard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        inner = self.folder / SHARD_FOLDER
        self._shards = inner if inner.is_dir() else self.folder
        table = _load(self.folder, self._shards)
        self._places = table["place"].combine_chunks()
        self._date_index = table["date_index"].to_numpy()
        self._numbers = {name: table[name].to_numpy() for name in _NUMBERS}
        self._crc32 = table["crc32"].fill_null(-1).to_numpy()
        self._dates = table["date"].cast(pa.int32()).fill_null(np.iinfo(np.int32).min).to_numpy()
        self._texts = {name: table[name].combine_chunks().dictionary_encode() for name in _TEXTS}
        self._starts = np.flatnonzero(self._date_index == 0)
        self._check()
        self._open = threading.local()

    def __reduce__(self) -> tuple[type[ShardReader], tuple[Path]]:
        """Pickle the folder only: another process opens it anew."""
        return ShardReader, (self.folder,)

    def __len__(self) -> int:
        """Return the number of places."""
        return len(self._starts)

    def place(self, i: int) -> str:
        """Return the name of place ``i``, 0 <= i < len(self)."""
        return str(self._places[self._rows(i).start].as_py())

    def dates(self, i: int) -> tuple[ChipRecord, ...]:
        """Return the chips of place ``i`` in order of date."""
        return tuple(self._record(row) for row in self._rows(i))

    def read(self, i: int, j: int) -> bytes:
        """Return the coded bytes of date ``j`` of place ``i``.

        Raises:
            DataError: if the shard is missing or short, or the checksum differs; shard and member are named.
        """
        return self.read_row(self._row(i, j))

    def read_row(self, row: int) -> bytes:
        """Return the coded bytes of row ``row`` of the index; raises as :meth:`read`."""
        chip = self._record(row)
        data = os.pread(self._descriptor(chip.shard).number, chip.length, chip.offset)
        if len(data) != chip.length or (chip.crc32 is not None and zlib.crc32(data) != chip.crc32):
            raise _mismatch(self._shards / chip.shard, chip.place, chip.date_index)
        return data

    def decode(self, i: int, j: int) -> NDArray[np.uint8]:
        """Return date ``j`` of place ``i`` as a picture (H, W, 3) uint8, RGB.

        Raises:
            DataError: as :meth:`read`, or if it is no picture or larger than the pixel limit.
        """
        return self.decode_row(self._row(i, j))

    def decode_row(self, row: int, *, divisor: int = 1) -> NDArray[np.uint8]:
        """Return row ``row`` of the index as a picture; raises and scales as :meth:`decode` and :func:`decode_chip`."""
        data = self.read_row(row)
        try:
            return decode_chip(data, divisor=divisor)
        except DataError as error:
            chip = self._record(row)
            what = f"the member {chip_member(chip.place, chip.date_index)} {error.what}"
            raise DataError(what, where=str(self._shards / chip.shard)) from error

    def shard_of(self, row: int) -> str:
        """Return the path of the shard that holds row ``row`` of the index."""
        return str(self._shards / str(self._texts["shard"][row].as_py()))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the index itself, one row a chip in the reader's order (:data:`INDEX_SCHEMA`, or some columns)."""
        table = _load(self.folder, self._shards, columns=columns)
        return table if columns is None else table.select(list(columns))

    def starts(self) -> NDArray[np.int64]:
        """Return the index row of every place's first date, (len(self),) int64."""
        return self._starts.astype(np.int64)

    def n_dates(self) -> NDArray[np.int64]:
        """Return the number of dates of every place, (len(self),) int64."""
        return np.diff(self._starts, append=len(self._date_index)).astype(np.int64)

    def _rows(self, i: int) -> range:
        if not 0 <= i < len(self):
            message = f"place {i} of {len(self)}"
            raise IndexError(message)
        end = self._starts[i + 1] if i + 1 < len(self) else len(self._date_index)
        return range(int(self._starts[i]), int(end))

    def _row(self, i: int, j: int) -> int:
        rows = self._rows(i)
        if not 0 <= j < len(rows):
            message = f"date {j} of {len(rows)} of place {self.place(i)}"
            raise IndexError(message)
        return rows[j]

    def _record(self, row: int) -> ChipRecord:
        day, crc32 = int(self._dates[row]), int(self._crc32[row])
        shard, scene, label = (self._texts[name][row].as_py() for name in _TEXTS)
        offset, length, year, quarter = (int(self._numbers[name][row]) for name in _NUMBERS)
        return ChipRecord(
            place=str(self._places[row].as_py()),
            date_index=int(self._date_index[row]),
            row=row,
            shard=shard,
            offset=offset,
            length=length,
            crc32=crc32 if crc32 >= 0 else None,
            date=None if day == np.iinfo(np.int32).min else datetime.date(1970, 1, 1) + datetime.timedelta(days=day),
            year=year,
            quarter=quarter,
            scene=scene,
            label=label,
        )

    def _check(self) -> None:
        """Refuse an index whose places are torn, because every other method trusts them."""
        follows = np.diff(self._date_index, prepend=-1) == 1
        if not np.all(follows | (self._date_index == 0)):
            raise DataError("a place's dates are not neighbours or not in order", where=str(self.folder / INDEX_NAME))
        if len(self._date_index) and (self._numbers["length"].min() < 1 or self._numbers["offset"].min() < 0):
            raise DataError("the index has an empty chip or a negative offset", where=str(self.folder / INDEX_NAME))
        for name in self._texts["shard"].dictionary.to_pylist():
            if name is None or Path(name).name != name:
                raise DataError(f"the index names a shard outside its folder: {name!r}", where=str(self.folder / INDEX_NAME))

    def _descriptor(self, shard: str) -> _Descriptor:
        kept: OrderedDict[str, _Descriptor] = self._open.__dict__.setdefault("kept", OrderedDict())
        if shard not in kept:
            kept[shard] = _Descriptor(self._shards / shard)
            if len(kept) > OPEN_SHARDS:
                kept.popitem(last=False)
        kept.move_to_end(shard)
        return kept[shard]


class _Descriptor:
    """An open file that closes with its last reference; ``pread`` moves no offset, so that forks may share it."""

    def __init__(self, path: Path) -> None:
        try:
            self.number = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise DataError("this shard of the index is missing", where=str(path)) from error

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def _load(folder: Path, shards: Path, *, columns: Sequence[str] | None = _LOADED) -> pa.Table:
    path = folder / INDEX_NAME
    if path.exists():
        return _read_index(path, columns)
    tars = sorted(shards.glob("*.tar")) if shards.is_dir() else []
    if not tars:
        raise InputError("there are no shards here", where=str(folder), remedy="give the folder that cgeartheye curate wrote")
    return scan_shards(tars)


def _read_index(path: Path, columns: Sequence[str] | None) -> pa.Table:
    try:
        schema = pq.read_schema(path)
        table = pq.read_table(path, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot be read as an index ({error})", where=str(path), remedy="curate again") from error
    version = (schema.metadata or {}).get(b"schema_version", b"absent").decode()
    if version != str(SCHEMA_VERSION):
        raise DataError(f"schema_version {version!r} is not known to this release", where=str(path))
    if missing := set(_LOADED) - set(schema.names):
        raise DataError(f"lacks the columns {', '.join(sorted(missing))}", where=str(path), remedy="curate again")
    fields = [INDEX_SCHEMA.field(name) for name in table.column_names if name in INDEX_SCHEMA.names]
    return table.select([field.name for field in fields]).cast(pa.schema(fields))


def decode_chip(data: bytes, *, divisor: int = 1) -> NDArray[np.uint8]:
    """Decode a chip's bytes to (ceil(H / divisor), ceil(W / divisor), 3) uint8, RGB.

    Args:
        data: a JPEG.
        divisor: 1, 2, 4 or 8. Above 1, the decoder itself makes the smaller picture out of the low frequencies of each 8 x 8
            block, for less than decoding and shrinking costs.

    Raises:
        DataError: if it is no JPEG, is cut short, or has more than :data:`cgeartheye.shards.format.CHIP_PIXEL_LIMIT` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.width * image.height <= CHIP_PIXEL_LIMIT:
                if divisor > 1:
                    image.draft(None, (max(1, image.width // divisor), max(1, image.height // divisor)))
                image.load()
                # converting RGB to RGB would copy the picture: half of the time a chip takes
                return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
            size = f"{image.width} x {image.height} pixels, more than a chip can have"
    except (OSError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot be decoded ({error})") from error
    raise DataError(f"cannot be decoded ({size})")


def read_rows(shards: Path, rows: pa.Table) -> Iterator[bytes]:
    """Yield the coded bytes of rows of an index in their order, opening each shard of the folder when its turn comes.

    Raises:
        DataError: if a shard is missing or a checksum differs.
    """
    columns = [rows[name].to_pylist() for name in ("shard", "offset", "length", "crc32", "place", "date_index")]
    shard, descriptor = None, None
    for name, offset, length, crc32, place, date_index in zip(*columns, strict=True):
        if descriptor is None or name != shard:
            shard, descriptor = name, _Descriptor(shards / name)
        data = os.pread(descriptor.number, length, offset)
        if len(data) != length or zlib.crc32(data) != crc32:
            raise _mismatch(shards / name, place, date_index)
        yield data


def _mismatch(path: Path, place: str, date_index: int) -> DataError:
    member = chip_member(place, date_index)
    return DataError(f"the member {member} does not match its checksum", where=str(path), remedy="copy or curate the shard again")
