"""Three stores of chips - raw files, LMDB, ours - and how each is read once; ``performance/shards.py`` compares them.

It imports no torch, because where memory is limited what a reader imports counts. As a command it reads one store once:

    python performance/stores.py FOLDER KIND DATES < PLACES.json
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from cgeartheye.shards.reader import ShardReader, decode_chip

DATES = 4
AHEAD = 64
"""Samples of a batch, of which our reader is told before it reads the batch before: the order is known."""

Wanted = tuple[int, range]
"""A place and the dates of it that a sample has."""


class Store(Protocol):
    """Chips by place and date."""

    def chip(self, place: int, date: int) -> bytes: ...

    def sample(self, place: int, dates: range) -> Sequence[bytes | memoryview]:
        return [self.chip(place, date) for date in dates]

    def decode(self, place: int, dates: range) -> None:
        for date in dates:
            decode_chip(self.chip(place, date))

    def expect(self, batch: list[Wanted]) -> None: ...

    def close(self) -> None: ...


class Raw(Store):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def chip(self, place: int, date: int) -> bytes:
        return raw_path(self._folder, place, date).read_bytes()


class Lmdb(Store):
    def __init__(self, folder: Path, *, readahead: bool) -> None:
        self._env = lmdb_module().open(str(folder), readonly=True, lock=False, readahead=readahead)
        self._txn = self._env.begin()

    def chip(self, place: int, date: int) -> bytes:
        found: bytes = self._txn.get(lmdb_key(place, date))
        return found

    def close(self) -> None:
        self._txn.abort()
        self._env.close()


class Ours(Store):
    def __init__(self, folder: Path, *, told: bool) -> None:
        self._reader, self._told = ShardReader(folder), told

    def chip(self, place: int, date: int) -> bytes:
        return self._reader.read_row(DATES * place + date)

    def sample(self, place: int, dates: range) -> Sequence[bytes | memoryview]:
        return super().sample(place, dates) if len(dates) == 1 else self._reader.read_place(place)

    def decode(self, place: int, dates: range) -> None:
        for date in dates:
            self._reader.decode_row(DATES * place + date)

    def expect(self, batch: list[Wanted]) -> None:
        if self._told:
            self._reader.expect(sorted(DATES * place + date for place, dates in batch for date in dates))


def lmdb_module() -> Any:  # noqa: ANN401 - the module, which has no types
    try:
        import lmdb
    except ImportError as error:
        raise SystemExit("lmdb is not installed: see this script's head") from error
    return lmdb


def raw_path(folder: Path, place: int, date: int) -> Path:
    return folder / f"{place // 256:04d}" / f"{place:08d}.d{date}.jpg"


def lmdb_key(place: int, date: int) -> bytes:
    return f"{place:08d}.d{date}".encode()


def open_store(kind: str, folder: Path) -> Store:
    match kind:
        case "raw files":
            return Raw(folder / "raw")
        case "LMDB" | "LMDB, read-ahead":
            return Lmdb(folder / "lmdb", readahead="read-ahead" in kind)
        case _:
            return Ours(folder / "shards", told=kind == "ours")


KINDS = ("raw files", "LMDB", "LMDB, read-ahead", "ours", "ours, untold")
LMDBS = ("LMDB", "LMDB, read-ahead")


def evict(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def wanted(places: list[int], dates: int) -> list[Wanted]:
    """One date of each place, or all of them."""
    return [(place, range(at % DATES, at % DATES + 1) if dates == 1 else range(DATES)) for at, place in enumerate(places)]


def run(store: Store, samples: list[Wanted], *, decode: bool = False) -> None:
    batches = [samples[first : first + AHEAD] for first in range(0, len(samples), AHEAD)]
    store.expect(batches[0])
    for number, batch in enumerate(batches):
        if number + 1 < len(batches):
            store.expect(batches[number + 1])
        for place, dates in batch:
            if decode:
                store.decode(place, dates)
            else:
                store.sample(place, dates)


def timed(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def once(kind: str, folder: Path, samples: list[Wanted]) -> tuple[float, float]:
    """Return chips of a cold store a second of the clock, and a second in which no processor was waited for."""
    evict(folder)

    def work() -> None:
        store = open_store(kind, folder)
        run(store, samples)
        store.close()

    waited = _waited()
    seconds = timed(work, time.monotonic)
    waited = _waited() - waited
    chips = sum(len(dates) for _, dates in samples)
    return chips / seconds, chips / (seconds - waited)


def _waited() -> float:
    """Seconds that this thread was ready and waited for a processor."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


def main() -> None:
    folder, kind, dates = sys.argv[1:]
    print(json.dumps(once(kind, Path(folder), wanted(json.load(sys.stdin), int(dates)))))


if __name__ == "__main__":
    main()
