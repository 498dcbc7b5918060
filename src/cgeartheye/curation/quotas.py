"""How many cells each stratum gives: the sampling formula, its floors and caps.

``alpha = max(1, M A_p k_s / N_p)`` for a stratum s (region, class p, elevation bin) of k_s cells, where M is the wanted
total, A_p the wanted share of the class and N_p its number of cells (CGEarthEye report, data set section). The floor of
1 and strata with too few cells make the sum differ from M; what is done about that is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is wanted of a draw.

    Args:
        shares: wanted share of each class (A_p), normalised over the classes present; None: equal.
        shortage: if strata have too few cells, keep the total (others give more) or keep the shares (fewer are drawn).
        small_budget: if fewer cells are wanted than there are strata: refuse, or leave the smallest strata empty.
    """

    shares: Mapping[str, float] | None = None
    shortage: Literal["redistribute", "keep_shares"] = "redistribute"
    small_budget: Literal["refuse", "empty_strata"] = "refuse"


@dataclass(frozen=True)
class Quotas:
    """The plan of a draw over S strata, in order of their keys.

    Args:
        alpha: (S,) float64, the formula's value.
        share: (S,) float64, the formula's value over M before its floor: M does not change it.
        factor: what alpha is multiplied by so that the total comes out.
        capped: (S,) bool, strata that give all they can.
        floored: (S,) bool, strata raised to one cell.
        drawn: (S,) int64, cells to draw.
    """

    alpha: Floats
    share: Floats
    factor: float
    capped: Bools
    floored: Bools
    drawn: Ints


def plan_quotas(
    cells: Ints, classes: Sequence[str], total: int, *, caps: Ints | None = None, rules: Rules | None = None
) -> Quotas:
    """Split ``total`` cells over strata.

    Args:
        cells: (S,) int64 >= 0, cells of each stratum (k_s); strata are in order of their keys, which decides ties.
        classes: land-cover class of each stratum.
        total: cells wanted (M).
        caps: (S,) int64, cells of each stratum that can be drawn; default: all.
        rules: what is wanted; default: equal shares, the total kept, too small a budget refused.

    Raises:
        DataError: if there are more strata than cells wanted and that is refused, or no class present has a share.
    """
    rules = rules or Rules()
    caps = cells if caps is None else caps
    budget, strata = min(total, int(caps.sum())), int((caps > 0).sum())
    share = _shares(cells, classes, rules.shares)
    alpha = np.maximum(1.0, total * share)
    if budget < strata and rules.small_budget == "refuse":
        what = f"{strata} strata each give at least one cell, but only {budget} are to be drawn"
        remedy = f"draw at least {strata}, widen curate.elevation_bin_m, or set curate.draw.small_budget: empty_strata"
        raise DataError(what, where="curate.places", remedy=remedy)
    if rules.shortage == "keep_shares" and budget >= strata:
        wanted = np.minimum(alpha, caps)
        return Quotas(alpha, share, 1.0, alpha >= caps, alpha <= 1, _rounded(wanted, int(np.floor(wanted.sum() + 1e-9))))
    weights, floors = (alpha, np.minimum(1, caps)) if budget >= strata else (total * share, np.zeros(len(caps)))
    factor = _level(weights, floors, caps, budget)
    wanted = np.clip(factor * weights, floors, caps)
    floored = (factor * weights < floors) & (caps > 0)
    return Quotas(alpha, share, factor, (wanted >= caps) & ~floored, floored, _rounded(wanted, budget))


def _shares(cells: Ints, classes: Sequence[str], shares: Mapping[str, float] | None) -> Floats:
    """Return A_p k_s / N_p of each stratum, (S,)."""
    present, number = np.unique(np.array(classes, dtype=str), return_inverse=True)
    of_class = np.bincount(number, weights=cells, minlength=len(present))
    given = np.array([1.0 if shares is None else float(shares.get(str(name), 0.0)) for name in present]) * (of_class > 0)
    if given.sum() <= 0:
        remedy = f"give a share above 0 to one of {', '.join(present)}"
        raise DataError("no class that is present has a share", where="curate.shares", remedy=remedy)
    result: Floats = (given / given.sum() / np.maximum(of_class, 1))[number] * cells
    return result


def _level(weights: Floats, floors: Floats, caps: Ints, budget: int) -> float:
    """Return the f at which the sum of ``clip(f * weights, floors, caps)`` is the budget.

    The sum grows with f and is straight between the points where a stratum reaches its floor or cap.
    """
    some = (caps > 0) & (weights > 0)
    weights, floors, caps = weights[some], floors[some], caps[some]
    bends = np.unique(np.concatenate([floors / weights, caps / weights]))
    low, high = 0, len(bends) - 1
    while low < high:
        middle = (low + high) // 2
        if np.clip(bends[middle] * weights, floors, caps).sum() >= budget * (1 - 1e-12):
            high = middle
        else:
            low = middle + 1
    before = bends[high - 1] if high else 0.0
    free = (floors / weights <= before) & (caps / weights >= bends[high])
    fixed = np.clip(bends[high] * weights[~free], floors[~free], caps[~free]).sum()
    return float((budget - fixed) / weights[free].sum()) if free.any() else float(bends[high])


def _rounded(wanted: Floats, budget: int) -> Ints:
    """Round down and give what is missing to the largest fractions, ties to the earlier stratum."""
    steady = np.round(wanted, 9)  # equal fractions stay equal whatever the rounding of the last bits
    drawn = np.floor(steady).astype(np.int64)
    order = np.argsort(-(steady - drawn).round(9), kind="stable")
    drawn[order[: max(0, budget - int(drawn.sum()))]] += 1
    return drawn
