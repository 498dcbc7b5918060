"""How a stage tells how far it is, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

T = TypeVar("T")

Advance = Callable[[int], None]
"""Called with the number of units that were finished since the last call."""


class Progress:
    """The silent listener, and the interface of every other one."""

    def say(self, text: str) -> None:
        """Tell the user one line."""

    def task(self, description: str, total: int, done: int = 0) -> AbstractContextManager[Advance]:
        """Open a bar of ``total`` units of which ``done`` were finished by an earlier run."""
        del description, total, done
        return nullcontext(_ignore)

    def track(self, items: Iterable[T], description: str, total: int) -> Iterator[T]:
        """Yield ``items`` and advance a bar after each."""
        with self.task(description, total) as advance:
            for item in items:
                yield item
                advance(1)


def _ignore(units: int) -> None:
    del units


SILENT = Progress()
"""The default listener of every stage function."""
