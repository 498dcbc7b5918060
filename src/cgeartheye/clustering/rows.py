"""Rows that need not fit into memory: anything that gives blocks of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError

_READ_ROWS = 16_384


Index = slice | NDArray[np.int64]


class NotFiniteError(DataError):
    """Rows have values that are not finite.

    Args:
        rows: (m,) their positions, increasing.
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        super().__init__(f"{len(rows)} rows have values that are not finite, the first are {rows[:5].tolist()}")
        self.rows = rows


class Rows(Protocol):
    """A table (n, d) of float32 or float16: an array, a memory-mapped file, or a class that reads blocks when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Index, /) -> NDArray[Any]:
        """Return the rows of a slice, or of increasing positions (m,) int64."""


@dataclass(frozen=True)
class Picked:
    """Some rows of a table, read when asked.

    Args:
        rows: (n, d).
        positions: (m,) int64, increasing.
    """

    rows: Rows
    positions: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, d)."""
        return len(self.positions), self.rows.shape[1]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: Index, /) -> NDArray[Any]:
        return self.rows[self.positions[index]]


def chunks(rows: Rows, size: int) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield consecutive blocks of ``size`` rows (the last may be shorter) as float32, with where they are."""
    for start in range(0, len(rows), size):
        chunk = slice(start, min(start + size, len(rows)))
        yield chunk, np.asarray(rows[chunk], np.float32)


def squared_lengths(rows: Rows) -> NDArray[np.float32]:
    """Return the squared length of each row (n,).

    Raises: NotFiniteError: if a value is not finite, or so large that its square is not.
    """
    lengths = np.empty(len(rows), np.float32)
    for chunk, x in chunks(rows, _READ_ROWS):
        lengths[chunk] = squares(x)
    bad = np.flatnonzero(~np.isfinite(lengths))
    if bad.size:
        raise NotFiniteError(bad)
    return lengths


def squares(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the squared length of each row of an array (n, d)."""
    found: NDArray[np.float32] = np.einsum("nd,nd->n", x, x)
    return found


def distinct(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the different rows of ``x`` (n, d) in order of first appearance."""
    _, first = np.unique(x, axis=0, return_index=True)
    return np.ascontiguousarray(x[np.sort(first)])
