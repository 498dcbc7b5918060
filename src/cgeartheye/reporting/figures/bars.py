"""Level bar charts: a row a category, a bar a series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cgeartheye.errors import DataError
from cgeartheye.reporting.blocks import Figure, Key
from cgeartheye.reporting.figures.svg import drawing, joined, line, rect, swatch, text
from cgeartheye.reporting.wording import count

WIDTH = 480
LABEL_WIDTH = 132
VALUE_WIDTH = 74
BAR = 13
GAP = 12
MOST_LETTERS = 18


@dataclass(frozen=True)
class Bars:
    """Values (>= 0) of one series, one a category; ``notes`` are longer texts shown when pointed at."""

    name: str
    values: tuple[float, ...]
    notes: tuple[str, ...] = ()


def bar_chart(
    title: str,
    categories: Sequence[str],
    series: Sequence[Bars],
    *,
    unit: str,
    write: Callable[[float], str] = count,
    caption: str = "",
) -> Figure:
    """Return level bars that start at zero, each with its value written at its end.

    Raises:
        DataError: if there is no category, or no value above zero.
    """
    highest = max((v for s in series for v in s.values), default=0.0)
    if not categories or highest <= 0:
        raise DataError("there is nothing to count")
    row = len(series) * BAR + GAP
    height = 22 + row * len(categories) + 4
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / highest
    body = [text(LABEL_WIDTH, 12, unit, "label")]
    for i, category in enumerate(categories):
        top = 22 + i * row
        body.append(text(LABEL_WIDTH - 8, top + len(series) * BAR / 2 + 4, shortened(category), "category", "end"))
        body += [
            _bar(s, i, (top + j * BAR, scale), f"b{j + 1}" if len(series) > 1 else "b2", write) for j, s in enumerate(series)
        ]
    body.append(line((LABEL_WIDTH, 18), (LABEL_WIDTH, height - 4), "axis"))
    keys = tuple(Key(s.name, swatch("box", f"bar b{j + 1}")) for j, s in enumerate(series)) if len(series) > 1 else ()
    rows = [f"{c}: " + ", ".join(f"{s.name} {write(s.values[i])}" for s in series) for i, c in enumerate(categories)]
    return Figure(title, drawing(WIDTH, height, body, label=f"{title}, {unit}. {'; '.join(rows)}."), caption, keys)


def _bar(series: Bars, i: int, place: tuple[float, float], class_: str, write: Callable[[float], str]) -> Markup:
    top, scale = place
    width = series.values[i] * scale
    note = series.notes[i] if series.notes else f"{series.name}: {write(series.values[i])}"
    return joined(
        [
            rect((LABEL_WIDTH, top), width, BAR - 2, f"bar {class_}", note),
            text(LABEL_WIDTH + width + 5, top + BAR - 3, write(series.values[i]), "value"),
        ]
    )


def shortened(name: str, letters: int = MOST_LETTERS) -> str:
    """Return a name that fits beside a bar; the middle of a long one gives way, because ends tell names apart."""
    if len(name) <= letters:
        return name
    head = (letters - 1) // 2
    return f"{name[:head]}\N{HORIZONTAL ELLIPSIS}{name[-(letters - 1 - head) :]}"
