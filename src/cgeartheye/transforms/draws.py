"""Random numbers of views: each is a hash of (seed, name, sample number, position), so order and batch size change nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cgeartheye.seeding import derive, splitmix64

_ODD = np.uint64(0xD6E8FEB86659FD93)


def uniforms(seed: int, name: str, samples: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Draw ``count`` numbers in [0, 1) for each running sample number.

    Args:
        seed: the stage's seed.
        name: what is drawn and for which view, for example ``"crop/global/0"``.
        samples: (B,) int64 running sample numbers, >= 0.
        count: numbers a sample, C.

    Returns:
        (B, C) float64; row b depends on ``seed``, ``name`` and ``samples[b]`` alone and begins the row of a larger ``count``.
    """
    start = np.uint64(derive(seed, name))
    with np.errstate(over="ignore"):
        rows = splitmix64(samples.astype(np.uint64) * _ODD + start)
        cells = splitmix64(rows[:, None] + np.arange(count, dtype=np.uint64)[None, :] * _ODD)
    return (cells >> np.uint64(11)).astype(np.float64) * 2.0**-53


def ranks(seed: int, name: str, samples: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Draw a permutation of ``count`` things for each running sample number.

    Args:
        seed: the stage's seed.
        name: what is ordered.
        samples: (B,) int64 running sample numbers.
        count: things to order, C.

    Returns:
        (B, C) int64, every row a permutation of 0 .. C-1.
    """
    return np.argsort(uniforms(seed, name, samples, count), axis=1, kind="stable").astype(np.int64)
