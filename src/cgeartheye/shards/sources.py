"""Bytes of shards, by file name, offset and length; here those of a local folder.

They are read by ``pread`` rather than out of maps of the files: a map would save a copy, 1 to 2 % of what decoding takes, and
nothing where more shards are read than stay open; but a shard that is cut short, or a disk that fails, would end the process by a
signal in place of an error that names the chip.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final, Protocol

from cgeartheye.errors import DataError

OPEN_SHARDS: Final = 64
"""Shards a thread keeps open at most [ours]."""


class Source(Protocol):
    """Where the bytes of shards come from; may be shared by threads and forked."""

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` of a shard, fewer only where it ends; raises DataError or ResourceError."""

    def where(self, shard: str) -> str:
        """Return the path or URL of a shard."""


class LocalShards:
    """Shards of a local folder, opened when first read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open = threading.local()

    def read(self, shard: str, offset: int, length: int) -> bytes:
        """Return bytes by ``pread``; raises DataError if the shard is missing."""
        return os.pread(self._descriptor(shard).number, length, offset)

    def expect(self, shard: str, offset: int, length: int) -> None:
        """Say that bytes will be read soon: the kernel begins to read into its cache."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor(shard).number, offset, length, os.POSIX_FADV_WILLNEED)

    def where(self, shard: str) -> str:
        """Return the path of a shard."""
        return str(self._folder / shard)

    def _descriptor(self, shard: str) -> _Descriptor:
        kept: OrderedDict[str, _Descriptor] = self._open.__dict__.setdefault("kept", OrderedDict())
        if shard not in kept:
            kept[shard] = _Descriptor(self._folder / shard)
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
