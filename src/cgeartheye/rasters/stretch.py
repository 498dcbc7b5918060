"""From 16 to 8 bits by one linear stretch a scene, so that overlapping windows of it agree and no seams appear."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

LOW_SHARE: Final = 0.005
"""Share of valid values below the stretch [ours: 0.5 %]."""
HIGH_SHARE: Final = 0.995
"""Share of valid values below its upper end [ours: 99.5 %]."""
MIN_SPAN: Final = 64
"""Narrower ranges are widened about their middle, so that open water is not blown up to full contrast [ours]."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The values ``low`` and ``high`` of a scene that become 0 and 255 in all its bands."""

    low: float
    high: float

    def apply(self, values: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Return 8-bit values, (...) uint16 -> (...) uint8; monotone, clipped at both ends."""
        return _table(self.low, self.high)[values]


def measure_stretch(values: NDArray[np.uint16]) -> Stretch | None:
    """Return the stretch of a scene from a sample of its valid values of all three bands, or None if it has no range.

    One span for all bands keeps the hue.

    Args:
        values: (n,) uint16, valid pixels only.
    """
    if values.size == 0:
        return None
    low, high = np.quantile(values, (LOW_SHARE, HIGH_SHARE))
    if values.min() == values.max():
        return None
    if high - low < MIN_SPAN:
        middle = (low + high) / 2
        low, high = max(0.0, middle - MIN_SPAN / 2), middle + MIN_SPAN / 2
    return Stretch(float(low), float(high))


@lru_cache(maxsize=64)
def _table(low: float, high: float) -> NDArray[np.uint8]:
    """Return what each of the 65,536 values becomes."""
    ramp = (np.arange(2**16, dtype=np.float64) - low) * (255 / (high - low))
    return np.clip(np.rint(ramp), 0, 255).astype(np.uint8)
