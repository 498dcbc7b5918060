"""Independent pieces of work: each a pure function of its task, stored whole, skipped if it is there.

Chips are first cut into pieces (a block of places each), because which places are kept, and hence what lies in which
shard, is known only when all have been looked at. The folder of pieces is itself a folder of shards.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cgeartheye.curation.parts import Part
from cgeartheye.errors import InputError
from cgeartheye.files import atomic_path, read_json, write_json
from cgeartheye.processes import Pool
from cgeartheye.progress import Progress
from cgeartheye.shards.format import INDEX_NAME, INDEX_SCHEMA, POSITION_COLUMNS, SHARD_FOLDER, Place, shard_name
from cgeartheye.shards.writer import write_index, write_shard, write_table

Task = TypeVar("Task")
_MAPPED_NAME: Final = "index.arrow"
LOOKED_AT: Final = [*POSITION_COLUMNS, "width", "height", "gsd_m", "lon", "lat", "q_nodata"]
"""Columns by which places are compared with one another: the others of millions of places stay on disk."""
REJECTED: Final = pa.schema(
    [("place", pa.string()), ("scene", pa.string()), ("date", pa.string()), ("reason", pa.string())],
    metadata={"schema_version": "1"},
)
"""Columns of ``rejected.parquet``."""


@dataclass(frozen=True)
class Piece:
    """What one task made.

    Args:
        places: with their chips.
        rejected: rows of ``rejected.parquet``: place, scene, date (ISO text or None), reason.
        counts: numbers for the funnel, added over pieces.
    """

    places: tuple[Place, ...]
    rejected: tuple[Mapping[str, Any], ...]
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Pieces:
    """All pieces of a run, on disk.

    Args:
        folder: that holds them.
        rejected: rows of ``rejected.parquet``.
        counts: numbers for the funnel, added over pieces.
    """

    folder: Path
    rejected: pa.Table
    counts: dict[str, int]

    @cached_property
    def rows(self) -> pa.Table:
        """Rows of all chips (:data:`cgeartheye.shards.format.INDEX_SCHEMA`) in order of piece and place.

        They are mapped from an uncompressed copy of the index; 16 million rows are 9 GB.
        """
        path = self.folder / _MAPPED_NAME
        if not path.exists():
            index = pq.ParquetFile(self.folder / INDEX_NAME, pre_buffer=False)
            write_mapped(path, index.schema_arrow, map(index.read_row_group, range(index.num_row_groups)))
        return read_mapped(path)

    def forget(self) -> None:
        """Remove that copy."""
        (self.folder / _MAPPED_NAME).unlink(missing_ok=True)


def write_mapped(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    """Write tables one after another, uncompressed, to be mapped by :func:`read_mapped`."""
    with atomic_path(path) as temporary, pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for table in tables:
            writer.write_table(table)
    pa.default_memory_pool().release_unused()


def read_mapped(path: Path) -> pa.Table:
    """Return a table whose columns lie in a mapped file: only what is looked at takes memory, which the kernel may take back."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class Workers:
    """Where the pieces of a stage are made: this process, processes beside it, or a Ray cluster; a context manager.

    Processes and connection are begun when first needed and kept for all steps of the stage.

    Args:
        count: processes; 0 or 1 works in this one.
        progress: told of every finished piece.
        part: make only these pieces of every list; None: all.
        cluster: address of a Ray cluster that takes the place of the processes.
    """

    def __init__(self, count: int, progress: Progress, *, part: Part | None = None, cluster: str | None = None) -> None:
        self.progress = progress
        self.part = part
        self._cluster = cluster
        self._run_on_cluster: Callable[..., Iterator[None]] | None = None
        self._pool = Pool(count, "curate.workers")
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
        self._pool.__exit__(*_)

    def mine(self, total: int) -> range:
        """Return the numbers (from 0) of the pieces of a list that are made here."""
        return range(total) if self.part is None else self.part.numbers(total)

    def run(
        self,
        work: Callable[..., None],
        made: Sequence[Path],
        arguments: Callable[[int], tuple[Any, ...]],
        *,
        title: str,
        all_needed: bool = False,
    ) -> None:
        """Make every piece of a list that is made here and not there yet, in any order.

        Args:
            work: a module-level function that writes a piece; what it writes depends on its arguments alone.
            made: the file that each piece writes last: it exists if and only if the piece is whole.
            arguments: gives those of ``work``, picklable, for the piece of a number when its turn comes, so that a million
                do not lie in memory.
            title: of the progress bar.
            all_needed: a part goes on with the pieces of others that are not there when their turn comes: it needs them, and
                nobody knows whether the others run beside it, after it, or never.

        Raises:
            ResourceError: if a process was killed from outside, or the cluster is lost.
        """
        numbers: Sequence[int] = self.mine(len(made))
        if all_needed and self.part is not None:
            numbers = [*numbers, *self.part.rest(len(made))]
        todo = [number for number in numbers if not made[number].exists()]
        with self.progress.task(title, len(numbers), len(numbers) - len(todo)) as advance:

            def missing() -> Iterator[tuple[Any, ...]]:
                for number in todo:
                    if made[number].exists():
                        advance(1)
                    else:
                        yield arguments(number)

            for _ in self._finished(work, missing(), len(todo)):
                advance(1)

    def _finished(self, work: Callable[..., None], todo: Iterable[tuple[Any, ...]], number: int) -> Iterator[None]:
        if number and self._cluster is not None:
            return self._on_cluster(self._cluster)(work, todo)
        return self._pool.finished(work, todo, number)

    def _on_cluster(self, address: str) -> Callable[..., Iterator[None]]:
        if self._run_on_cluster is None:
            try:
                module = importlib.import_module("cgeartheye.curation.cluster")  # Ray is an extra
            except ModuleNotFoundError as error:
                remedy = "install it with the extra `cluster`: pip install 'cgeartheye[cluster]'"
                raise InputError(f"needs {error.name}, which is not installed", where="--cluster", remedy=remedy) from error
            self._closing.enter_context(module.connected(address))
            self._run_on_cluster = module.finished_on_cluster
        return self._run_on_cluster


def cut_pieces(make: Callable[[Task], Piece], tasks: Sequence[Task], folder: Path, *, workers: Workers, title: str) -> None:
    """Make every piece that is made here and that ``folder`` does not hold yet.

    Args:
        make: a module-level function; its result depends on the task alone.
        tasks: picklable, one a piece.
        folder: receives shards, index parts and notes.
        workers: make the pieces.
        title: of the progress bar.
    """
    made = [note_path(folder, number) for number in range(len(tasks))]
    workers.run(_store, made, lambda number: (make, tasks[number], folder, number), title=title)


def gather_pieces(folder: Path, count: int) -> Pieces:
    """Index the ``count`` pieces of ``folder``, all of which are there, and add up what they say."""
    rejected = [REJECTED.empty_table()]
    counts: dict[str, int] = {}
    for number in range(count):
        note = read_json(note_path(folder, number))
        rejected.append(rejected_table(note["rejected"]))
        for key, value in note["counts"].items():
            counts[key] = counts.get(key, 0) + value
    if not (folder / INDEX_NAME).exists():
        write_index(folder, (pq.read_table(part_path(folder, number)) for number in range(count)))
    return Pieces(folder, pa.concat_tables(rejected), counts)


def rejected_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return rows of ``rejected.parquet`` as a table: a few bytes a row beside its texts."""
    return pa.Table.from_pylist([{name: row.get(name) for name in REJECTED.names} for row in rows], schema=REJECTED)


def _store(make: Callable[[Task], Piece], task: Task, folder: Path, number: int) -> None:
    piece = make(task)
    rows = INDEX_SCHEMA.empty_table()
    if piece.places:
        rows = write_shard(folder / SHARD_FOLDER / shard_name(number), piece.places)
    write_table(part_path(folder, number), rows)
    # the note comes last: a piece with a note is whole
    write_json(note_path(folder, number), {"rejected": [dict(row) for row in piece.rejected], "counts": dict(piece.counts)})


def part_path(folder: Path, number: int) -> Path:
    """Return where the index rows of a piece are."""
    return folder / "parts" / f"{number:06d}.parquet"


def note_path(folder: Path, number: int) -> Path:
    """Return the file that a piece writes last: what was rejected, and its counts."""
    return folder / "notes" / f"{number:06d}.json"
