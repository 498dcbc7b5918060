"""The listener that draws bars and lines on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cgeartheye.progress import SILENT, Advance
from cgeartheye.progress import Progress as Listener


class RichListener(Listener):
    """Bars with the time that is left, on standard error; plain lines where that is no terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(escape(text), soft_wrap=True)

    @contextmanager
    def task(self, description: str, total: int, done: int = 0) -> Iterator[Advance]:
        """Draw a bar while the context is open."""
        if not self._console.is_terminal:
            yield _PlainBar(description, total, done).advance
            return
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(escape(description), total=total, completed=done)
            yield lambda units: bars.advance(task, units)


class _PlainBar:
    """A line at every fifth of the way, for logs."""

    def __init__(self, description: str, total: int, done: int) -> None:
        self._description, self._total, self._done = description, max(total, 1), done
        self._told = done * 5 // self._total

    def advance(self, units: int) -> None:
        self._done += units
        fifths = self._done * 5 // self._total
        if fifths > self._told:
            self._told = fifths
            sys.stderr.write(f"  {self._description} {self._done}/{self._total}\n")
            sys.stderr.flush()


def listener(*, quiet: bool) -> Listener:
    """Return the listener for a call."""
    return SILENT if quiet else RichListener()


def write_settings(section: str, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write a section's settings to standard output."""
    console = Console(highlight=False)
    console.print(f"[bold]{escape(section)}[/bold]")
    for key, default, text in rows:
        console.print(f"  [cyan]{escape(key)}[/cyan]" + (f" = {escape(default)}" if default else ""), soft_wrap=True)
        if text:
            console.print(f"      {escape(text)}", soft_wrap=True)


def write_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, note: str = "") -> None:
    """Write aligned columns to standard output, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
    sys.stdout.write("\n".join([title, *lines, *([note] if note else [])]) + "\n")
