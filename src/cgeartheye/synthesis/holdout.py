"""Which blocks of the landscape are kept for testing: compact, of many classes, with a buffer of one chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PUREST: Final = 0.60
"""A chip has a class if that class covers at least this share of it."""
ENOUGH_TEST, ENOUGH_TRAIN = 6, 12
"""Chips of a class in one quarter beyond which more of them do not make a choice of blocks better."""
SHARE: Final = (0.18, 0.22)
"""Share of the landscape that the blocks hold together."""


@dataclass(frozen=True)
class Block:
    """A rectangle of the grid of chips: first row, first column, rows, columns."""

    row: int
    column: int
    rows: int
    columns: int


def chip_classes(classes: NDArray[np.uint8], chip_px: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return class number (n, n), -1 without, and the largest class's share (n, n) of every chip of the grid.

    Args:
        classes: (H, W) class numbers, 255 where there is none.
        chip_px: side of a chip.
        count: number of classes.
    """
    n = classes.shape[0] // chip_px
    tiles = classes[: n * chip_px, : n * chip_px].reshape(n, chip_px, n, chip_px)
    shares = np.stack([(tiles == k).mean(axis=(1, 3)) for k in range(count)])
    best = shares.argmax(axis=0)
    share = shares.max(axis=0)
    return np.where(share >= PUREST, best, -1), share


def covered(blocks: tuple[Block, ...], side: int, margin: int = 0) -> NDArray[np.bool_]:
    """Return (side, side) bool: chips of the grid inside a block or less than ``margin`` chips away from one."""
    mask = np.zeros((side, side), dtype=bool)
    for block in blocks:
        top, left = max(0, block.row - margin), max(0, block.column - margin)
        mask[top : block.row + block.rows + margin, left : block.column + block.columns + margin] = True
    return mask


def off_grid_share(blocks: tuple[Block, ...], side: int) -> float:
    """Return the share of chips at least one chip away from all blocks on a grid half a chip off, the worst of all grids.

    Places for training are drawn on a grid of cells that knows nothing of the blocks' grid.
    """
    free = np.ones((side - 1, side - 1), dtype=bool)
    for block in blocks:
        top, left = max(0, block.row - 2), max(0, block.column - 2)
        free[top : block.row + block.rows + 1, left : block.column + block.columns + 1] = False
    return float(free.mean())


def choose_blocks(pure: NDArray[np.int64], count: int, rng: np.random.Generator, tries: int = 4000) -> tuple[Block, ...]:
    """Return the best of many random choices of three blocks (fewer in a small landscape).

    Best is: every class has :data:`ENOUGH_TEST` chips inside and :data:`ENOUGH_TRAIN` outside of blocks and buffer; among
    equals, the classes are most even and most chips are left for training, which favours corners and edges.

    Args:
        pure: (n, n) class of every chip, -1 without.
        count: number of classes.
        rng: where the tries come from.
        tries: how many choices are compared.
    """
    side = pure.shape[0]
    number = 3 if side >= 20 else 2 if side >= 10 else 1
    onehot = np.stack([pure == k for k in range(count)])
    best: tuple[Block, ...] = ()
    best_score = -np.inf
    for _ in range(tries):
        blocks = _draw(side, number, rng)
        if blocks is None:
            continue
        test, near = covered(blocks, side), covered(blocks, side, 1)
        inside, outside = (onehot & test).sum(axis=(1, 2)), (onehot & ~near).sum(axis=(1, 2))
        score = 10.0 * np.minimum(inside / ENOUGH_TEST, 1).sum() + 10.0 * np.minimum(outside / ENOUGH_TRAIN, 1).sum()
        score += 10.0 * ((inside > 0).sum() + (outside > 0).sum())
        score += 1.5 * np.log1p(inside).sum() + np.log1p(outside).sum() + 150.0 * off_grid_share(blocks, side)
        if score > best_score:
            best, best_score = blocks, score
    return best


def _place(last: int, rng: np.random.Generator) -> int:
    """Return a first row or column, 0 to ``last``, most often one of the ends."""
    anywhere = int(rng.integers(last + 1))
    return anywhere if rng.random() < 0.35 else int(rng.choice([0, last]))


def _draw(side: int, number: int, rng: np.random.Generator) -> tuple[Block, ...] | None:
    """Return blocks of the wanted total share that do not touch each other's buffer, or None where the draw fails."""
    target = rng.uniform(0.181, 0.195) * side * side / number
    blocks: list[Block] = []
    for _ in range(number):
        rows = int(np.clip(round(np.sqrt(target) * rng.uniform(0.8, 1.25)), 1, side - 2))
        columns = int(np.clip(round(target / rows), 1, side - 2))
        blocks.append(Block(_place(side - rows, rng), _place(side - columns, rng), rows, columns))
    chosen = tuple(blocks)
    area = sum(block.rows * block.columns for block in chosen)
    if not SHARE[0] <= area / side**2 <= SHARE[1] + (0.06 if number == 1 else 0.0):
        return None
    if covered(chosen, side, 1).sum() < sum(covered((block,), side, 1).sum() for block in chosen):
        return None
    return chosen
