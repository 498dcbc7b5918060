"""Independent pieces of work: each a pure function of its task, stored whole, skipped if it is there.

Chips are first cut into pieces (a block of places each), because which places are kept, and hence what lies in which
shard, is known only when all have been looked at. The folder of pieces is itself a folder of shards.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from cgeartheye.errors import ResourceError
from cgeartheye.files import read_json, write_json
from cgeartheye.progress import Progress
from cgeartheye.shards.format import INDEX_NAME, INDEX_SCHEMA, SHARD_FOLDER, Place, shard_name
from cgeartheye.shards.writer import write_index, write_shard, write_table

Task = TypeVar("Task")
_IN_FLIGHT = 4
"""Tasks handed to each process ahead of time, so that a million tasks do not wait in memory."""


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
    """All pieces of a run, on disk."""

    folder: Path
    rejected: list[dict[str, Any]]
    counts: dict[str, int]

    @property
    def rows(self) -> pa.Table:
        """Rows of all chips (:data:`cgeartheye.shards.format.INDEX_SCHEMA`) in order of piece and place."""
        return pq.read_table(self.folder / INDEX_NAME)


class Workers:
    """Processes of one stage, started when first needed and kept for all its steps; a context manager.

    Args:
        count: processes; 0 or 1 works in this one.
        progress: told of every finished task.
    """

    def __init__(self, count: int, progress: Progress) -> None:
        self.progress = progress
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def run(self, work: Callable[..., None], todo: Sequence[tuple[Any, ...]], *, title: str, done: int = 0) -> None:
        """Call ``work(*arguments)`` for every entry of ``todo``, in any order.

        Args:
            work: a module-level function.
            todo: picklable arguments.
            title: of the progress bar.
            done: tasks that an earlier run finished.

        Raises:
            ResourceError: if a process was killed from outside.
        """
        with self.progress.task(title, len(todo) + done, done) as advance:
            for _ in self._finished(work, todo):
                advance(1)

    def _finished(self, work: Callable[..., None], todo: Sequence[tuple[Any, ...]]) -> Iterator[None]:
        if self._count <= 1 or len(todo) < 2:
            for arguments in todo:
                work(*arguments)
                yield
            return
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=_end_with_parent)
        try:
            yield from _in_flight(self._pool, work, todo, limit=_IN_FLIGHT * self._count)
        except BrokenProcessPool as error:
            raise ResourceError(
                "a worker process was killed, most often because the memory was full",
                remedy="set fewer curate.workers and repeat the command; finished pieces are kept",
            ) from error


def _end_with_parent() -> None:
    """Let this worker end when its parent is killed, which otherwise leaves it waiting for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)  # no clean-up: files are whole or absent without it


def _in_flight(
    pool: ProcessPoolExecutor, work: Callable[..., None], todo: Sequence[tuple[Any, ...]], *, limit: int
) -> Iterator[None]:
    waiting: set[Future[None]] = set()
    for arguments in todo:
        waiting.add(pool.submit(work, *arguments))
        if len(waiting) < limit:
            continue
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()
    for future in as_completed(waiting):
        yield future.result()


def cut_pieces(make: Callable[[Task], Piece], tasks: Sequence[Task], folder: Path, *, workers: Workers, title: str) -> Pieces:
    """Make every piece that ``folder`` does not hold yet, then index them all.

    Args:
        make: a module-level function; its result depends on the task alone.
        tasks: picklable, one a piece.
        folder: receives shards, index parts and notes.
        workers: make the pieces.
        title: of the progress bar.
    """
    todo = [(make, task, folder, number) for number, task in enumerate(tasks) if not _note(folder, number).exists()]
    workers.run(_store, todo, title=title, done=len(tasks) - len(todo))
    notes = [read_json(_note(folder, number)) for number in range(len(tasks))]
    counts: dict[str, int] = {}
    for note in notes:
        for key, value in note["counts"].items():
            counts[key] = counts.get(key, 0) + value
    if not (folder / INDEX_NAME).exists():
        write_index(folder, (pq.read_table(_part(folder, number)) for number in range(len(tasks))))
    return Pieces(folder, [row for note in notes for row in note["rejected"]], counts)


def _store(make: Callable[[Task], Piece], task: Task, folder: Path, number: int) -> None:
    piece = make(task)
    rows = INDEX_SCHEMA.empty_table()
    if piece.places:
        rows = write_shard(folder / SHARD_FOLDER / shard_name(number), piece.places)
    write_table(_part(folder, number), rows)
    # the note comes last: a piece with a note is whole
    write_json(_note(folder, number), {"rejected": [dict(row) for row in piece.rejected], "counts": dict(piece.counts)})


def _part(folder: Path, number: int) -> Path:
    return folder / "parts" / f"{number:06d}.parquet"


def _note(folder: Path, number: int) -> Path:
    return folder / "notes" / f"{number:06d}.json"
