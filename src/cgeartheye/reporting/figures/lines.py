"""Line charts: curves over steps, samples or ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.reporting.blocks import Figure, Key
from cgeartheye.reporting.figures.axes import Scale, frame, padded
from cgeartheye.reporting.figures.svg import drawing, line, path, swatch
from cgeartheye.reporting.wording import significant

WIDTH, HEIGHT = 480, 270
MOST_POINTS = 400
"""A curve is drawn by at most so many points; a longer one is averaged over equal runs of points."""
MOST_SERIES = 6


@dataclass(frozen=True)
class Series:
    """A named curve: x and y are float arrays (n,) of equal length; non-finite y are gaps that are skipped.

    ``band`` is None or (2, n): the least and greatest values around y, drawn as an area.
    """

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    band: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Axes:
    """How a line chart is framed: names with units, whether y is logarithmic, values y must reach, and events marked on x.

    ``ends`` says whether the legend tells a curve's first and last value, which a histogram's reader has no use for.
    """

    x: str
    y: str
    logarithmic: bool = False
    include: tuple[float, ...] = ()
    events: tuple[float, ...] = ()
    ends: bool = True


def line_chart(title: str, series: Sequence[Series], axes: Axes, *, caption: str = "") -> Figure:
    """Return a chart of up to six curves told apart by colour and by dashes.

    Raises:
        DataError: if no curve has a finite value to draw.
    """
    drawn = [thinned for one in series[:MOST_SERIES] if (thinned := thin(one, positive=axes.logarithmic)).x.size]
    if not drawn:
        raise DataError("no finite values were recorded")
    x, y = _scales(drawn, axes)
    body = [frame(x, y, axes.x, axes.y)]
    body += [line((x(at), y.start), (x(at), y.end), "event") for at in axes.events]
    body += [_band(one, x, y, f"band s{i + 1}") for i, one in enumerate(drawn) if one.band is not None]
    body += [_curve(one, x, y, f"series s{i + 1}") for i, one in enumerate(drawn)]
    named = [f"{s.name}: {_ends(s)}" if axes.ends else s.name for s in drawn]
    keys = tuple(Key(name, swatch("line", f"series s{i + 1}")) for i, name in enumerate(named))
    names = ", ".join(f"{s.name} {_ends(s)}" for s in drawn)
    label = f"{title}. Lines of {axes.y} over {axes.x}: {names}."
    return Figure(title, drawing(WIDTH, HEIGHT, body, label=label), caption, keys)


def thin(series: Series, *, positive: bool = False) -> Series:
    """Return the curve without gaps (and without values <= 0 if ``positive``), averaged to at most 400 points."""
    keep = np.isfinite(series.x) & np.isfinite(series.y)
    if positive:
        keep &= series.y > 0
    rows = np.stack([series.x, series.y, *(() if series.band is None else series.band)])[:, keep].astype(np.float64)
    if rows.shape[1] > MOST_POINTS:
        starts = np.linspace(0, rows.shape[1], MOST_POINTS, endpoint=False).astype(np.int64)
        rows = np.add.reduceat(rows, starts, axis=1) / np.diff(np.append(starts, rows.shape[1]))
    return Series(series.name, rows[0], rows[1], rows[2:] if series.band is not None else None)


def _scales(series: Sequence[Series], axes: Axes) -> tuple[Scale, Scale]:
    xs = np.concatenate([s.x for s in series])
    ys = np.concatenate(
        [
            *(s.y for s in series),
            *(s.band.ravel() for s in series if s.band is not None),
            np.asarray(axes.include, dtype=np.float64),
        ]
    )
    low, high = float(ys.min()), float(ys.max())
    if axes.logarithmic:
        bounds = (low / 1.15, high * 1.15)
    else:
        bounds = padded(low, high)
        if low >= 0:
            bounds = (max(bounds[0], 0.0), bounds[1])
    ends = (float(xs.min()), float(xs.max()))
    x = Scale(*(ends if ends[0] < ends[1] else padded(*ends)), 52, WIDTH - 14)
    return x, Scale(*bounds, HEIGHT - 46, 30, axes.logarithmic)


def _curve(series: Series, x: Scale, y: Scale, class_: str) -> Markup:
    points = [(x(a), y(b)) for a, b in zip(series.x.tolist(), series.y.tolist(), strict=True)]
    if len(points) == 1:  # one value is a short level stroke, not nothing
        points = [(points[0][0] - 4, points[0][1]), (points[0][0] + 4, points[0][1])]
    return path(points, class_)


def _band(series: Series, x: Scale, y: Scale, class_: str) -> Markup:
    low, high = series.band if series.band is not None else (series.y, series.y)
    there = [(x(a), y(b)) for a, b in zip(series.x.tolist(), high.tolist(), strict=True)]
    back = [(x(a), y(b)) for a, b in zip(series.x[::-1].tolist(), low[::-1].tolist(), strict=True)]
    return path([*there, *back], class_, closed=True)


def _ends(series: Series) -> str:
    first, last = significant(float(series.y[0]), 3), significant(float(series.y[-1]), 3)
    return last if series.y.size == 1 else f"{first} \N{RIGHTWARDS ARROW} {last}"
