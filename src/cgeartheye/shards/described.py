"""What an index says of chips beyond their positions, read where it is asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cgeartheye.shards.mapped import DESCRIBED, cast, open_index, unreadable

_GROUPS_KEPT: Final = 4
"""Row groups of descriptions in memory, a few megabytes each [ours]."""


class Described(Protocol):
    """The columns of an index."""

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return :data:`cgeartheye.shards.mapped.DESCRIBED` of rows start .. stop - 1."""

    def table(self, columns: Sequence[str] | None) -> pa.Table:
        """Return some columns of all rows, or all known columns."""


class TableDescribed:
    """Descriptions of an index in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return descriptions of rows start .. stop - 1."""
        return _plain(self._table.select(DESCRIBED).slice(start, stop - start))

    def table(self, columns: Sequence[str] | None) -> pa.Table:
        """Return some columns, or all."""
        return self._table if columns is None else self._table.select(list(columns))


class FileDescribed:
    """Descriptions of an index file, of which only a few row groups are in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._index: pq.ParquetFile | None = None
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()

    def rows(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Return descriptions of rows start .. stop - 1; raises DataError if the file cannot be read."""
        found: list[dict[str, Any]] = []
        with self._lock:
            ends = self._ends()
            while start < stop:
                group = int(np.searchsorted(ends, start, side="right"))
                first, last = int(ends[group - 1]) if group else 0, min(stop, int(ends[group]))
                found += _plain(self._group(group).slice(start - first, last - start))
                start = last
        return found

    def table(self, columns: Sequence[str] | None) -> pa.Table:
        """Return some columns, or all known; raises DataError if the file cannot be read or lacks one of them."""
        try:
            table = cast(pq.read_table(self._path, columns=None if columns is None else list(columns)))
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self._path, error) from error
        return table if columns is None else table.select(list(columns))

    def _opened(self) -> pq.ParquetFile:
        if self._index is None:
            self._index = open_index(self._path)
        return self._index

    def _ends(self) -> Any:  # noqa: ANN401 - (groups,) int64
        told = self._opened().metadata
        return np.cumsum([told.row_group(number).num_rows for number in range(told.num_row_groups)])

    def _group(self, number: int) -> pa.Table:
        if number not in self._kept:
            try:
                self._kept[number] = cast(self._opened().read_row_group(number, columns=list(DESCRIBED)))
            except (OSError, pa.ArrowException) as error:
                raise unreadable(self._path, error) from error
            if len(self._kept) > _GROUPS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.select(DESCRIBED).to_pylist()
    return [{**row, "year": row["year"] or 0, "quarter": row["quarter"] or 0} for row in rows]
