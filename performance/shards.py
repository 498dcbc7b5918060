"""Shards beside raw files and LMDB (read-ahead on and off) in one run; and an index of 16 million rows.

    OMP_NUM_THREADS=1 PYTHONPATH=src:LMDB python performance/shards.py stores --folder SCRATCH [--places 2000] [--limit-mb 256]
    OMP_NUM_THREADS=1 PYTHONPATH=src python performance/shards.py index --folder SCRATCH [--rows 16000000]

LMDB is a folder that ``pip install --target LMDB lmdb`` filled; it is no dependency of the package. SCRATCH needs 0.5 MB a place
for each of three stores. Chips are 512-px JPEGs, four dates a place, read in the order of pre-training (``sample_index``), one
thread; contestants take turns and the figures are medians of rounds. Warm figures are per CPU second (system time included), cold
ones per second of the clock: before each of them the store is dropped from the page cache (``posix_fadvise``). Limited memory is
a memory control group below this process's own, in which a fresh process reads each store once; it needs the right to make one.

Bars: decoded rate per CPU second 0.95 of decoding from memory; first sample under 50 ms; cold reads 0.8 of the better LMDB where
the store fits memory, faster than both where it does not; samples of four dates likewise. Index: first open under 1.5 GB, later
ones under 0.2 s, under 50 MB of private memory a process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from loader import DATES, coded, synthetic
from numpy.typing import NDArray
from rates import decode_rate, gemm_rate

from cgeartheye.shards.format import INDEX_SCHEMA, Chip, Place, shard_name
from cgeartheye.shards.reader import ShardReader, decode_chip
from cgeartheye.shards.sampler import sample_index
from cgeartheye.shards.writer import write_shards

PICTURES = 48
"""Different pictures; each is stored many times."""
AHEAD = 64
"""Reads that our reader tells the kernel of before it makes them: the order is known."""


class Store(Protocol):
    """A place's chips by number."""

    def chip(self, place: int, date: int) -> bytes: ...
    def sample(self, place: int) -> list[bytes]: ...
    def expect(self, place: int, dates: range) -> None: ...
    def close(self) -> None: ...


class Raw:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def chip(self, place: int, date: int) -> bytes:
        return _raw(self._folder, place, date).read_bytes()

    def sample(self, place: int) -> list[bytes]:
        return [self.chip(place, date) for date in range(DATES)]

    def expect(self, place: int, dates: range) -> None: ...

    def close(self) -> None: ...


class Lmdb:
    def __init__(self, folder: Path, *, readahead: bool) -> None:
        self._env = _lmdb().open(str(folder), readonly=True, lock=False, readahead=readahead)
        self._txn = self._env.begin()

    def chip(self, place: int, date: int) -> bytes:
        found: bytes = self._txn.get(_key(place, date))
        return found

    def sample(self, place: int) -> list[bytes]:
        return [self.chip(place, date) for date in range(DATES)]

    def expect(self, place: int, dates: range) -> None: ...

    def close(self) -> None:
        self._txn.abort()
        self._env.close()


class Ours:
    def __init__(self, folder: Path, *, told: bool) -> None:
        self._reader, self._told = ShardReader(folder), told

    def chip(self, place: int, date: int) -> bytes:
        return self._reader.read_row(DATES * place + date)

    def sample(self, place: int) -> list[bytes]:
        return list(self._reader.read_place(place))

    def expect(self, place: int, dates: range) -> None:
        if self._told:
            self._reader.expect([DATES * place + date for date in dates])

    def close(self) -> None: ...


def _lmdb() -> Any:  # noqa: ANN401 - the module, which has no types
    try:
        import lmdb
    except ImportError as error:
        raise SystemExit("lmdb is not installed: see this script's head") from error
    return lmdb


def _raw(folder: Path, place: int, date: int) -> Path:
    return folder / f"{place // 256:04d}" / f"{place:08d}.d{date}.jpg"


def _key(place: int, date: int) -> bytes:
    return f"{place:08d}.d{date}".encode()


def _open(kind: str, folder: Path) -> Store:
    match kind:
        case "raw files":
            return Raw(folder / "raw")
        case "LMDB" | "LMDB, read-ahead":
            return Lmdb(folder / "lmdb", readahead="read-ahead" in kind)
        case _:
            return Ours(folder / "shards", told="told" in kind)


KINDS = ("raw files", "LMDB", "LMDB, read-ahead", "ours", "ours, told ahead")


def make(folder: Path, places: int) -> list[bytes]:
    """Write the three stores, unless they are there, and return the different pictures."""
    jpegs = [coded(synthetic(number)) for number in range(PICTURES)]
    done = folder / f"made.{places}"
    if done.exists():
        return jpegs
    shutil.rmtree(folder, ignore_errors=True)

    def chips(place: int) -> list[bytes]:
        return [jpegs[(DATES * place + date) % PICTURES] for date in range(DATES)]

    write_shards(folder / "shards", [Place(f"{p:08d}", tuple(Chip(jpeg, {}) for jpeg in chips(p)), {}) for p in range(places)])
    env = _lmdb().open(str(folder / "lmdb"), map_size=2**36)
    for first in range(0, places, 256):
        (folder / "raw" / f"{first // 256:04d}").mkdir(parents=True)
        with env.begin(write=True) as txn:
            for place in range(first, min(places, first + 256)):
                for date, jpeg in enumerate(chips(place)):
                    txn.put(_key(place, date), jpeg, append=True)
                    _raw(folder / "raw", place, date).write_bytes(jpeg)
    env.close()
    os.sync()
    done.touch()
    return jpegs


def evict(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def run(store: Store, order: NDArray[np.int64], *, dates: int, decode: bool = False) -> None:
    """Read one date of each place, or all of them."""
    places = order.tolist()
    wanted = [range(at % DATES, at % DATES + 1) if dates == 1 else range(DATES) for at in range(len(places))]
    for ahead in range(min(AHEAD, len(places))):
        store.expect(places[ahead], wanted[ahead])
    for at, place in enumerate(places):
        if at + AHEAD < len(places):
            store.expect(places[at + AHEAD], wanted[at + AHEAD])
        for jpeg in [store.chip(place, at % DATES)] if dates == 1 else store.sample(place):
            if decode:
                decode_chip(jpeg)


def decode_all(jpegs: list[bytes]) -> None:
    for jpeg in jpegs:
        decode_chip(jpeg)


def timed(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def medians(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    found = [{name: measure() for name, measure in contestants.items()} for _ in range(rounds)]
    return {name: statistics.median(one[name] for one in found) for name in contestants}


def warm(folder: Path, order: NDArray[np.int64], rounds: int, each: list[int]) -> None:
    def spent(kind: str, places: NDArray[np.int64], dates: int, *, decode: bool) -> float:
        store = _open(kind, folder)  # LMDB may be open only once in a process
        run(store, places[:8], dates=dates)
        seconds = timed(lambda: run(store, places, dates=dates, decode=decode), time.process_time)
        store.close()
        return seconds

    for dates in each:
        read = {k: lambda k=k: spent(k, order, dates, decode=False) for k in KINDS[:4]}  # type: ignore[misc]  # noqa: B023
        found = medians(read, rounds + 1)  # the first round reads from disk
        told = ", ".join(f"{name} {dates * len(order) / seconds:,.0f}" for name, seconds in found.items())
        print(f"warm, {dates} of {DATES} dates, not decoded, chips a CPU second: {told}", flush=True)
        part = order[: 400 // dates]
        kept = _open("ours", folder)
        chosen = (
            [kept.chip(p, at % DATES) for at, p in enumerate(part.tolist())]
            if dates == 1
            else [jpeg for p in part.tolist() for jpeg in kept.sample(p)]
        )
        decoded = {k: lambda k=k: spent(k, part, dates, decode=True) for k in KINDS[:4]}  # type: ignore[misc]  # noqa: B023
        decoded["memory"] = lambda: timed(lambda: decode_all(chosen), time.process_time)  # noqa: B023
        found = medians(decoded, 2 * rounds + 1)
        told = ", ".join(
            f"{name} {len(chosen) / seconds:,.0f} ({found['memory'] / seconds:.3f})" for name, seconds in found.items()
        )
        print(f"warm, {dates} of {DATES} dates, decoded, chips a CPU second (share of memory): {told}", flush=True)


def first_sample(folder: Path, rounds: int) -> None:
    for name, clock in (("of the clock", time.monotonic), ("of CPU", time.process_time)):

        def one(kind: str) -> float:
            evict(folder)

            def work() -> None:
                store = _open(kind, folder)
                run(store, np.array([7]), dates=DATES, decode=True)
                store.close()

            return 1e3 * timed(work, clock)  # noqa: B023

        found = medians({kind: lambda k=kind: one(k) for kind in KINDS[:4]}, rounds)  # type: ignore[misc]
        told = ", ".join(f"{kind} {value:.1f}" for kind, value in found.items())
        print(f"first sample of {DATES} dates, cold, opened and decoded, ms {name}: {told}", flush=True)


def once(kind: str, folder: Path, order: NDArray[np.int64], dates: int) -> float:
    """Return chips a second of a cold store."""
    evict(folder)

    def work() -> None:
        store = _open(kind, folder)
        run(store, order, dates=dates)
        store.close()

    return dates * len(order) / timed(work, time.monotonic)


def _told(found: dict[str, float]) -> str:
    best = max(found["LMDB"], found["LMDB, read-ahead"])
    return ", ".join(f"{kind} {value:,.0f} ({value / best:.2f})" for kind, value in found.items())


def cold(folder: Path, order: NDArray[np.int64], rounds: int, each: list[int]) -> None:
    for dates in each:
        found = medians({kind: lambda k=kind: once(k, folder, order, dates) for kind in KINDS}, rounds)  # type: ignore[misc]  # noqa: B023
        print(
            f"cold, fits memory, {dates} of {DATES} dates, chips a second (share of the better LMDB): {_told(found)}", flush=True
        )


@contextmanager
def control_group(limit: int) -> Iterator[Path]:
    """Make a memory control group below this process's own; OSError where that is not allowed."""
    groups = dict(reversed(line.split(":", 2)[1:]) for line in Path("/proc/self/cgroup").read_text().splitlines())
    named = {names: path for path, names in groups.items()}
    first = "memory" in named
    base = Path("/sys/fs/cgroup/memory" if first else "/sys/fs/cgroup") / named["memory" if first else ""].lstrip("/")
    group = base / f"shards-{os.getpid()}"
    group.mkdir()
    try:
        (group / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit))
        yield group
    finally:
        group.rmdir()


def limited(arguments: argparse.Namespace, order: NDArray[np.int64]) -> None:
    """Read each store once in a fresh process whose memory, page cache included, is limited."""
    places = json.dumps(order.tolist())

    def one(kind: str, dates: int, group: Path) -> float:
        command = [sys.executable, __file__, "once", "--folder", str(arguments.folder), "--kind", kind, "--dates", str(dates)]
        entered = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
        ended = subprocess.run(entered, input=places, capture_output=True, text=True, check=False)
        if ended.returncode:
            print(f"{kind} ended with {ended.returncode}: {ended.stderr[-300:]}")
        return float(ended.stdout or "nan")

    size = sum(path.stat().st_size for path in (arguments.folder / "stores" / "shards").rglob("*.tar"))
    try:
        with control_group(arguments.limit_mb * 10**6) as group:
            for dates in arguments.each:
                found = medians({k: lambda k=k: one(k, dates, group) for k in KINDS}, arguments.rounds)  # type: ignore[misc]  # noqa: B023
                what = f"{size / 1e6:.0f} MB with {arguments.limit_mb} MB of memory, {dates} of {DATES} dates"
                print(f"cold, {what}, chips a second (share of the better LMDB): {_told(found)}", flush=True)
    except OSError as error:
        print(f"limited memory not measured: no control group may be made here ({error})")


def stores(arguments: argparse.Namespace) -> None:
    folder = arguments.folder / "stores"
    jpegs = make(folder, arguments.places)
    mean = np.mean([len(jpeg) for jpeg in jpegs]) / 1e3
    versions = f"lmdb {_lmdb().__version__}, {arguments.places} places of {DATES} chips of {mean:.0f} kB"
    print(f"{gemm_rate():.0f} GFLOP and {decode_rate():.0f} Pillow-decoded JPEGs a CPU second; {versions}", flush=True)
    order = sample_index(0, np.arange(arguments.places), arguments.places)
    if "warm" in arguments.parts:
        warm(folder, order, arguments.rounds, arguments.each)
    if "first" in arguments.parts:
        first_sample(folder, arguments.rounds)
    if "cold" in arguments.parts:
        cold(folder, order, arguments.rounds, arguments.each)
    if "limited" in arguments.parts:
        limited(arguments, order)


def _rows(first: int, count: int, places_a_shard: int) -> pa.Table:
    """Rows of an index; columns that opening does not read are null."""
    row = np.arange(first, first + count)
    place, date = row // DATES, row % DATES
    random = np.random.default_rng(first)
    shard, inside = place // places_a_shard, place % places_a_shard
    texts = {
        "place": pa.array([f"c{k * 7919:012d}" for k in range(place[0], place[-1] + 1)]).take(pa.array(place - place[0])),
        "shard": pa.DictionaryArray.from_arrays(
            pa.array(shard - shard[0]), [shard_name(int(k)) for k in range(shard[0], shard[-1] + 1)]
        ).cast(pa.string()),
    }
    numbers = {
        "date_index": date,
        "offset": 512 + inside * 400_000 + date * 90_000,
        "length": random.integers(60_000, 89_000, count),
        "crc32": random.integers(0, 2**32, count),
        "year": np.full(count, 2023),
        "quarter": date + 1,
        "width": np.full(count, 512),
        "height": np.full(count, 512),
        "gsd_m": np.full(count, 0.75),
        "cell": place * 977,
    }
    known = texts | {name: pa.array(values, INDEX_SCHEMA.field(name).type) for name, values in numbers.items()}
    return pa.table([known.get(f.name, pa.nulls(count, f.type)) for f in INDEX_SCHEMA], schema=INDEX_SCHEMA)


def _private_mb() -> float:
    """Memory of this process that others cannot share: pages of a mapped file are not written to, so they are not "dirty"."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1e3


def opened(arguments: argparse.Namespace) -> None:
    """In a fresh process: open the index, look up places, print what it cost."""
    with tempfile.TemporaryDirectory() as scratch:  # what the first use of each library costs is not the index's
        small = write_shards(Path(scratch), [Place("a", (Chip(coded(synthetic(0)), {}),), {})])
        ShardReader(small).decode(0, 0)
    peak, private, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, _private_mb(), time.process_time()
    start = time.monotonic()
    reader = ShardReader(arguments.folder / "index")
    first = reader.place(int(sample_index(0, 0, len(reader))))
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    for place in sample_index(1, np.arange(20_000), len(reader)).tolist():
        reader.place(place)
        reader.shard_of(int(reader.starts()[place]))
        reader._bytes(int(reader.starts()[place]))
    top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = f"peak {top / 1e6:.2f} GB ({peak / 1e6:.2f} before), {_private_mb() - private:.1f} MB private after 20,000 look-ups"
    print(f"{len(reader):,} places from {first}: {seconds:.3f} s, {cpu:.3f} CPU s, {told}", flush=True)


def index(arguments: argparse.Namespace) -> None:
    folder = arguments.folder / "index"
    path = folder / "index.parquet"
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    if not path.exists() or pq.ParquetFile(path).metadata.num_rows != arguments.rows:
        group = 2**16
        unfinished = path.with_suffix(".unfinished")
        with pq.ParquetWriter(unfinished, INDEX_SCHEMA, compression="zstd") as file:
            for first in range(0, arguments.rows, group):
                file.write_table(_rows(first, min(group, arguments.rows - first), 750))
        unfinished.replace(path)
    for old in folder.glob(".positions-*"):
        shutil.rmtree(old)
    print(
        f"{gemm_rate():.0f} GFLOP and {decode_rate():.0f} JPEGs a CPU second; index {path.stat().st_size / 1e6:.0f} MB",
        flush=True,
    )
    for number in range(3):
        print("first open: " if number == 0 else "later open: ", end="", flush=True)
        subprocess.run([sys.executable, __file__, "open", "--folder", str(arguments.folder)], check=True)
    size = sum(file.stat().st_size for copy in folder.glob(".positions-*") for file in copy.iterdir())
    print(f"mapped copy {size / 1e6:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stores", "index", "once", "open"), help="once and open are what this script starts")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["warm", "first", "cold", "limited"])
    parser.add_argument(
        "--each", nargs="+", type=int, choices=(1, DATES), default=[1, DATES], help="dates of a place read at once"
    )
    parser.add_argument("--places", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-mb", type=int, default=256)
    parser.add_argument("--rows", type=int, default=16_000_000)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--dates", type=int)
    arguments = parser.parse_args()
    match arguments.what:
        case "stores":
            stores(arguments)
        case "index":
            index(arguments)
        case "open":
            opened(arguments)
        case "once":
            print(once(arguments.kind, arguments.folder / "stores", np.array(json.load(sys.stdin)), arguments.dates))


if __name__ == "__main__":
    main()
