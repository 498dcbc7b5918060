"""Pairs of rows that may be the same picture, by perceptual hashes and features, without looking at every pair.

n rows, d numbers a row. A candidate is a row (i, j, orientation): row j, brought into that orientation, may be row i; i < j.

Source: sorted tables of rotated hashes after Manku, Jain and Das Sarma 2007, "Detecting near-duplicates for web crawling".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cgeartheye.metrics.likeness import INVERSE, ORIENTATIONS, Hashes, hamming, oriented_hashes

BANDS: Final = 9
"""Bands of 7 bits of a 63-bit hash: of two hashes that differ in at most 8 bits, one band at least is equal."""
GROUP_ROWS: Final = 4_000_000
"""Rows that are sorted at a time: bounds the memory to about 200 MB however many rows there are [ours]."""

_BITS: Final = 7
_BLOCK: Final = 65_536
_MASK: Final = np.uint64(2**63 - 1)

Candidates = NDArray[np.int64]


class Closeness(NamedTuple):
    """When two rows of one cluster are candidates: within ``radius`` bits, or ``alike_radius`` if their cosine is ``alike``."""

    radius: int
    alike_radius: int
    alike: float


def band_candidates(hashes: Hashes, band: int, *, radius: int, window: int) -> Candidates:
    """Return candidates among rows whose hashes lie near one another when sorted from one band of bits on.

    In each orientation a hash is compared with the ``window`` hashes around its place in the sorted list. Rows are taken in
    groups by the band's value, so that memory does not grow with n beyond the hashes themselves, which may be mapped from disk.

    Args:
        hashes: (n,) uint64 of :func:`cgeartheye.metrics.likeness.perceptual_hash`.
        band: 0 to 8.
        radius: greatest number of differing bits.
        window: hashes looked at, half of them on each side.

    Returns: (m, 3) int64, distinct, sorted.
    """
    bounds = _groups(hashes, band)
    found = [
        _near(_members(hashes, 0, band, low, high), _members(hashes, o, band, low, high), o, (radius, window))
        for low, high in bounds
        for o in range(ORIENTATIONS)
    ]
    return distinct(found)


def distinct(found: list[Candidates]) -> Candidates:
    """Join lists of candidates (m, 3), sorted, each once."""
    return np.unique(np.concatenate([np.empty((0, 3), np.int64), *found]), axis=0)


def _rotated(hashes: Hashes, band: int) -> Hashes:
    """Return 63-bit numbers that begin with the band."""
    bits, shift = hashes >> np.uint64(1), np.uint64(_BITS * band)
    return ((bits << shift) | (bits >> (np.uint64(63) - shift))) & _MASK


def _groups(hashes: Hashes, band: int) -> list[tuple[int, int]]:
    """Return ranges of band values that hold at most :data:`GROUP_ROWS` rows, or a single value."""
    counts = np.zeros(2**_BITS, np.int64)
    for block in _blocks(len(hashes)):
        values = _rotated(hashes[block], band) >> np.uint64(63 - _BITS)
        counts += np.bincount(values.astype(np.int64), minlength=2**_BITS)
    bounds, low, held = [], 0, 0
    for value, count in enumerate(counts.tolist()):
        if held and held + count > GROUP_ROWS:
            bounds.append((low, value))
            low, held = value, 0
        held += count
    return [*bounds, (low, 2**_BITS)]


class _Members(NamedTuple):
    """Rows of a group in order of their rotated hash."""

    rotated: Hashes
    rows: NDArray[np.int64]


def _members(hashes: Hashes, orientation: int, band: int, low: int, high: int) -> _Members:
    rotated, rows = [], []
    for block in _blocks(len(hashes)):
        turned = _rotated(oriented_hashes(hashes[block], orientation), band)
        values = turned >> np.uint64(63 - _BITS)
        inside = np.flatnonzero((values >= low) & (values < high))
        rotated.append(turned[inside])
        rows.append(inside + block.start)
    keys, numbers = np.concatenate([np.empty(0, np.uint64), *rotated]), np.concatenate([np.empty(0, np.int64), *rows])
    order = np.argsort(keys, kind="stable")
    return _Members(keys[order], numbers[order])


def _near(base: _Members, asked: _Members, orientation: int, limits: tuple[int, int]) -> Candidates:
    radius, window = limits
    found = []
    for block in _blocks(len(asked.rows)):
        keys, rows = asked.rotated[block], asked.rows[block]
        at = np.searchsorted(base.rotated, keys)
        for offset in range(-min(window // 2, len(base.rows)), min((window + 1) // 2, len(base.rows))):
            other = at + offset
            inside = slice(None)
            if other[0] < 0 or other[-1] >= len(base.rows):  # positions ascend
                inside = slice(int(np.searchsorted(other, 0)), int(np.searchsorted(other, len(base.rows))))
            near = np.flatnonzero(hamming(base.rotated[other[inside]], keys[inside]) <= radius) + (inside.start or 0)
            if near.size:
                found.append(_ordered(base.rows[other[near]], rows[near], orientation))
    return distinct(found)


def _ordered(first: NDArray[np.int64], second: NDArray[np.int64], orientation: int) -> Candidates:
    """Put the smaller row first; where that swaps two rows, the orientation is undone instead."""
    turned = np.where(first < second, orientation, INVERSE[orientation])
    pairs = np.stack([np.minimum(first, second), np.maximum(first, second), turned], axis=1)
    return np.asarray(pairs[first != second], np.int64)


def _blocks(n: int) -> Iterator[slice]:
    for start in range(0, n, _BLOCK):
        yield slice(start, min(start + _BLOCK, n))


def cluster_candidates(
    hashes: Hashes, features: NDArray[np.floating], own: NDArray[np.bool_], close: Closeness, *, window: int
) -> Candidates:
    """Return candidates among the rows of a cluster and of those beside it, at least one of each pair being the cluster's own.

    Args:
        hashes: (n,) uint64.
        features: (n, d), rows of unit length. Rows are sorted by the cosine to their common mean and each is compared with
            at least ``window`` that follow, so that a large cluster costs no more than its share.
        own: (n,) bool, True for rows of the cluster itself.
        close: when a pair is a candidate.
        window: rows.

    Returns: (m, 3) int64, distinct, sorted.
    """
    x = np.asarray(features, np.float32)
    order = np.lexsort((np.arange(len(x)), -(x @ x.mean(axis=0)))) if len(x) else np.empty(0, np.int64)
    x, hashes, own = x[order], hashes[order], own[order]
    turned = [oriented_hashes(hashes, o) for o in range(ORIENTATIONS)]
    found = []
    for start in range(0, len(x), window):
        a, b = slice(start, start + window), slice(start, start + 2 * window)
        ahead = np.arange(len(x))[None, b] > np.arange(len(x))[a, None]
        alike = (x[a] @ x[b].T >= close.alike) & ahead
        usable = ahead & (own[a, None] | own[None, b])
        for o in range(ORIENTATIONS):
            bits = hamming(hashes[a, None], turned[o][None, b])
            rows, columns = np.nonzero(usable & ((bits <= close.radius) | (alike & (bits <= close.alike_radius))))
            found.append(_ordered(order[rows + start], order[columns + start], o))
    return distinct(found)


def keep_first(pairs: NDArray[np.int64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Decide which of n rows are dropped: in order of rank, a row that is paired with a kept one.

    A row is never dropped for being paired with a dropped one, so that chains of likeness do not carry over.

    Args:
        pairs: (m, 2) rows that are the same.
        rank: (n,) distinct; smaller is better.

    Returns: (n,) int64, the best kept row a dropped row is paired with, -1 for kept rows.
    """
    dropped_for = np.full(len(rank), -1, np.int64)
    if not len(pairs):
        return dropped_for
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[rank[both[:, 1]] < rank[both[:, 0]]]  # (worse, better)
    for worse, better in both[np.lexsort((rank[both[:, 1]], rank[both[:, 0]]))].tolist():
        if dropped_for[worse] < 0 and dropped_for[better] < 0:
            dropped_for[worse] = better
    return dropped_for
