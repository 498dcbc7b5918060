"""Scenes and places as the data section shows them (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgeartheye.reporting.wording import count, unknown

MOST_GROUPS = 8


@dataclass(frozen=True)
class Tally:
    """How often each name occurs: names and whole numbers of equal length."""

    names: tuple[str, ...]
    counts: tuple[int, ...]


def by_quarter(years: NDArray[Any], quarters: NDArray[Any]) -> Tally:
    """Return how many scenes (or chips) fall in each calendar quarter, in order of time; inputs are integers (n,)."""
    found = Counter(zip(years.tolist(), quarters.tolist(), strict=True))
    known = sorted((int(y), int(q)) for y, q in found if not unknown(y) and not unknown(q))
    return Tally(tuple(f"{y} Q{q}" for y, q in known), tuple(found[key] for key in known))


def tally(values: Sequence[object]) -> Tally:
    """Return how often each value occurs, the most frequent first, equals by name; None counts as ``not known``."""
    found = Counter("not known" if v is None else str(v) for v in values)
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return Tally(tuple(name for name, _ in ordered), tuple(number for _, number in ordered))


def group_places(lon: NDArray[Any], lat: NDArray[Any], names: Sequence[object]) -> tuple[tuple[str, NDArray[np.float64]], ...]:
    """Return places (n, 2) of longitude, latitude by name, at most eight groups: the rarest are joined as ``other``."""
    labels = np.array(["not known" if v is None else str(v) for v in names], dtype=object)
    positions = np.column_stack([lon, lat]).astype(np.float64)
    frequent = tally(labels.tolist()).names
    kept = frequent if len(frequent) <= MOST_GROUPS else frequent[: MOST_GROUPS - 1]
    groups = [(name, positions[labels == name]) for name in sorted(kept)]
    rest = ~np.isin(labels, kept)
    return tuple([*groups, ("other", positions[rest])] if rest.any() else groups)


def dates_words(n_dates: NDArray[Any]) -> list[str]:
    """Return each place's number of dates (n,) as words: ``1 date``, ``4 dates``."""
    return [f"{int(n)} date{'s' if n != 1 else ''}" for n in n_dates.tolist()]


def spread(values: NDArray[Any], unit: str) -> str:
    """Return the range of finite values (n,) as words: ``0.75 m``, or ``0.5 to 0.75 m``."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return "not known"
    low, high = f"{finite.min():.3g}", f"{finite.max():.3g}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def head(rows: Sequence[tuple[str, ...]], most: int) -> tuple[tuple[tuple[str, ...], ...], str]:
    """Return at most ``most`` rows, and a sentence on those that are not shown."""
    if len(rows) <= most:
        return tuple(rows), ""
    return tuple(rows[:most]), f"{count(len(rows) - most)} more rows are not shown."
