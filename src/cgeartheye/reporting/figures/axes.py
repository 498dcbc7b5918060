"""Scales, ticks and the frame that line charts share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

from cgeartheye.errors import DataError
from cgeartheye.reporting.figures.svg import joined, line, text
from cgeartheye.reporting.wording import compact


@dataclass(frozen=True)
class Scale:
    """A mapping of values in [low, high] to drawing units in [start, end], linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise DataError(f"no axis can be drawn from {self.low} to {self.high}")
        if self.logarithmic and self.low <= 0:
            raise DataError(f"a logarithmic axis cannot start at {self.low}")

    def __call__(self, value: float) -> float:
        """Return where ``value`` lies, held inside the axis."""
        low, high = self._transformed(self.low), self._transformed(self.high)
        share = (self._transformed(min(max(value, self.low), self.high)) - low) / (high - low)
        return self.start + share * (self.end - self.start)

    def _transformed(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self, about: int = 5) -> list[float]:
        """Return round values inside the axis, about so many."""
        return log_ticks(self.low, self.high) if self.logarithmic else linear_ticks(self.low, self.high, about)


def nice_step(span: float, about: int) -> float:
    """Return 1, 2 or 5 times a power of ten such that about ``about`` steps fill ``span``."""
    raw = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    factor = min((1, 2, 5, 10), key=lambda f: abs(math.log(f * power / raw)))
    return factor * power


def linear_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return multiples of a nice step inside [low, high]."""
    step = nice_step(high - low, about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return the powers of ten inside [low, high]; with fewer than two of them also their doubles and fivefolds."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    tens = [10.0**e for e in exponents if low <= 10.0**e <= high]
    if len(tens) >= 2:
        return tens
    return [f * 10.0**e for e in exponents for f in (1, 2, 5) if low <= f * 10.0**e <= high]


def padded(low: float, high: float, *, share: float = 0.05) -> tuple[float, float]:
    """Return a range a little wider than [low, high], and never empty."""
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def frame(x: Scale, y: Scale, x_label: str, y_label: str) -> Markup:
    """Return grid lines, tick labels and the axes' names; the y axis is named above it, so that it reads level."""
    parts = []
    for value in y.ticks():
        parts += [
            line((x.start, y(value)), (x.end, y(value)), "grid"),
            text(x.start - 6, y(value) + 4, compact(value), anchor="end"),
        ]
    for value in x.ticks():
        parts += [
            line((x(value), y.start), (x(value), y.start + 4), "axis"),
            text(x(value), y.start + 18, compact(value), anchor="middle"),
        ]
    parts.append(line((x.start, y.start), (x.end, y.start), "axis"))
    parts.append(text((x.start + x.end) / 2, y.start + 36, x_label, "label", "middle"))
    parts.append(text(4, y.end - 10, y_label, "label"))
    return joined(parts)
