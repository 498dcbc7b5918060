"""What every pool of processes needs, and the pool that stages make their pieces with."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, Final, Self, TypeVar

from cgeartheye.errors import ResourceError

Made = TypeVar("Made")
_IN_FLIGHT: Final = 4
"""Tasks handed to each process ahead of time, so that a million tasks do not wait in memory."""


class Pool:
    """Processes beside this one that make pieces; a context manager. They are begun when first needed and kept.

    Args:
        count: processes; 0 or 1 works in this one.
        setting: the key by which the user sets their number, for the remedy where memory is short.
        worth: tasks from which processes are begun; fewer are done in this one, until there are processes.
    """

    def __init__(self, count: int, setting: str, *, worth: int = 2) -> None:
        self._count = count
        self._setting = setting
        self._worth = worth
        self._processes: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)

    def finished(self, work: Callable[..., Made], todo: Iterable[tuple[Any, ...]], number: int) -> Iterator[Made]:
        """Yield what ``work`` returns for each of ``number`` tasks, in the order in which they end.

        Args:
            work: a module-level function; what it makes depends on its arguments alone.
            todo: arguments, picklable, taken as their turn comes.
            number: of tasks.

        Raises:
            ResourceError: if a process was killed from outside.
        """
        if self._count <= 1 or number < (self._worth if self._processes is None else 2):
            yield from (work(*arguments) for arguments in todo)
            return
        if self._processes is None:
            context = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(self._count, mp_context=context, initializer=end_with_parent)
        try:
            yield from _in_flight(self._processes, work, todo, limit=_IN_FLIGHT * self._count)
        except BrokenProcessPool as error:
            _end(self._processes)
            raise ResourceError(
                "a worker process was killed, most often because the memory was full",
                remedy=f"set fewer {self._setting} and repeat the command; finished pieces are kept",
            ) from error


def _end(pool: ProcessPoolExecutor) -> None:
    """End what is left of a broken pool: it ends those that it had begun, and waits for ever for one begun meanwhile."""
    for process in list((pool._processes or {}).values()):
        process.terminate()


def _in_flight(
    pool: ProcessPoolExecutor, work: Callable[..., Made], todo: Iterable[tuple[Any, ...]], *, limit: int
) -> Iterator[Made]:
    waiting: set[Future[Made]] = set()
    for arguments in todo:
        waiting.add(pool.submit(work, *arguments))
        if len(waiting) < limit:
            continue
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()
    for future in as_completed(waiting):
        yield future.result()


def end_with_parent() -> None:
    """Let this worker end when its parent is killed, which otherwise leaves it waiting for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True).start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)  # no clean-up: files are whole or absent without it
