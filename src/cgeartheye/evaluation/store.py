"""Pieces of an evaluation on disk: feature and prediction files, whole or absent, so that a killed run resumes by what exists."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cgeartheye.files import atomic_path, write_bytes

SCHEMA_VERSION = 1


@dataclass(frozen=True, order=True)
class Column:
    """One way to describe a picture: a network's readout, or plain numbers."""

    method: str
    readout: str
    number: int
    """Training seed; 0 for plain numbers."""

    @property
    def stem(self) -> str:
        """Start of its file names."""
        return f"{self.method}.s{self.number}.{self.readout}"


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array, for example (n, d), as ``.npy``, atomically."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def load_array(path: Path) -> NDArray[Any]:
    """Read an ``.npy`` file; an array of any shape."""
    array: NDArray[Any] = np.load(path, allow_pickle=False)
    return array


def save_table(path: Path, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> None:
    """Write columns, each (n,), as Parquet with the schema version in its metadata, atomically."""
    write_arrow(path, pa.table({key: pa.array(value) for key, value in columns.items()}))


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write a table as Parquet with the schema version in its metadata, atomically."""
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)}), temporary)


def load_column(path: Path, column: str) -> list[Any]:
    """Return one column of a Parquet file."""
    values: list[Any] = pq.read_table(path, columns=[column])[column].to_pylist()
    return values


def piece(path: Path, make: Callable[[], Mapping[str, Sequence[Any] | NDArray[Any]]]) -> Path:
    """Make the Parquet file ``path`` from the columns, each (n,), that ``make`` returns, unless it exists."""
    if not path.exists():
        save_table(path, make())
    return path
