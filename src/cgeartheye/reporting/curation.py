"""What curation did to the distribution of places (pure)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.reporting.archive import Tally, tally
from cgeartheye.reporting.wording import unknown

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_REPEATED: Final = re.compile(r"(near duplicate of|excluded: shows) [A-Za-z0-9_-]+")
_NUMBER: Final = re.compile(r"\d{4}-\d{2}-\d{2}|\d+\.\d+|\b\d{1,2}\b")


@dataclass(frozen=True)
class Balance:
    """Whole numbers by category (equal lengths): what there was, what was drawn, what was kept in the end."""

    categories: tuple[str, ...]
    available: tuple[int, ...]
    drawn: tuple[int, ...]
    kept: tuple[int, ...]

    def shares(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """Return the three rows as shares in [0, 1] of their own sums; a row without any is all zero."""
        return _shares(self.available), _shares(self.drawn), _shares(self.kept)


def _shares(counts: Sequence[int]) -> tuple[float, ...]:
    total = sum(counts)
    return tuple(c / total if total else 0.0 for c in counts)


def balance(available: Sequence[Any], drawn: Sequence[Any], kept: Sequence[Any]) -> Balance:
    """Return how often each category occurs among cells available, places drawn and places kept, in order of the first.

    Raises:
        DataError: if nothing was available.
    """
    before, middle, after = (Counter(map(named, values)) for values in (available, drawn, kept))
    if not before:
        raise DataError("no cell was available")
    order = sorted({*before, *middle, *after}, key=lambda name: (-before[name], name))
    return Balance(tuple(order), *(tuple(counts[name] for name in order) for counts in (before, middle, after)))


def named(value: object) -> str:
    """Return a category's name; missing ones are ``not known``."""
    return "not known" if unknown(value) else str(value)


def cluster_sizes(clusters: NDArray[Any], kept: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the sizes of all clusters before and after balance, each sorted from large to small.

    Args:
        clusters: (n,) the cluster of each place, negative or missing for none.
        kept: (n,) bool, True for the places that balance kept.

    Raises:
        DataError: if no place has a cluster.
    """
    numbers = np.array([-1 if unknown(c) else int(c) for c in clusters.tolist()], dtype=np.int64)
    if not (numbers >= 0).any():
        raise DataError("no place has a cluster")
    before = np.bincount(numbers[numbers >= 0])
    after = np.bincount(numbers[(numbers >= 0) & kept], minlength=before.size)
    used = before > 0
    return np.sort(before[used])[::-1].astype(np.int64), np.sort(after[used])[::-1].astype(np.int64)


def effective(sizes: NDArray[np.int64]) -> float:
    """Return exp(entropy) of cluster sizes (k,): the number of equal clusters that would be as even."""
    shares = sizes[sizes > 0] / max(int(sizes.sum()), 1)
    return float(np.exp(-(shares * np.log(shares)).sum())) if shares.size else 0.0


@dataclass(frozen=True)
class Step:
    """One step of the funnel: how many of what were left, or were lost."""

    name: str
    number: int


PLACE_STEPS: Final = {
    "cells_covered": "cells covered",
    "cells_outside_hold_out": "outside hold-out",
    "cells_drawn": "cells drawn",
    "places_drawn": "places drawn",
    "found": "pictures found",
    "in_part": "in this part",
    "places": "places with chips",
    "kept": "places kept",
}
CHIP_STEPS: Final = {"chips_cut": "chips cut", "read": "pictures read"}
LOSSES: Final = {
    "unreadable": "lost: unreadable",
    "no_data": "lost: no data",
    "saturated": "lost: saturated",
    "empty": "lost: empty",
    "out_of_focus": "lost: out of focus",
    "shifted": "lost: shifted",
}
LAST_CHIP_STEP: Final = {"chips": "chips that passed"}


@dataclass(frozen=True)
class Funnel:
    """The counts of a curation in order: places, chips and what was lost of them, and all others by their own name."""

    places: tuple[Step, ...]
    chips: tuple[Step, ...]
    others: tuple[Step, ...]


def funnel(value: object) -> Funnel:
    """Return the steps of ``funnel.json``, an object whose ``steps`` map names to whole numbers.

    Raises:
        DataError: if it holds no whole number.
    """
    found = value.get("steps") if isinstance(value, Mapping) else None
    counts = {str(k): v for k, v in found.items() if _whole(v)} if isinstance(found, Mapping) else {}
    if not counts:
        raise DataError("funnel.json holds no counts")
    chip_names = {**CHIP_STEPS, **LOSSES, **LAST_CHIP_STEP}
    others = sorted(name for name in counts if name not in PLACE_STEPS and name not in chip_names)
    return Funnel(
        tuple(Step(words, counts[name]) for name, words in PLACE_STEPS.items() if name in counts),
        tuple(Step(words, counts[name]) for name, words in chip_names.items() if name in counts),
        tuple(Step(name.replace("_", " "), counts[name]) for name in others),
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def pick_examples(groups: Sequence[str], n_dates: NDArray[np.int64], order: NDArray[np.int64], most: int) -> list[int]:
    """Return the positions of at most ``most`` places that show the data's range: each group in turn, most dates first.

    Args:
        groups: (n,) a name for each place, such as its land cover.
        n_dates: (n,) dates of each place.
        order: (n,) a permutation that settles ties, from a seeded stream.
        most: places wanted.
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    queues: dict[str, list[int]] = {}
    for i in sorted(range(len(groups)), key=lambda i: (-int(n_dates[i]), int(rank[i]))):
        queues.setdefault(groups[i], []).append(i)
    picked: list[int] = []
    while len(picked) < most and any(queues.values()):
        for name in sorted(queues):
            if queues[name] and len(picked) < most:
                picked.append(queues[name].pop(0))
    return sorted(picked, key=lambda i: (groups[i], i))


def rejections(reasons: Sequence[Any]) -> Tally:
    """Return how often each kind of reason rejected something; reasons that differ in dates, measures or names are one kind."""
    kinds = [_REPEATED.sub(r"\1 another picture", named(r)) for r in reasons]
    return tally([_DATE.sub("another date", _NUMBER.sub(_number_or_date, kind)) for kind in kinds])


def _number_or_date(match: re.Match[str]) -> str:
    return match.group() if _DATE.fullmatch(match.group()) else "n"
