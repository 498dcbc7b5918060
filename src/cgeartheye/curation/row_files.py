"""Features in files, read block by block, for clustering that must not hold them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.rows import Index
from cgeartheye.errors import DataError

_MAPPED_ROWS: Final = 16_384
"""Rows read through one mapping, which is closed after: pages that stay mapped count as memory of the process."""


class RowFiles:
    """The rows of several ``.npy`` files (n_i, d), float16 or float32, one file after another; rows of clustering.

    Raises:
        DataError: if a file is not such an array, or widths or types differ.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        heads = [(path, self._head(path)) for path in paths]
        kept = [(path, head) for path, head in heads if head.shape[0]]
        if len({(head.shape[1:], head.dtype) for _, head in kept}) != 1:
            raise DataError("features differ in width or type", where=str(paths[0].parent) if paths else None)
        self._paths = [path for path, _ in kept]
        self._ends = np.cumsum([len(head) for _, head in kept])
        self._dtype, self._width = kept[0][1].dtype, int(kept[0][1].shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return int(self._ends[-1]), self._width

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: Index, /) -> NDArray[Any]:
        rows = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index, np.int64)
        found = np.empty((len(rows), self._width), self._dtype)
        of = np.searchsorted(self._ends, rows, side="right")
        for file in np.unique(of):
            at = np.flatnonzero(of == file)
            start = self._ends[file - 1] if file else 0
            for block in range(0, len(at), _MAPPED_ROWS):
                some = at[block : block + _MAPPED_ROWS]
                found[some] = np.load(self._paths[file], mmap_mode="r")[rows[some] - start]
        return found

    @staticmethod
    def _head(path: Path) -> NDArray[Any]:
        try:
            head: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"not an array of features: {error}", where=str(path), remedy="remove it and embed again") from error
        if len(head) and (head.ndim != 2 or head.dtype.name not in {"float16", "float32"}):
            raise DataError(f"expected (n, d) of float16 or float32, got {head.shape} of {head.dtype}", where=str(path))
        return head
