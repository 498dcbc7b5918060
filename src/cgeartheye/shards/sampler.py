"""The order of samples: a permutation an epoch, computed for any position without a table.

A Feistel network on the numbers 0 .. a b - 1, a b >= n, with cycle walking down to n (Black and Rogaway 2002, "Ciphers
with arbitrary finite domains"). The halves are residues modulo a and b, so the domain exceeds n by less than a and
hardly any position walks.
"""

from __future__ import annotations

import math
from typing import Final, overload

import numpy as np
from numpy.typing import NDArray

from cgeartheye.seeding import derive, splitmix64

ROUNDS: Final = 8
"""Rounds of the network [ours]; six already leave no correlation between neighbours that 10**6 samples show."""


@overload
def sample_index(seed: int, t: int, n: int) -> int: ...
@overload
def sample_index(seed: int, t: NDArray[np.integer], n: int) -> NDArray[np.int64]:  # noqa: D418 - arrays' shapes are named
    """Any shape (...) -> (...)."""


def sample_index(seed: int, t: int | NDArray[np.integer], n: int) -> int | NDArray[np.int64]:
    """Return which of ``n`` samples is drawn as number ``t`` of a run.

    Numbers ``e n .. (e + 1) n - 1`` (epoch e) are a permutation of 0 .. n - 1, another one each epoch; the value depends on
    the arguments alone.

    Args:
        seed: of the run.
        t: running sample number(s) >= 0, an int or an integer array of any shape.
        n: number of samples, 1 <= n < 2**62.

    Returns: an int, or int64 of the shape of ``t``, in [0, n).
    """
    if n < 1:
        message = f"there is nothing to draw from: n = {n}"
        raise ValueError(message)
    numbers = np.atleast_1d(np.asarray(t, dtype=np.uint64))
    epochs, positions = numbers // np.uint64(n), numbers % np.uint64(n)
    keys = splitmix64(np.uint64(derive(seed, "order of samples")) ^ splitmix64(epochs))
    drawn = _network(positions, keys, n)
    while (outside := drawn >= np.uint64(n)).any():
        drawn[outside] = _network(drawn[outside], keys[outside], n)
    if isinstance(t, np.ndarray):
        return drawn.astype(np.int64).reshape(t.shape)
    return int(drawn[0])


def _network(values: NDArray[np.uint64], keys: NDArray[np.uint64], n: int) -> NDArray[np.uint64]:
    """Permute the numbers 0 .. a b - 1, a = ceil(sqrt n), b = ceil(n / a); ``values`` and ``keys`` have one shape."""
    side = math.isqrt(n - 1) + 1
    a, b = np.uint64(side), np.uint64(-(-n // side))
    left, right = values // b, values % b
    with np.errstate(over="ignore"):
        for number in range(0, ROUNDS, 2):
            left = (left + _mixed(right, keys, number) % a) % a
            right = (right + _mixed(left, keys, number + 1) % b) % b
    return left * b + right


def _mixed(half: NDArray[np.uint64], keys: NDArray[np.uint64], number: int) -> NDArray[np.uint64]:
    return splitmix64(splitmix64(keys + np.uint64(number)) ^ half)
