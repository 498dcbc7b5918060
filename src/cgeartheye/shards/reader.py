"""Read chips out of shards by position: one read each, or one for all dates of a place; checked, nothing unpacked."""

from __future__ import annotations

import contextlib
import datetime
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cgeartheye.errors import DataError, InputError
from cgeartheye.shards.described import Described, FileDescribed, TableDescribed
from cgeartheye.shards.format import (
    BLOCK,
    CHIP_BYTE_LIMIT,
    CHIP_PIXEL_LIMIT,
    INDEX_NAME,
    POSITION_COLUMNS,
    SHARD_FOLDER,
    chip_member,
)
from cgeartheye.shards.mapped import cache_folder, open_positions
from cgeartheye.shards.positions import Gathered, Positions, gather
from cgeartheye.shards.remote import fetch_index
from cgeartheye.shards.scan import scan_shards
from cgeartheye.shards.sources import LocalShards, Source
from cgeartheye.shards.spans import Spans

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]+://.+", re.IGNORECASE)
Coded = TypeVar("Coded", bytes, memoryview)

_LOOSE: Final = 2**16
"""Bytes between the chips of a place above which they are read one by one: a foreign tar in another order."""


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

    Positions of chips are arrays; those of an index with many chips are mapped from a copy that its first reader makes
    (:mod:`cgeartheye.shards.mapped`), so that processes share them. Shards are opened when first read. May be pickled, forked and
    shared by threads.

    Args:
        folder: a curated folder (``index.parquet`` and ``shards/``), or one with tar files of any origin, which are then
            indexed by their headers; or the URL of a curated folder (``http``, ``https``, or what fsspec knows), whose index is
            kept in the user's cache.

    Raises:
        InputError: if the folder holds neither.
        DataError: if the index is unreadable, of another schema version, torn, or names shards outside its folder.
        ResourceError: if a server cannot be reached.
    """

    def __init__(self, folder: Path | str) -> None:
        self._given = folder
        self.folder, self._source, table = _opened(folder)
        """The folder; for a URL the local one that holds its index."""
        self._chips: Positions
        self._described: Described
        if table is None:
            self._chips = open_positions(self.folder / INDEX_NAME)
            self._described = FileDescribed(self.folder / INDEX_NAME)
        else:
            gathered = Gathered()
            batches = table.select(list(POSITION_COLUMNS)).to_batches()
            self._chips = gathered.positions(gather(batches, gathered, where=str(self.folder)))
            self._described = TableDescribed(table)
        self._local = self._source if isinstance(self._source, LocalShards) else None
        self._spans = Spans(self.read_place)

    def __reduce__(self) -> tuple[type[ShardReader], tuple[Path | str]]:
        """Pickle the folder only: another process opens it anew."""
        return ShardReader, (self._given,)

    def __len__(self) -> int:
        """Return the number of places."""
        return len(self._chips.starts) - 1

    def place(self, i: int) -> str:
        """Return the name of place ``i``, 0 <= i < len(self)."""
        self._rows(i)
        return self._chips.name(i)

    def dates(self, i: int) -> tuple[ChipRecord, ...]:
        """Return the chips of place ``i`` in order of date."""
        rows = self._rows(i)
        told = self._described.rows(rows.start, rows.stop)
        return tuple(self._record(i, row, known) for row, known in zip(rows, told, strict=True))

    def read(self, i: int, j: int) -> bytes:
        """Return the coded bytes of date ``j`` of place ``i``.

        Raises:
            DataError: if the shard is missing or short, or the checksum differs; shard and member are named.
            ResourceError: if a server cannot be reached.
        """
        return self.read_row(self._row(i, j))

    def read_row(self, row: int) -> bytes:
        """Return the coded bytes of row ``row`` of the index; raises as :meth:`read`.

        Of a remote place all dates come with one request, and are kept for those who ask for the next ones.
        """
        if self._local is None:
            return bytes(self._of_span(row))
        return self._checked(row, self._source.read(self._shard(row), *self._bytes(row)))

    def read_place(self, i: int) -> tuple[memoryview, ...]:
        """Return the coded bytes of all dates of place ``i``, in order of date, by one read; raises as :meth:`read`.

        They are views of what was read, as one piece of memory.
        """
        rows = self._rows(i)
        placed = [self._bytes(row) for row in rows]
        start, end = placed[0][0], sum(placed[-1])
        if end - start > sum(length for _, length in placed) + len(placed) * 2 * BLOCK + _LOOSE or not self._adjacent(rows):
            parts = [memoryview(self._source.read(self._shard(row), *at)) for row, at in zip(rows, placed, strict=True)]
        else:
            span = memoryview(self._source.read(self._shard(rows.start), start, end - start))
            parts = [span[offset - start : offset - start + length] for offset, length in placed]
        return tuple(self._checked(row, part) for row, part in zip(rows, parts, strict=True))

    def expect(self, rows: Sequence[int]) -> None:
        """Say that these rows of the index will be read soon; a local disk begins to, with one request for neighbours in a row.

        Faults are told when they are read.
        """
        if self._local is None:
            return
        with contextlib.suppress(DataError):
            for shard, start, end in self._joined(rows):
                with contextlib.suppress(DataError, OSError):
                    self._local.expect(shard, start, end - start)

    def decode(self, i: int, j: int) -> NDArray[np.uint8]:
        """Return date ``j`` of place ``i`` as a picture (H, W, 3) uint8, RGB.

        Raises:
            DataError: as :meth:`read`, or if it is no picture or larger than the pixel limit.
        """
        return self.decode_row(self._row(i, j))

    def decode_row(self, row: int, *, divisor: int = 1) -> NDArray[np.uint8]:
        """Return row ``row`` of the index as a picture; raises and scales as :meth:`decode` and :func:`decode_chip`."""
        data = self.read_row(row) if self._local is not None else self._of_span(row)
        try:
            return decode_chip(data, divisor=divisor)
        except DataError as error:
            raise DataError(f"the member {self._member(row)} {error.what}", where=self.shard_of(row)) from error

    def shard_of(self, row: int) -> str:
        """Return the path or URL of the shard that holds row ``row`` of the index."""
        return self._source.where(self._shard(row))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the index itself, one row a chip in the reader's order (:data:`INDEX_SCHEMA`, or some columns)."""
        return self._described.table(columns)

    def starts(self) -> NDArray[np.int64]:
        """Return the index row of every place's first date, (len(self),) int64; not to be written to."""
        return self._chips.starts[:-1]

    def n_dates(self) -> NDArray[np.int64]:
        """Return the number of dates of every place, (len(self),) int64."""
        return np.diff(self._chips.starts)

    def shard_sizes(self) -> NDArray[np.int64]:
        """Return the number of places of every shard in order, (shards,) int64; their sum is ``len(self)``.

        Raises:
            DataError: if a shard's places are not neighbours in the index.
        """
        shard = self._chips.shard[self._chips.starts[:-1]]
        changes = np.flatnonzero(np.diff(shard, prepend=-1, append=-1))
        if len(changes) - 1 > len(self._chips.shards):
            raise DataError(
                "the places of a shard are not neighbours", where=str(self.folder / INDEX_NAME), remedy="curate again"
            )
        return np.diff(changes)

    def _rows(self, i: int) -> range:
        if not 0 <= i < len(self):
            message = f"place {i} of {len(self)}"
            raise IndexError(message)
        return range(int(self._chips.starts[i]), int(self._chips.starts[i + 1]))

    def _row(self, i: int, j: int) -> int:
        rows = self._rows(i)
        if not 0 <= j < len(rows):
            message = f"date {j} of {len(rows)} of place {self.place(i)}"
            raise IndexError(message)
        return rows[j]

    def _shard(self, row: int) -> str:
        return self._chips.shards[int(self._chips.shard[row])]

    def _bytes(self, row: int) -> tuple[int, int]:
        """Return offset and length of a chip; a mapped copy may have been tampered with since it was checked."""
        offset, length = int(self._chips.offset[row]), int(self._chips.length[row])
        if offset < 0 or not 0 < length <= CHIP_BYTE_LIMIT:
            raise DataError(f"the index has the bytes of {self._member(row)} wrong", where=str(self.folder / INDEX_NAME))
        return offset, length

    def _adjacent(self, rows: range) -> bool:
        within = slice(rows.start, rows.stop)
        offsets = self._chips.offset[within].tolist()
        return len(set(self._chips.shard[within].tolist())) == 1 and all(a < b for a, b in pairwise(offsets))

    def _joined(self, rows: Sequence[int]) -> Iterator[tuple[str, int, int]]:
        """Yield (shard, first byte, end) of rows; those that follow one another on disk are one piece."""
        shard, start, end = "", 0, 0
        for row in rows:
            its_shard, (offset, length) = self._shard(row), self._bytes(row)
            if its_shard == shard and end <= offset <= end + 2 * BLOCK:  # padding and a header lie between them
                end = offset + length
                continue
            if shard:
                yield shard, start, end
            shard, start, end = its_shard, offset, offset + length
        if shard:
            yield shard, start, end

    def _of_span(self, row: int) -> memoryview:
        place = self._chips.place_of(row)
        return self._spans.get(place)[row - int(self._chips.starts[place])]

    def _checked(self, row: int, data: Coded) -> Coded:
        crc32 = int(self._chips.crc32[row])
        if len(data) != int(self._chips.length[row]) or (crc32 >= 0 and zlib.crc32(data) != crc32):
            raise _mismatch(self.shard_of(row), self._member(row))
        return data

    def _member(self, row: int) -> str:
        place = self._chips.place_of(row)
        return chip_member(self._chips.name(place), row - int(self._chips.starts[place]))

    def _record(self, place: int, row: int, known: dict[str, object]) -> ChipRecord:
        crc32 = int(self._chips.crc32[row])
        offset, length = self._bytes(row)
        return ChipRecord(
            place=self._chips.name(place),
            date_index=row - int(self._chips.starts[place]),
            row=row,
            shard=self._shard(row),
            offset=offset,
            length=length,
            crc32=crc32 if crc32 >= 0 else None,
            **known,  # type: ignore[arg-type]  # DESCRIBED, whose types the schema says
        )


def index_folder(folder: Path | str) -> Path:
    """Return the local folder that tells what a data set holds: itself, or the copy of a remote one's index and manifest.

    Raises: as :class:`ShardReader`.
    """
    if isinstance(folder, str) and _URL.fullmatch(folder):
        return fetch_index(folder, cache_folder())[0].parent
    return Path(folder)


def _opened(folder: Path | str) -> tuple[Path, Source, pa.Table | None]:
    """Return the folder of the index, the source of shards, and the index itself where it had to be made up."""
    if isinstance(folder, str) and _URL.fullmatch(folder):
        index, source = fetch_index(folder, cache_folder())
        return index.parent, source, None
    path = Path(folder)
    inner = path / SHARD_FOLDER
    shards = inner if inner.is_dir() else path
    if (path / INDEX_NAME).exists():
        return path, LocalShards(shards), None
    tars = sorted(shards.glob("*.tar")) if shards.is_dir() else []
    if not tars:
        raise InputError("there are no shards here", where=str(path), remedy="give the folder that cgeartheye curate wrote")
    return path, LocalShards(shards), scan_shards(tars)


def decode_chip(data: bytes | memoryview, *, divisor: int = 1) -> NDArray[np.uint8]:
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
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot be decoded ({error})") from error
    raise DataError(f"cannot be decoded ({size})")


def read_rows(shards: Path, rows: pa.Table) -> Iterator[bytes]:
    """Yield the coded bytes of rows of an index in their order, opening each shard of the folder when its turn comes.

    Raises:
        DataError: if a shard is missing or a checksum differs.
    """
    columns = [rows[name].to_pylist() for name in ("shard", "offset", "length", "crc32", "place", "date_index")]
    source = LocalShards(shards)
    for name, offset, length, crc32, place, date_index in zip(*columns, strict=True):
        data = source.read(name, offset, length)
        if len(data) != length or zlib.crc32(data) != crc32:
            raise _mismatch(source.where(name), chip_member(place, date_index))
        yield data


def _mismatch(where: str, member: str) -> DataError:
    return DataError(f"the member {member} does not match its checksum", where=where, remedy="copy or curate the shard again")
