"""How many prototypes a head has when the settings leave it open."""

from __future__ import annotations

import math
from typing import Final

_BY_CHIPS: Final = ((316_228, 16_384), (1_000_000, 32_768), (10_000_000, 65_536))
"""Chips up to which a number of prototypes holds, from 100,000 chips on; beyond the last 131,072 [ours; dinov2 65,536]."""
_MOST: Final = 131_072
_SMALL: Final = 100_000
CHIPS_EACH: Final = 24
"""Chips a prototype below 100,000 chips: between 256 and 4,096 prototypes [ours]."""
ROWS_RATIO: Final = 16
"""Most prototypes for each class row that Sinkhorn balances [ours: beyond, most columns stay empty at every step]."""


def prototypes_for(chips: int, batch: int) -> int:
    """Return the number of prototypes K for an archive and a batch, a power of two.

    Args:
        chips: of all places.
        batch: samples a step, all processes and microbatches together; each has two class rows.

    Returns:
        K between 64 and 131,072, at most 16 times the class rows (but never below 64).
    """
    if chips < _SMALL:
        wanted: float = 2 ** round(math.log2(max(chips, 1) / CHIPS_EACH))
        by_chips = int(min(max(wanted, 256), 4096))
    else:
        by_chips = next((count for most, count in _BY_CHIPS if chips <= most), _MOST)
    by_rows = 1 << int(math.log2(ROWS_RATIO * 2 * batch))
    return max(64, min(by_chips, by_rows))
