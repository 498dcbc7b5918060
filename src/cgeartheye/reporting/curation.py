"""What curation did to the distribution of places (pure)."""

from __future__ import annotations

import re
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
    """How one measure is distributed, step by step: whole numbers by category, a row a step that is known.

    Args:
        categories: (n,) names, in the order of the file.
        edges: (n,) of (low, high) of a bin, or (None, None).
        steps: name of each step and its (n,) counts: available, drawn, good, kept.
    """

    categories: tuple[str, ...]
    edges: tuple[tuple[float | None, float | None], ...]
    steps: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """The steps as shares in [0, 1] of their own sums; a step without any is all zero."""
        return tuple(_shares(counts) for _, counts in self.steps)

    def head(self, most: int) -> Balance:
        """Return at most ``most`` categories: the rest, if any, are added up as one called ``n others``."""
        if len(self.categories) <= most:
            return self
        few = most - 1
        names = (*self.categories[:few], f"{len(self.categories) - few} others")
        steps = tuple((name, (*counts[:few], sum(counts[few:]))) for name, counts in self.steps)
        return Balance(names, (*self.edges[:few], (None, None)), steps)


def _shares(counts: Sequence[int]) -> tuple[float, ...]:
    total = sum(counts)
    return tuple(c / total if total else 0.0 for c in counts)


STEPS: Final = ("available", "drawn", "good", "kept")


def read_balance(columns: Mapping[str, NDArray[Any]]) -> dict[str, Balance]:
    """Return the measures of ``balance.parquet`` by name, each with the steps that it counts.

    Args:
        columns: ``measure, name, low, high`` and the four steps, all (n,); a step that a measure lacks is missing in its rows.
    """
    found: dict[str, Balance] = {}
    for measure in dict.fromkeys(columns["measure"].tolist()):
        rows = np.flatnonzero(columns["measure"] == measure)
        edges = tuple((_edge(columns["low"][i]), _edge(columns["high"][i])) for i in rows)
        steps = tuple(
            (step, tuple(int(columns[step][i]) for i in rows))
            for step in STEPS
            if not any(unknown(columns[step][i]) for i in rows)
        )
        found[str(measure)] = Balance(tuple(named(columns["name"][i]) for i in rows), edges, steps)
    return found


def _edge(value: object) -> float | None:
    return None if unknown(value) else float(value)  # type: ignore[arg-type]  # a number, as it is not missing


@dataclass(frozen=True)
class Evenness:
    """How even one step is: categories that have any, exp(entropy), and their share of those that exist anywhere."""

    step: str
    present: int
    effective: float
    coverage: float


def evenness(measure: Balance) -> tuple[Evenness, ...]:
    """Return the evenness of every step; coverage is against the categories that any step has."""
    exist = sum(any(counts[i] for _, counts in measure.steps) for i in range(len(measure.categories)))
    rows = []
    for step, counts in measure.steps:
        present = sum(count > 0 for count in counts)
        rows.append(Evenness(step, present, effective(np.asarray(counts, np.int64)), present / exist if exist else 0.0))
    return tuple(rows)


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
