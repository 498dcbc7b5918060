"""Estimates with their intervals, a row each, against a common axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cgeartheye.errors import DataError
from cgeartheye.reporting.blocks import Figure
from cgeartheye.reporting.figures.axes import Scale, padded
from cgeartheye.reporting.figures.bars import shortened
from cgeartheye.reporting.figures.svg import drawing, element, joined, line, text
from cgeartheye.reporting.wording import significant

WIDTH = 480
LABEL_WIDTH = 182
ROW = 24
TALL_ROW = 36


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, all in the unit of the axis; without an interval ``low`` and ``high`` are None.

    ``note`` is a second, quieter line of the label; ``strong`` rows stand out.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    strong: bool = False
    note: str = ""


def interval_chart(title: str, rows: Sequence[Estimate], *, unit: str, zero: bool = False, caption: str = "") -> Figure:
    """Return points with whiskers; ``zero`` draws the line that a difference must clear, ``strong`` rows stand out.

    Raises:
        DataError: if there is no row.
    """
    if not rows:
        raise DataError("no result has been recorded")
    ends = [v for r in rows for v in (r.value, r.low, r.high) if v is not None] + ([0.0] if zero else [])
    x = Scale(*padded(min(ends), max(ends)), LABEL_WIDTH, WIDTH - 16)
    height = TALL_ROW if any(r.note for r in rows) else ROW
    bottom = 8 + height * len(rows)
    body = [_axis(x, bottom, unit)]
    if zero:
        body.append(line((x(0.0), 4), (x(0.0), bottom), "zero"))
    body += [_row(r, x, 8 + height * (i + 0.5)) for i, r in enumerate(rows)]
    label = f"{title}, {unit}. " + "; ".join(f"{full_name(r)} {significant(r.value, 3)}" for r in rows) + "."
    return Figure(title, drawing(WIDTH, bottom + 42, body, label=label), caption)


def full_name(row: Estimate) -> str:
    """Return both lines of a row's label as one."""
    return f"{row.name}, {row.note}" if row.note else row.name


def _axis(x: Scale, bottom: float, unit: str) -> Markup:
    parts = []
    for value in x.ticks():
        parts += [
            line((x(value), 4), (x(value), bottom), "grid"),
            text(x(value), bottom + 16, significant(value, 3), anchor="middle"),
        ]
    parts.append(line((x.start, bottom), (x.end, bottom), "axis"))
    parts.append(text((x.start + x.end) / 2, bottom + 34, unit, "label", "middle"))
    return joined(parts)


def _row(row: Estimate, x: Scale, y: float) -> Markup:
    strong = " strong" if row.strong else ""
    parts = [text(LABEL_WIDTH - 10, y + (-2 if row.note else 4), shortened(row.name, 25), f"category{strong}", "end")]
    if row.note:
        parts.append(text(LABEL_WIDTH - 10, y + 13, shortened(row.note, 28), "tick", "end"))
    note = f"{full_name(row)}: {significant(row.value, 4)}"
    if row.low is not None and row.high is not None:
        note += f" [{significant(row.low, 4)}, {significant(row.high, 4)}]"
        parts.append(line((x(row.low), y), (x(row.high), y), f"whisker{strong}"))
        parts += [line((x(end), y - 4), (x(end), y + 4), f"whisker{strong}") for end in (row.low, row.high)]
    parts.append(element("path", element("title", note), d=f"M{x(row.value):.2f} {y:.2f}h0", class_=f"dots mark{strong}"))
    return joined(parts)
