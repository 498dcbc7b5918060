"""Several pre-training runs side by side: what tells them apart, and their curves on common axes (pure)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.reporting.figures.lines import Series
from cgeartheye.reporting.learning import Log
from cgeartheye.reporting.wording import plain

MOST_KEYS: Final = 3
"""Settings named in a legend; the table has the others."""
FIRST_KEYS: Final = ("season.mode", "backbone", "data", "start.weights", "loss.targets", "steps", "epochs", "batch")
"""Settings that are named before others where several differ."""
SEED: Final = "seed"
_ABSENT: Final = "\N{EM DASH}"


@dataclass(frozen=True)
class Run:
    """A pre-training run: the folder's name, its settings as dotted keys, its log, whether it is finished."""

    folder: str
    recipe: Mapping[str, Any]
    log: Log
    finished: bool = True


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, under one name."""

    name: str
    runs: tuple[Run, ...]


def differing(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which recipes differ, those worth naming first; how a run is watched does not count."""
    keys = {key for recipe in recipes for key in recipe if not key.startswith("watch.")}
    found = [key for key in sorted(keys) if len({plain(r[key]) if key in r else _ABSENT for r in recipes}) > 1]
    order = {key: number for number, key in enumerate(FIRST_KEYS)}
    return sorted(found, key=lambda key: (key == SEED, order.get(key, len(order)), key))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Return runs of one recipe together, in order of their first run, each group named by what sets it apart.

    Keys that some run does not record, as those of another release, are not used for names; where nothing else is left, or
    two groups would have one name, the folder's name helps.
    """
    told = [key for key in differing([run.recipe for run in runs]) if all(key in run.recipe for run in runs)]
    every = differing([run.recipe for run in runs])
    by_recipe: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        same = tuple(plain(run.recipe[key]) if key in run.recipe else _ABSENT for key in every if key != SEED)
        by_recipe.setdefault(same, []).append(run)
    names = [_name(members, told) for members in by_recipe.values()]
    unique = [
        name if name and names.count(name) == 1 else ", ".join(filter(None, (name, "/".join(run.folder for run in members))))
        for name, members in zip(names, by_recipe.values(), strict=True)
    ]
    return [Group(name, tuple(members)) for name, members in zip(unique, by_recipe.values(), strict=True)]


def _name(members: Sequence[Run], told: Sequence[str]) -> str:
    keys = [key for key in told if key != SEED]
    words = [f"{key}={plain(members[0].recipe[key])}" for key in keys[:MOST_KEYS]]
    if len(keys) > MOST_KEYS:
        words.append(f"{len(keys) - MOST_KEYS} more")
    if SEED in told:
        seeds = sorted({plain(run.recipe[SEED]) for run in members})
        words.append(f"seed={seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(seeds)}")
    return ", ".join(words)


def curve(group: Group, x: str, y: str, *, factor: float = 1.0) -> Series | None:
    """Return a column over another one: of one run as it is, of several their mean with the least and the greatest.

    Several runs are interpolated to the points of the first one that all of them reach.

    Args:
        group: of runs.
        x: column ``step``, ``seconds`` or the like.
        y: column to draw.
        factor: y is multiplied by it.

    Returns:
        the curve, or None if no run recorded both columns.
    """
    found = [points for run in group.runs if (points := _points(run.log, x, y)) is not None]
    if not found:
        return None
    (first, values), *others = found
    if not others:
        return Series(group.name, first, values * factor)
    begin, end = max(a[0] for a, _ in found), min(a[-1] for a, _ in found)
    grid = first[(first >= begin) & (first <= end)]
    if not grid.size:
        return Series(group.name, first, values * factor)
    rows = np.stack([np.interp(grid, a, b) for a, b in found]) * factor  # (runs, n)
    return Series(group.name, grid, rows.mean(0), np.stack([rows.min(0), rows.max(0)]))


def _points(log: Log, x: str, y: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if not (log.has(x) and log.has(y)):
        return None
    known = np.isfinite(log.columns[x]) & np.isfinite(log.columns[y])
    if not known.any():
        return None
    return log.columns[x][known], log.columns[y][known]
