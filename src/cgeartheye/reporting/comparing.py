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
"""Settings named in a legend at most; the table has the others."""
FIRST_KEYS: Final = ("season.mode", "backbone", "data", "start.weights", "loss.targets", "steps", "epochs", "batch")
"""Settings that are named before others where several differ."""
SEED: Final = "seed"
ABSENT: Final = "\N{EM DASH}"
"""Written for a setting or a value that a run does not record."""


@dataclass(frozen=True)
class Run:
    """A pre-training run: the folder's name, its settings as dotted keys, its log, whether it is finished."""

    folder: str
    recipe: Mapping[str, Any]
    log: Log
    finished: bool = True


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed, under one name, and a name for each of them."""

    name: str
    runs: tuple[Run, ...]
    names: tuple[str, ...]


def differing(recipes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which recipes differ, those worth naming first; how a run is watched does not count."""
    keys = {key for recipe in recipes for key in recipe if not key.startswith("watch.")}
    found = [key for key in sorted(keys) if len({_value(recipe, key) for recipe in recipes}) > 1]
    order = {key: number for number, key in enumerate(FIRST_KEYS)}
    return sorted(found, key=lambda key: (key == SEED, order.get(key, len(order)), key))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Return runs of one recipe together, in order of their first run, each group named by what sets it apart.

    Names take as few settings as tell all groups apart, and none that some run does not record, as one of another release;
    where settings do not suffice, the folder's name helps.
    """
    keys = [key for key in differing([run.recipe for run in runs]) if key != SEED]
    by_recipe: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        by_recipe.setdefault(tuple(_value(run.recipe, key) for key in keys), []).append(run)
    members = list(by_recipe.values())
    told = _telling([m[0].recipe for m in members], [key for key in keys if all(key in run.recipe for run in runs)])
    seeds = len({_value(run.recipe, SEED) for run in runs}) > 1
    names = [", ".join(f"{key}={_value(m[0].recipe, key)}" for key in told) for m in members]
    return [_group(name, m, seeds=seeds, folders=names.count(name) > 1) for name, m in zip(names, members, strict=True)]


def _telling(recipes: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[str]:
    """Return the first few keys, each of which tells more recipes apart than those before it."""
    told: list[str] = []
    apart = 1
    for key in keys:
        more = len({tuple(_value(recipe, k) for k in (*told, key)) for recipe in recipes})
        if more > apart and len(told) < MOST_KEYS:
            told, apart = [*told, key], more
    return told


def _group(name: str, runs: Sequence[Run], *, seeds: bool, folders: bool) -> Group:
    """Name a group and its runs: by settings, by seeds where they differ, by folders where nothing else is left."""
    words = [name] if name else []
    own = [_value(run.recipe, SEED) for run in runs]
    repeated = len(set(own)) < len(own)
    all_of_them = "/".join(run.folder for run in runs)
    label = [*words, *([f"seed={own[0]}" if len(runs) == 1 else f"seeds {', '.join(sorted(set(own)))}"] if seeds else [])]
    if folders or not label:
        label.append(all_of_them)
    each = []
    for run, seed in zip(runs, own, strict=True):
        parts = [*words, *([f"seed={seed}"] if seeds else [])]
        each.append(", ".join([*parts, run.folder] if folders or repeated or not parts else parts))
    return Group(", ".join(label), tuple(runs), tuple(each))


def _value(recipe: Mapping[str, Any], key: str) -> str:
    return plain(recipe[key]) if key in recipe else ABSENT


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
