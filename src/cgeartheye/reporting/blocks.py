"""What a section is made of: figures, tables, pictures, and honest gaps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final

from markupsafe import Markup

from cgeartheye.errors import CGEarthEyeError

logger = logging.getLogger(__name__)

UNREADABLE: Final = (CGEarthEyeError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What reading a stranger's folder may raise. It costs a figure or a section, never the report, and is logged in full."""


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a swatch drawn like the mark it names."""

    text: str
    swatch: Markup


@dataclass(frozen=True)
class Figure:
    """A drawing with its title, its legend and what to see in it."""

    kind: ClassVar[str] = "figure"
    title: str
    body: Markup
    caption: str = ""
    legend: tuple[Key, ...] = ()
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """A table; ``numbers`` are the indices of the columns that are set right-aligned."""

    kind: ClassVar[str] = "table"
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()
    caption: str = ""
    wide: bool = True
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A raster picture as a data URI, its size in pixels and the text for those who do not see it."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Missing:
    """A figure that cannot be shown, and why."""

    kind: ClassVar[str] = "missing"
    title: str
    reason: str


@dataclass(frozen=True)
class Fact:
    """One number of the headline or of a section's start."""

    value: str
    label: str


Block = Figure | Table | Missing


@dataclass(frozen=True)
class Section:
    """One section of the page: its template finds the blocks by name in ``content``."""

    name: str
    title: str
    template: str
    content: dict[str, object]
    facts: tuple[Fact, ...] = ()
    statements: tuple[str, ...] = field(default=())


def attempt(title: str, make: Callable[[], Block]) -> Block:
    """Return ``make()``, or a :class:`Missing` with the reason if the data for it is absent, broken or of another form."""
    try:
        return make()
    except UNREADABLE as error:
        logger.warning("left out of the report: %s (%s)", title, error, exc_info=not isinstance(error, CGEarthEyeError))
        return Missing(title, reason_of(error))


def reason_of(error: Exception) -> str:
    """Return why something is left out, in words for the page."""
    if isinstance(error, CGEarthEyeError):
        return error.what
    return f"its data has another form than expected ({type(error).__name__}; run.log has the details)"
