"""How numbers become words in the report."""

from __future__ import annotations

import math
from typing import Final

MINUS: Final = "\N{MINUS SIGN}"
NARROW: Final = "\N{NARROW NO-BREAK SPACE}"
_STEPS: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """Return a whole number with thousands set apart: 12 345."""
    return f"{round(value):,}".replace(",", NARROW).replace("-", MINUS)


def compact(value: float) -> str:
    """Return a number as short as an axis needs it: 1.2 k, 0.05, 3 M."""
    for limit, letter in _STEPS:
        if abs(value) >= limit:
            return f"{significant(value / limit, 3)}{NARROW}{letter}"
    return significant(value, 3)


def significant(value: float, digits: int) -> str:
    """Return ``value`` with so many significant digits and no needless zeros; far from 1 as a power of ten."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        if 0 < int(exponent) < 6:
            return f"{value:.0f}".replace("-", MINUS)
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", MINUS)


def percent(share: float, digits: int = 1) -> str:
    """Return a share in [0, 1] as per cent: 62.2 %."""
    return f"{share * 100:.{digits}f}{NARROW}%".replace("-", MINUS)


def points(difference: float) -> str:
    """Return a difference of shares in percentage points with its sign: +8.1."""
    return f"{difference * 100:+.1f}".replace("-", MINUS)


def interval(low: float, high: float, *, signed: bool = False) -> str:
    """Return an interval of shares in percentage points: [57.2, 67.2]."""
    sign = "+" if signed else ""
    return f"[{low * 100:{sign}.1f}, {high * 100:{sign}.1f}]".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Return a time a person can grasp: 0.4 s, 12 s, 3 min 12 s, 2 h 05 min, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f}{NARROW}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NARROW}s"
    if whole < 3600:
        return f"{whole // 60}{NARROW}min {whole % 60:02d}{NARROW}s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60}{NARROW}h {minutes % 60:02d}{NARROW}min"
    hours = round(seconds / 3600)
    return f"{hours // 24}{NARROW}d {hours % 24}{NARROW}h"


def size(bytes_: float) -> str:
    """Return a number of bytes in decimal units: 1.2 MB."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if bytes_ >= limit:
            return f"{significant(bytes_ / limit, 3)}{NARROW}{unit}"
    return f"{bytes_:.0f}{NARROW}bytes"


def unknown(value: object) -> bool:
    """Say whether a table's cell holds nothing: None, an empty text, NaN or NaT."""
    return value is None or value == "" or bool(value != value)  # noqa: PLR0124 - only NaN and NaT differ from themselves


def plain(value: object) -> str:
    """Return any value of a settings or summary file as one line of text."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, list | tuple):
        return ", ".join(plain(v) for v in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {plain(v)}" for k, v in value.items()) or "none"
    return str(value)


def unbroken(date: str) -> str:
    """Return a date such as 2024-02-14 with hyphens and spaces at which no line breaks."""
    return date.replace("-", "\N{NON-BREAKING HYPHEN}").replace(" ", "\N{NO-BREAK SPACE}")


def _number(value: float) -> str:
    if isinstance(value, int):
        return count(value) if abs(value) >= 10_000 else str(value)
    return significant(value, 6) if math.isfinite(value) else str(value)


def listed(words: list[str]) -> str:
    """Join words as prose does: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"
