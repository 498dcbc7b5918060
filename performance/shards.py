"""Shards beside raw files and LMDB (read-ahead on and off) in one run; and an index of 16 million rows.

    OMP_NUM_THREADS=1 PYTHONPATH=src:LMDB python performance/shards.py stores --folder SCRATCH [--places 2000] [--limit-mb 256]
    OMP_NUM_THREADS=1 PYTHONPATH=src python performance/shards.py index --folder SCRATCH [--rows 16000000]

LMDB is a folder that ``pip install --target LMDB lmdb`` filled; it is no dependency of the package. SCRATCH needs 0.5 MB a place
for each of three stores. Chips are 512-px JPEGs, four dates a place, read in the order of pre-training (``sample_index``) by one
thread. "ours" reads as pre-training does: it tells the reader a batch of 64 samples ahead, and decodes row by row; "ours, untold"
reads one sample after the other. Contestants take turns; figures are medians of rounds, shares those of the rounds' ratios.

Warm figures are per CPU second (system time included); decoding is compared in blocks of eight chips, the contestants one after
the other with the same block, because a busy machine's caches and clock drift within one pass. Cold ones are per second of the
clock, and once more without the seconds that the process waited for a processor (``schedstat``), which is other work's doing;
before each the store is dropped from the page cache (``posix_fadvise``). Limited memory is a memory control group below this
process's own, in which a fresh process reads each store once; it needs the right to make one.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from loader import coded, synthetic
from numpy.typing import NDArray
from rates import decode_rate, gemm_rate
from stores import (
    DATES,
    KINDS,
    LMDBS,
    Wanted,
    evict,
    lmdb_key,
    lmdb_module,
    once,
    open_store,
    raw_path,
    run,
    timed,
    wanted,
)

from cgeartheye.shards.format import INDEX_SCHEMA, Chip, Place, shard_name
from cgeartheye.shards.reader import ShardReader, decode_chip
from cgeartheye.shards.sampler import sample_index
from cgeartheye.shards.writer import write_shards

PICTURES = 48
"""Different pictures; each is stored many times."""
BLOCK = 8
"""Chips decoded at a time where contestants are compared."""


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
    env = lmdb_module().open(str(folder / "lmdb"), map_size=2**36)
    for first in range(0, places, 256):
        (folder / "raw" / f"{first // 256:04d}").mkdir(parents=True)
        with env.begin(write=True) as txn:
            for place in range(first, min(places, first + 256)):
                for date, jpeg in enumerate(chips(place)):
                    txn.put(lmdb_key(place, date), jpeg, append=True)
                    raw_path(folder / "raw", place, date).write_bytes(jpeg)
    env.close()
    os.sync()
    done.touch()
    return jpegs


Rounds = list[dict[str, float]]


def rounds_of(contestants: Sequence[str], measure: Callable[[str], float], rounds: int) -> Rounds:
    """Measure each in turn, every other round backwards."""
    return [{name: measure(name) for name in contestants[:: 1 - 2 * (number % 2)]} for number in range(rounds)]


def medians(found: Rounds) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def shares(found: Rounds, against: Sequence[str]) -> dict[str, float]:
    """Medians of each one's rate over the best of ``against`` in the same round."""
    return {name: statistics.median(one[name] / max(one[a] for a in against) for one in found) for name in found[0]}


def told(found: Rounds, against: Sequence[str]) -> str:
    of = shares(found, against)
    return ", ".join(f"{name} {value:,.0f} ({of[name]:.3f})" for name, value in sorted(medians(found).items()))


def warm(folder: Path, order: NDArray[np.int64], rounds: int, each: list[int]) -> None:
    def rate(kind: str, samples: list[Wanted]) -> float:
        store = open_store(kind, folder)  # LMDB may be open only once in a process
        run(store, samples[:8])
        seconds = timed(lambda: run(store, samples), time.process_time)
        store.close()
        return sum(len(dates) for _, dates in samples) / seconds

    for dates in each:
        samples = wanted(order.tolist(), dates)
        rounds_of(KINDS, lambda kind: rate(kind, samples), 1)  # noqa: B023 - from disk
        found = rounds_of(KINDS, lambda kind: rate(kind, samples), rounds)  # noqa: B023
        print(
            f"warm, {dates} of {DATES} dates, not decoded, chips a CPU second (share of LMDB): {told(found, LMDBS)}", flush=True
        )
        for pair in LMDBS:
            decoded(folder, samples[: 400 // dates], rounds, ("raw files", pair, "ours", "memory"))


def decoded(folder: Path, samples: list[Wanted], rounds: int, kinds: tuple[str, ...]) -> None:
    """Decode blocks of the same chips out of each store; shares are those of the sums of a round."""
    dates = len(samples[0][1])
    stores = {kind: open_store(kind, folder) for kind in kinds if kind != "memory"}
    kept = [[bytes(chip) for chip in stores["ours"].sample(place, which)] for place, which in samples]
    per, random = BLOCK // dates, np.random.default_rng(0)
    firsts = range(0, len(samples) - per + 1, per)
    found: Rounds = []
    for _ in range(rounds):
        spent = dict.fromkeys(kinds, 0.0)
        for first in firsts:
            block, loaded = samples[first : first + per], [jpeg for chips in kept[first : first + per] for jpeg in chips]
            for kind in random.permutation(kinds).tolist():
                work = decode_all if kind == "memory" else partial(run, stores[kind], decode=True)
                spent[kind] += timed(partial(work, loaded if kind == "memory" else block), time.process_time)
        found.append({kind: BLOCK * len(firsts) / seconds for kind, seconds in spent.items()})
    for store in stores.values():
        store.close()
    print(f"warm, {dates} of {DATES} dates, decoded, chips a CPU second (share of memory): {told(found, ['memory'])}", flush=True)


def decode_all(jpegs: list[bytes]) -> None:
    for jpeg in jpegs:
        decode_chip(jpeg)


def first_sample(folder: Path, rounds: int) -> None:
    for name, clock in (("of the clock", time.monotonic), ("of CPU", time.process_time)):

        def one(kind: str) -> float:
            evict(folder)

            def work() -> None:
                store = open_store(kind, folder)
                run(store, [(7, range(DATES))], decode=True)
                store.close()

            return 1e3 * timed(work, clock)  # noqa: B023

        found = medians(rounds_of(KINDS[:4], one, rounds))
        values = ", ".join(f"{kind} {value:.1f}" for kind, value in found.items())
        print(f"first sample of {DATES} dates, cold, opened and decoded, ms {name}: {values}", flush=True)


def report(found: Callable[[str], tuple[float, float]], rounds: int, what: str) -> None:
    """Print both rates of cold reads and their shares of the better LMDB."""
    both = [{kind: found(kind) for kind in KINDS[:: 1 - 2 * (number % 2)]} for number in range(rounds)]
    for at, clock in enumerate(("second", "second not waited for a processor")):
        rates = [{kind: one[kind][at] for kind in KINDS} for one in both]
        print(f"cold, {what}, chips a {clock} (share of the better LMDB): {told(rates, LMDBS)}", flush=True)


def cold(folder: Path, order: NDArray[np.int64], rounds: int, each: list[int]) -> None:
    for dates in each:
        samples = wanted(order.tolist(), dates)
        report(lambda kind: once(kind, folder, samples), rounds, f"fits memory, {dates} of {DATES} dates")  # noqa: B023


@contextmanager
def control_group(limit: int) -> Iterator[Path]:
    """Make a memory control group below this process's own; OSError where that is not allowed."""
    lines = (line.split(":", 2)[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    named = {name: path for names, path in lines for name in names.split(",")}
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

    def one(kind: str, dates: int, group: Path) -> tuple[float, float]:
        script = Path(__file__).with_name("stores.py")
        command = [sys.executable, str(script), str(arguments.folder / "stores"), kind, str(dates)]
        entered = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
        ended = subprocess.run(entered, input=places, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise SystemExit(f"{kind} ended with {ended.returncode}: {ended.stderr[-300:]}")
        rates: tuple[float, float] = tuple(json.loads(ended.stdout))
        return rates

    size = sum(path.stat().st_size for path in (arguments.folder / "stores" / "shards").rglob("*.tar"))
    try:
        with control_group(arguments.limit_mb * 10**6) as group:
            for dates in arguments.each:
                what = f"{size / 1e6:.0f} MB with {arguments.limit_mb} MB of memory, {dates} of {DATES} dates"
                report(lambda kind: one(kind, dates, group), arguments.rounds, what)  # noqa: B023
    except OSError as error:
        print(f"limited memory not measured: no control group may be made here ({error})")


def stores(arguments: argparse.Namespace) -> None:
    folder = arguments.folder / "stores"
    jpegs = make(folder, arguments.places)
    mean = np.mean([len(jpeg) for jpeg in jpegs]) / 1e3
    versions = f"lmdb {lmdb_module().__version__}, {arguments.places} places of {DATES} chips of {mean:.0f} kB"
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
    parser.add_argument("what", choices=("stores", "index", "open"), help="open is what this script starts")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", default=["warm", "first", "cold", "limited"])
    parser.add_argument(
        "--each", nargs="+", type=int, choices=(1, DATES), default=[1, DATES], help="dates of a place read at once"
    )
    parser.add_argument("--places", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit-mb", type=int, default=256)
    parser.add_argument("--rows", type=int, default=16_000_000)
    arguments = parser.parse_args()
    match arguments.what:
        case "stores":
            stores(arguments)
        case "index":
            index(arguments)
        case "open":
            opened(arguments)


if __name__ == "__main__":
    main()
