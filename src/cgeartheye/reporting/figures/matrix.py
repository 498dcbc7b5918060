"""Confusion matrices as grids of shaded cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.reporting.blocks import Figure
from cgeartheye.reporting.figures.bars import shortened
from cgeartheye.reporting.figures.svg import drawing, element, joined, text
from cgeartheye.reporting.wording import percent

MOST_CLASSES = 100
WRITTEN_CLASSES = 16
"""Up to so many classes each cell's share is also written into it."""


def confusion_chart(title: str, classes: Sequence[str], counts: NDArray[np.int64], *, caption: str = "") -> Figure:
    """Return the matrix ``counts`` (n, n), rows the truth, columns the prediction; shading is the share of its row.

    Raises:
        DataError: if the matrix does not fit the classes or holds no picture.
    """
    n = len(classes)
    if counts.shape != (n, n) or not 0 < n <= MOST_CLASSES:
        raise DataError(f"a {counts.shape} confusion matrix cannot be drawn for {n} classes")
    if counts.sum() <= 0 or counts.min() < 0:
        raise DataError("the confusion matrix holds no pictures")
    cell = 38.0 if n <= WRITTEN_CLASSES else max(10.0, 520.0 / n)
    left, top = 136.0, 118.0
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    body = [_names(classes, cell, (left, top))]
    for i in range(n):
        body += [
            _cell((i, j), (classes[i], classes[j]), (int(counts[i, j]), float(shares[i, j])), (cell, left, top)) for j in range(n)
        ]
    accuracy = float(np.trace(counts) / counts.sum())
    worst = _worst(classes, counts)
    label = f"{title}. {n} classes, {percent(accuracy)} on the diagonal. {worst}"
    size = cell * n
    body.append(text(left + size / 2, 14, "predicted class", "label", "middle"))
    body.append(
        element(
            "text",
            "true class",
            transform=f"translate(14 {top + size / 2:.1f}) rotate(-90)",
            class_="label",
            text_anchor="middle",
        )
    )
    drawn = drawing(max(left + size + 46, 480), top + size + 6, body, label=label, class_="chart matrix")
    return Figure(title, drawn, " ".join(filter(None, [caption, worst])), wide=n > WRITTEN_CLASSES)


def _names(classes: Sequence[str], cell: float, origin: tuple[float, float]) -> Markup:
    left, top = origin
    parts = []
    for i, name in enumerate(classes):
        middle = (i + 0.5) * cell
        parts.append(text(left - 8, top + middle + 4, shortened(name), "category", "end"))
        turned = f"translate({left + middle + 4:.1f} {top - 8:.1f}) rotate(-50)"
        parts.append(element("text", shortened(name, 16), transform=turned, class_="category"))
    return joined(parts)


def _cell(at: tuple[int, int], names: tuple[str, str], value: tuple[int, float], grid: tuple[float, float, float]) -> Markup:
    (i, j), (cell, left, top), (number, share) = at, grid, value
    x, y = left + j * cell, top + i * cell
    note = (
        f"{names[0]} taken for {names[1]}: {number} ({percent(share)})"
        if i != j
        else f"{names[0]} right: {number} ({percent(share)})"
    )
    shade = element(
        "rect",
        element("title", note),
        x=x + 0.5,
        y=y + 0.5,
        width=cell - 1,
        height=cell - 1,
        class_="hit" if i == j else "miss",
        fill_opacity=round(0.03 + 0.92 * share, 3),
    )
    if cell < 24 or number == 0:
        return shade
    return joined(
        [
            shade,
            text(x + cell / 2, y + cell / 2 + 4, f"{share * 100:.0f}", "inside light" if share > 0.55 else "inside", "middle"),
        ]
    )


def _worst(classes: Sequence[str], counts: NDArray[np.int64]) -> str:
    off = counts.copy()
    np.fill_diagonal(off, 0)
    if off.max() == 0:
        return "No picture is confused."
    i, j = np.unravel_index(int(off.argmax()), off.shape)
    return f"Most often confused: {classes[int(i)]}, taken for {classes[int(j)]} ({int(off[i, j])} of {int(counts[i].sum())})."
