"""Where chips lie, as arrays: the part of the index that reading needs, gathered in one pass over its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.shards.format import CHIP_BYTE_LIMIT, POSITION_COLUMNS, is_bare_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """C chips of P places; arrays may be maps of a file and are never written to.

    Args:
        shard: (C,) int32, which of ``shards``.
        offset: (C,) int64, first byte of the chip in its shard.
        length: (C,) int32, bytes.
        crc32: (C,) int64, -1 where unknown.
        starts: (P + 1,) int64, first row of each place, then C.
        names: (N,) uint8, UTF-8 names of the places without separators.
        name_ends: (P + 1,) int64, 0, then where each name ends.
        shards: file names.
    """

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    crc32: NDArray[np.int64]
    starts: NDArray[np.int64]
    names: NDArray[np.uint8]
    name_ends: NDArray[np.int64]
    shards: tuple[str, ...]

    def name(self, place: int) -> str:
        """Return the name of a place, 0 <= place < P."""
        return self.names[self.name_ends[place] : self.name_ends[place + 1]].tobytes().decode()

    def place_of(self, row: int) -> int:
        """Return the place of a chip."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def refuse_torn(self, where: str) -> None:
        """Raise DataError unless the arrays fit together and name only shards inside their folder."""
        chips, places = len(self.offset), len(self.starts) - 1
        whole = {len(self.shard), len(self.length), len(self.crc32), int(self.starts[-1])} == {chips}
        if not whole or len(self.name_ends) != places + 1 or int(self.name_ends[-1]) != len(self.names):
            raise DataError("the arrays of positions do not fit together", where=where)
        for name in self.shards:
            if not is_bare_name(name):
                raise DataError(f"the index names a shard outside its folder: {name!r}", where=where)


_TYPES: Final = {"shard": "i4", "offset": "i8", "length": "i4", "crc32": "i8", "starts": "i8", "names": "u1", "name_ends": "i8"}
ARRAYS: Final = {name: np.dtype(kind) for name, kind in _TYPES.items()}
"""Types of the arrays by name."""


class Sink(Protocol):
    """Takes pieces of the arrays of :class:`Positions` in order of rows."""

    def add(self, name: str, values: NDArray[np.generic]) -> None:
        """Append (n,) values to the array of this name."""


class Gathered:
    """A :class:`Sink` in memory."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in ARRAYS}

    def add(self, name: str, values: NDArray[np.generic]) -> None:
        """Append (n,) values to the array of this name."""
        self._parts[name].append(values.astype(ARRAYS[name], copy=False))

    def positions(self, shards: tuple[str, ...]) -> Positions:
        """Return all arrays."""
        arrays = {name: np.concatenate(parts) if parts else np.empty(0, ARRAYS[name]) for name, parts in self._parts.items()}
        return Positions(**arrays, shards=shards)


def gather(batches: Iterable[pa.RecordBatch], sink: Sink, *, where: str) -> tuple[str, ...]:
    """Send the rows of an index to ``sink``, checked; memory is that of one batch and of the names of shards.

    Args:
        batches: with :data:`cgeartheye.shards.format.POSITION_COLUMNS`, places adjacent and their dates in order.
        sink: receives the arrays.
        where: path of the index, for errors.

    Returns: the names of shards, in order of first appearance.
    Raises: DataError: if a place's dates are not neighbours or not in order, a place has no name, a chip is empty, larger than a
        chip can be or before the start of its shard, or a shard lies outside its folder.
    """
    shards: dict[str, int] = {}
    last, row, end = (None, -1), 0, 0
    sink.add("name_ends", np.zeros(1, np.int64))
    for batch in batches:
        columns = {name: batch.column(name) for name in POSITION_COLUMNS}
        if any(columns[name].null_count for name in POSITION_COLUMNS if name != "crc32"):
            raise DataError("the index has a chip without place, shard, offset or length", where=where)
        starts, last = _starts(columns["place"], _numbers(columns["date_index"]), last, where)
        _add_bytes(sink, columns, where)
        sink.add("shard", _codes(columns["shard"], shards, where))
        sink.add("starts", starts + row)
        names = columns["place"].take(_indices(starts)).cast(pa.large_binary())
        ends = np.frombuffer(names.buffers()[1], np.int64)[names.offset : names.offset + len(names) + 1]
        if len(names):
            sink.add("names", np.frombuffer(names.buffers()[2] or b"", np.uint8)[ends[0] : ends[-1]])
            sink.add("name_ends", ends[1:] - ends[0] + end)
            end += int(ends[-1] - ends[0])
        row += len(batch)
    sink.add("starts", np.full(1, row, np.int64))
    return tuple(shards)


def _indices(numbers: NDArray[np.int64]) -> pa.Array:
    """Wrap (n,) int64; ``pa.array`` would import pandas first, two seconds that reading has no use for."""
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])


def _numbers(array: pa.Array) -> NDArray[Any]:
    """Return whole numbers (n,) in their own type, -1 where unknown; ``to_numpy`` would import pandas too."""
    if not len(array):
        return np.empty(0, np.int64)
    values = np.frombuffer(array.buffers()[1], f"i{array.type.bit_width // 8}")[array.offset : array.offset + len(array)]
    if array.null_count:
        values = np.where(_numbers(array.is_valid().cast(pa.int8())) == 1, values, -1)
    return values


def _starts(
    places: pa.Array, date_index: NDArray[np.int32], last: tuple[pa.Scalar | None, int], where: str
) -> tuple[NDArray[np.int64], tuple[pa.Scalar | None, int]]:
    """Return which rows of a batch begin a place, and the place and date that the next batch may go on with."""
    if not len(places):
        return np.empty(0, np.int64), last
    before, number = last
    follows = np.diff(date_index, prepend=np.int32(number)) == 1
    same = np.empty(len(places), dtype=bool)
    same[0] = before is not None and places[0] == before
    same[1:] = _numbers(pc.equal(places[1:], places[:-1]).cast(pa.int8()))
    if not np.array_equal(same, date_index != 0) or not np.all(follows | ~same):
        raise DataError("a place's dates are not neighbours or not in order", where=where, remedy="curate again")
    return np.flatnonzero(~same), (places[-1], int(date_index[-1]))


def _add_bytes(sink: Sink, columns: dict[str, pa.Array], where: str) -> None:
    offset, length = _numbers(columns["offset"]), _numbers(columns["length"])
    if len(length) and (length.min() < 1 or offset.min() < 0 or length.max() > CHIP_BYTE_LIMIT):
        raise DataError("the index has a chip that is empty, too long or before its shard begins", where=where)
    sink.add("offset", offset)
    sink.add("length", length)
    sink.add("crc32", _numbers(columns["crc32"]))


def _codes(names: pa.Array, known: dict[str, int], where: str) -> NDArray[np.int32]:
    """Number shards in order of first appearance."""
    coded = names.dictionary_encode()
    for name in coded.dictionary.to_pylist():
        if not is_bare_name(name):
            raise DataError(f"the index names a shard outside its folder: {name!r}", where=where)
        known.setdefault(name, len(known))
    numbers = np.array([known[name] for name in coded.dictionary.to_pylist()], dtype=np.int32)
    found: NDArray[np.int32] = numbers[_numbers(coded.indices)]
    return found
