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


class WindowOrder:
    """Another order, for shards that lie far away or do not fit in memory: a few shards at a time, mixed among themselves.

    Every epoch permutes the shards, cuts that order into windows of ``window`` shards, and permutes the places of each window by
    the same network. A reader then touches ``window`` shards at once, and no place is dropped or drawn twice. Places in shards
    are in hashed order already, so that small windows mix strata.

    Args:
        sizes: (S,) int64, places of each shard in the reader's order (:meth:`cgeartheye.shards.reader.ShardReader.shard_sizes`).
        window: shards mixed at once, >= 1.

    Raises:
        ValueError: if there is no place, a negative size or ``window`` < 1.
    """

    def __init__(self, sizes: NDArray[np.int64], window: int) -> None:
        if window < 1 or not len(sizes) or int(sizes.min()) < 0 or not int(sizes.sum()):
            message = f"there is nothing to draw from: {len(sizes)} shards, windows of {window}"
            raise ValueError(message)
        self._sizes, self._window = sizes.astype(np.int64), window
        self._firsts = np.cumsum(sizes) - sizes
        self._n = int(sizes.sum())
        self._known: tuple[int, NDArray[np.int64], NDArray[np.int64]] | None = None

    def index(self, seed: int, t: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which place is drawn as number ``t`` (any shape) of a run, as :func:`sample_index` does; (seed, t) decide."""
        flat = np.asarray(t, dtype=np.int64).reshape(-1)
        drawn = np.empty_like(flat)
        epochs = flat // self._n
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            drawn[chosen] = self._epoch(derive(seed, "order of shards", int(epoch)), flat[chosen] - epoch * self._n)
        return drawn.reshape(np.shape(t))

    def _epoch(self, seed: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        count = len(self._sizes)
        order, ends = self._shards(seed)
        last = np.minimum(np.arange(self._window - 1, count + self._window - 1, self._window), count - 1)
        window_ends = ends[last]
        window = np.searchsorted(window_ends, positions, side="right")
        mixed = np.empty_like(positions)
        for number in np.unique(window):
            inside = window == number
            first = int(window_ends[number - 1]) if number else 0
            size = int(window_ends[number]) - first
            mixed[inside] = first + sample_index(derive(seed, "window", int(number)), positions[inside] - first, size)
        slot = np.searchsorted(ends, mixed, side="right")
        shard = order[slot]
        found: NDArray[np.int64] = self._firsts[shard] + mixed - (ends[slot] - self._sizes[shard])
        return found

    def _shards(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the epoch's order of shards (S,) and its cumulated places (S,); those of the last epoch asked for are kept."""
        known = self._known
        if known is None or known[0] != seed:
            order = sample_index(seed, np.arange(len(self._sizes)), len(self._sizes))
            known = self._known = (seed, order, np.cumsum(self._sizes[order]))
        return known[1], known[2]
