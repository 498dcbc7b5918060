"""How many cells each stratum gives: the sampling formula, its floors and caps, and the draw itself.

``alpha = max(1, M A_p k_s / N_p)`` for a stratum s (region, class p, elevation bin) of k_s cells, where M is the wanted
total, A_p the wanted share of the class and N_p its number of cells (CGEarthEye report, data set section). The floor of
1 and strata with too few cells make the sum differ from M; the redistribution here is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.seeding import splitmix64

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quotas:
    """The plan of a draw over S strata, in order of their keys.

    Args:
        alpha: (S,) float64, the formula's value.
        factor: what alpha is multiplied by so that the total comes out.
        capped: (S,) bool, strata that give all they have.
        floored: (S,) bool, strata raised to one cell.
        drawn: (S,) int64, cells to draw.
    """

    alpha: Floats
    factor: float
    capped: NDArray[np.bool_]
    floored: NDArray[np.bool_]
    drawn: Ints


def plan_quotas(
    cells: Ints,
    classes: Sequence[str],
    total: int,
    *,
    shares: Mapping[str, float] | None = None,
    shortage: Literal["redistribute", "keep_shares"] = "redistribute",
) -> Quotas:
    """Split ``total`` cells over strata.

    Args:
        cells: (S,) int64 >= 1, cells of each stratum; strata are in order of their keys, which decides ties.
        classes: land-cover class of each stratum.
        total: cells wanted (M).
        shares: wanted share of each class (A_p), normalised over the classes present; default equal.
        shortage: keep the total, or keep the shares.

    Raises:
        DataError: if there are more strata than cells wanted, or no class present has a share.
    """
    budget = min(total, int(cells.sum()))
    if budget < len(cells):
        what = f"{len(cells)} strata each give at least one cell, but only {budget} are to be drawn"
        raise DataError(what, where="curate.places", remedy=f"draw at least {len(cells)}, or widen curate.elevation_bin_m")
    alpha = _alpha(cells, classes, total, shares)
    if shortage == "keep_shares":
        wanted = np.minimum(alpha, cells)
        capped, floored = alpha >= cells, alpha <= 1
        return Quotas(alpha, 1.0, capped, floored, _rounded(wanted, int(np.floor(wanted.sum() + 1e-9))))
    factor, capped, floored = _redistribute(alpha, cells, budget)
    wanted = np.where(capped, cells, np.where(floored, 1.0, factor * alpha))
    return Quotas(alpha, factor, capped, floored, _rounded(wanted, budget))


def _alpha(cells: Ints, classes: Sequence[str], total: int, shares: Mapping[str, float] | None) -> Floats:
    present = sorted(set(classes))
    given = {name: 1.0 if shares is None else float(shares.get(name, 0.0)) for name in present}
    whole = sum(given.values())
    if whole <= 0:
        remedy = f"give a share above 0 to one of {', '.join(present)}"
        raise DataError("no class that is present has a share", where="curate.shares", remedy=remedy)
    of_class = dict.fromkeys(present, 0)
    for name, count in zip(classes, cells, strict=True):
        of_class[name] += int(count)
    weights = [total * given[name] / whole * int(count) / of_class[name] for name, count in zip(classes, cells, strict=True)]
    alpha: Floats = np.maximum(1.0, np.array(weights))
    return alpha


def _redistribute(alpha: Floats, cells: Ints, budget: int) -> tuple[float, NDArray[np.bool_], NDArray[np.bool_]]:
    """Fix strata at their size or at 1 until the rest can share what is left in proportion to alpha."""
    capped, floored = np.zeros(len(cells), bool), np.zeros(len(cells), bool)
    while True:
        free = ~(capped | floored)
        left = budget - cells[capped].sum() - floored.sum()
        factor = float(left / alpha[free].sum()) if free.any() else 1.0
        full, low = free & (factor * alpha >= cells), free & (factor * alpha < 1)
        if full.any():
            capped |= full
        elif low.any():
            floored |= low
        else:
            return factor, capped, floored


def _rounded(wanted: Floats, budget: int) -> Ints:
    """Round down and give what is missing to the largest fractions, ties to the earlier stratum."""
    steady = np.round(wanted, 9)  # equal fractions stay equal whatever the rounding of the last bits
    drawn = np.floor(steady).astype(np.int64)
    order = np.argsort(-(steady - drawn).round(9), kind="stable")
    drawn[order[: budget - int(drawn.sum())]] += 1
    return drawn


def priorities(cells: Ints, seed: int) -> NDArray[np.uint64]:
    """Return a number for each cell id (n,) that orders the draw; lower comes first, whatever else is drawn."""
    key = splitmix64(np.array([seed], np.uint64))
    return splitmix64(cells.astype(np.uint64) ^ key)


def draw(cells: Ints, strata: Ints, drawn: Ints, *, seed: int) -> NDArray[np.bool_]:
    """Return which cells are drawn: the lowest priorities of each stratum, ties to the lower id.

    A larger quota keeps what a smaller one drew.

    Args:
        cells: (n,) int64 ids.
        strata: (n,) int64, number of each cell's stratum.
        drawn: (S,) int64, cells to draw from each.
        seed: of the draw.

    Returns: (n,) bool.
    """
    order = np.lexsort((cells, priorities(cells, seed), strata))
    ordered = strata[order]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
    chosen = np.zeros(len(cells), bool)
    chosen[order] = rank < drawn[ordered]
    return chosen
