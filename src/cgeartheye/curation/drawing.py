"""Which cells are drawn: the lowest of a hash in each stratum, found by streaming over blocks in bounded memory.

Each cell has a priority that depends on its id and the seed alone, so that no order of work and no division into blocks
changes the draw, and a smaller quota is a prefix of a larger one. With weights w it is ``-ln(u) / w`` of the hash as a
number u in (0, 1] (Efraimidis and Spirakis 2006). A histogram of priorities tells in which of its bins the last drawn
cell of a stratum lies; only the cells of that bin are sorted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.curation.spacing import thin
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.seeding import splitmix64

BINS: Final = 1024
"""Bins of the histogram of priorities."""
_CHUNK: Final = 2**15
_NEVER: Final = np.uint64(2**64 - 1)
_FIRST_BIN: Final = (1023 - 64) * 8
"""Weighted priorities are told apart in eighths of octaves from 2**-64 on."""
_ROUNDS: Final = 5

Ints = NDArray[np.int64]
Keys = NDArray[np.uint64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """Some of the cells.

    Args:
        ids: (n,) int64, ascending.
        stratum: (n,) int64, number of each cell's stratum.
        weight: (n,) float32 >= 0, 0 is never drawn; None: all alike.
    """

    ids: Ints
    stratum: Ints
    weight: NDArray[np.float32] | None = None


Blocks = Callable[[], Iterable[Block]]
"""Gives all blocks, as often as it is called, in any order."""


def priorities(cells: Ints, seed: int, weight: NDArray[Any] | None = None) -> Keys:
    """Return a number for each cell id (n,) that orders the draw; lower comes first, whatever else is drawn.

    Args:
        cells: (n,) int64 ids.
        seed: of the draw.
        weight: (n,) >= 0; a cell of weight 0 gets the highest number and is never drawn.
    """
    key = splitmix64(np.array([seed], np.uint64))
    found = np.empty(len(cells), np.uint64)
    for start in range(0, len(cells), _CHUNK):  # small enough to stay in the processor's cache
        found[start : start + _CHUNK] = splitmix64(cells[start : start + _CHUNK].astype(np.uint64) ^ key)
    if weight is None:
        return found
    with np.errstate(divide="ignore"):
        waiting = -np.log((found.astype(np.float64) + 1) / 2.0**64) / weight.astype(np.float64)
    weighted = np.where(weight > 0, np.abs(waiting), np.inf).view(np.uint64)  # bits of numbers >= 0 sort like the numbers
    return np.where(weight > 0, weighted, _NEVER)


def histogram(block: Block, strata: int, seed: int) -> Ints:
    """Return how many drawable cells of each stratum have a priority in each bin, (strata, BINS) int64."""
    keys = priorities(block.ids, seed, block.weight)
    place = block.stratum * BINS + _bins(keys, weighted=block.weight is not None)
    if block.weight is not None:
        place = place[block.weight > 0]
    return np.bincount(place, minlength=strata * BINS).reshape(strata, BINS)


def _bins(keys: Keys, *, weighted: bool) -> Ints:
    if weighted:
        return np.clip((keys >> np.uint64(49)).astype(np.int64) - _FIRST_BIN, 0, BINS - 1)
    return (keys >> np.uint64(54)).astype(np.int64)


@dataclass(frozen=True)
class Cuts:
    """The last drawn cell of each stratum: its priority and id, (S,) each; nothing is drawn where the id is -1."""

    keys: Keys
    ids: Ints
    seed: int

    def drawn(self, block: Block) -> Bools:
        """Return which cells of a block are drawn, (n,)."""
        keys = priorities(block.ids, self.seed, block.weight)
        cut, last = self.keys[block.stratum], self.ids[block.stratum]
        chosen: Bools = (keys < cut) | ((keys == cut) & (block.ids <= last))
        return chosen if block.weight is None else chosen & (block.weight > 0)


@dataclass(frozen=True)
class Listed:
    """Drawn cells by their ids, ascending."""

    ids: Ints

    def drawn(self, block: Block) -> Bools:
        """Return which cells of a block are drawn, (n,)."""
        at = np.minimum(np.searchsorted(self.ids, block.ids), max(0, len(self.ids) - 1))
        found: Bools = self.ids[at] == block.ids if len(self.ids) else np.zeros(len(block.ids), bool)
        return found


def find_cuts(blocks: Blocks, counts: Ints, quotas: Ints, seed: int) -> Cuts:
    """Return where the draw of each stratum ends.

    Args:
        blocks: all cells.
        counts: (S, BINS) drawable cells of each stratum in each bin of priorities.
        quotas: (S,) cells to draw, at most those that are drawable.
        seed: of the draw.
    """
    below = np.cumsum(counts, axis=1)
    part = (quotas > 0) & (quotas < below[:, -1])
    target = np.where(part, np.argmax(below >= quotas[:, None], axis=1), -1)
    keys, ids, stratum = _in_bins(blocks, target, seed)
    order = np.lexsort((ids, keys, stratum))
    keys, ids, stratum = keys[order], ids[order], stratum[order]
    begin = np.searchsorted(stratum, np.arange(len(quotas)))
    before = np.where(target > 0, np.take_along_axis(below, np.maximum(target - 1, 0)[:, None], axis=1)[:, 0], 0)
    cut = np.where(quotas > 0, _NEVER, np.uint64(0))
    last = np.where(quotas > 0, np.iinfo(np.int64).max, -1)
    at = (begin + quotas - before - 1)[part]
    cut[part], last[part] = keys[at], ids[at]
    return Cuts(cut, last, seed)


def _in_bins(blocks: Blocks, target: Ints, seed: int) -> tuple[Keys, Ints, Ints]:
    """Return priority, id and stratum of all drawable cells in the target bin of their stratum."""
    found: list[tuple[Keys, Ints, Ints]] = [(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))]
    for block in blocks():
        keys = priorities(block.ids, seed, block.weight)
        inside = _bins(keys, weighted=block.weight is not None) == target[block.stratum]
        if block.weight is not None:
            inside &= block.weight > 0
        found.append((keys[inside], block.ids[inside], block.stratum[inside]))
    keys, ids, stratum = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return keys, ids, stratum


@dataclass(frozen=True)
class Spacing:
    """Least distance between drawn cells.

    Args:
        grid: of the cells.
        distance_m: between centres, > 0.
        share: (S,) share of the draw that the formula gives each stratum, whatever the total.
    """

    grid: CellGrid
    distance_m: float
    share: NDArray[np.float64]


def draw_apart(blocks: Blocks, counts: Ints, quotas: Ints, seed: int, spacing: Spacing) -> tuple[Listed, Ints]:
    """Draw cells that keep a distance from one another: in the order in which a growing total would draw them, a cell is
    taken unless it is too near to one taken before; its stratum goes on to its next ones.

    As that order does not depend on the quotas, what a smaller total draws a larger one keeps.

    Args:
        blocks: all cells.
        counts: (S, BINS) drawable cells of each stratum in each bin of priorities.
        quotas: (S,) cells to draw.
        seed: of the draw.
        spacing: the distance.

    Returns: the drawn cells, and (S,) how many each stratum gave: fewer than its quota where no room is left.
    """
    available = counts.sum(axis=1)
    share = np.where(spacing.share > 0, spacing.share, 1e-300)
    horizon = 1.3 * float(np.max(np.where(quotas > 1, (quotas - 1) / share, 0), initial=0.0))
    for left in reversed(range(_ROUNDS)):
        depth = np.minimum(available, np.minimum(np.floor(horizon * share), 2.0**62).astype(np.int64) + 1)
        ids, stratum, rank = _ranked(blocks, find_cuts(blocks, counts, depth, seed))
        order = np.lexsort((ids, rank, np.where(rank == 0, 0.0, rank / share[stratum])))
        ids, stratum = ids[order], stratum[order]
        ids, stratum = (values[thin(*spacing.grid.centres(ids), spacing.distance_m)] for values in (ids, stratum))
        first = _rank_within(stratum) < quotas[stratum]
        given = np.bincount(stratum[first], minlength=len(quotas))
        if not left or not ((given < quotas) & (depth < available)).any():
            break
        horizon = 2 * horizon + 1 / share.max()
    return Listed(np.sort(ids[first])), given


def _ranked(blocks: Blocks, cuts: Cuts) -> tuple[Ints, Ints, Ints]:
    """Return id, stratum and rank in it (from 0, by priority) of all cells within the cuts."""
    parts = [(b.ids[at], b.stratum[at], priorities(b.ids[at], cuts.seed, None if b.weight is None else b.weight[at]))
             for b in blocks() for at in (np.flatnonzero(cuts.drawn(b)),)]  # fmt: skip
    ids, stratum, keys = (np.concatenate(values) for values in zip(*parts, strict=True))
    order = np.lexsort((ids, keys, stratum))
    ids, stratum = ids[order], stratum[order]
    return ids, stratum, np.arange(len(ids)) - np.searchsorted(stratum, stratum, side="left")


def _rank_within(stratum: Ints) -> Ints:
    """Return how many earlier entries have the same stratum, (n,)."""
    order = np.argsort(stratum, kind="stable")
    ordered = stratum[order]
    rank = np.empty(len(stratum), np.int64)
    rank[order] = np.arange(len(stratum)) - np.searchsorted(ordered, ordered, side="left")
    return rank
