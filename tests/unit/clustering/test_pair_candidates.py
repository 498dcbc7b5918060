from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.clustering import candidates
from cgeartheye.clustering.candidates import BANDS, Closeness, band_candidates, cluster_candidates, distinct, keep_first
from cgeartheye.metrics.likeness import INVERSE, ORIENTATIONS, hamming, oriented_hashes


def hashes_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, n, dtype=np.uint64) << np.uint64(1)


def flipped(hashes: np.ndarray, bits: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    changed = hashes.copy()
    for row in range(len(hashes)):
        for bit in random.permutation(63)[:bits] + 1:
            changed[row] ^= np.uint64(1 << int(bit))
    return changed


def brute(hashes: np.ndarray, radius: int) -> set[tuple[int, int, int]]:
    found = set()
    for o in range(ORIENTATIONS):
        near = hamming(hashes[:, None], oriented_hashes(hashes, o)[None]) <= radius
        found |= {(int(i), int(j), o) for i, j in np.argwhere(near) if i < j}
    return found


def searched(hashes: np.ndarray, radius: int, window: int) -> set[tuple[int, int, int]]:
    every = distinct([band_candidates(hashes, band, radius=radius, window=window) for band in range(BANDS)])
    return set(map(tuple, every.tolist()))


def planted(n: int, copies: int, bits: int) -> np.ndarray:
    base = hashes_of(n)
    turned = [oriented_hashes(flipped(base[i : i + 1], bits, i), i % ORIENTATIONS) for i in range(copies)]
    return np.concatenate([base, *turned])


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_a_wide_window_finds_what_comparing_all_pairs_finds(bits: int) -> None:
    hashes = planted(200, 60, bits)
    wanted = brute(hashes, 8)
    assert len(wanted) >= 60
    assert searched(hashes, 8, 2 * len(hashes)) == wanted


def test_a_window_that_holds_the_bucket_of_a_band_finds_all_within_eight_bits() -> None:
    hashes = planted(6000, 60, 8)  # 6000 / 128 = 47 of a kind
    found = searched(hashes, 8, 256)
    copies = {(i, 6000 + i) for i in range(60)}
    assert copies <= {(i, j) for i, j, _ in found}
    for i, j, o in found:
        assert int(hamming(hashes[i], oriented_hashes(hashes[j : j + 1], o))[0]) <= 8


def test_groups_of_rows_change_nothing_but_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = planted(3000, 40, 3)
    whole = searched(hashes, 4, 512)
    monkeypatch.setattr(candidates, "GROUP_ROWS", 500)
    monkeypatch.setattr(candidates, "_BLOCK", 700)
    parts = searched(hashes, 4, 512)
    assert {(i, j) for i, j, _ in parts} == {(i, j) for i, j, _ in whole} == {(i, 3000 + i) for i in range(40)}


def test_order_of_rows_changes_only_their_numbers() -> None:
    hashes = planted(300, 40, 6)
    order = np.random.default_rng(1).permutation(len(hashes))
    back = np.argsort(order)

    def pairs(found: set[tuple[int, int, int]]) -> set[tuple[int, int, int]]:
        return found

    moved = set()
    for i, j, o in searched(hashes, 8, 1000):
        a, b = int(back[i]), int(back[j])
        moved.add((a, b, o) if a < b else (b, a, INVERSE[o]))
    assert pairs(searched(hashes[order], 8, 1000)) == moved


def test_clusters_let_like_features_differ_in_more_bits() -> None:
    random = np.random.default_rng(0)
    base = hashes_of(80)
    hashes = np.concatenate([base, flipped(base[:20], 11, 1), flipped(base[20:40], 15, 2), flipped(base[40:60], 15, 3)])
    features = random.normal(size=(140, 16)).astype(np.float32)
    features[80:120] = features[:40] + 0.05 * random.normal(size=(40, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    own = np.ones(140, bool)
    found = cluster_candidates(hashes, features, own, Closeness(12, 16, 0.95), window=200)
    pairs = {(i, j) for i, j, _ in found.tolist()}
    assert {(i, 80 + i) for i in range(40)} <= pairs  # 11 bits, and 15 bits with like features
    assert not {(i, 80 + i) for i in range(40, 60)} & pairs  # 15 bits alone are too many
    neighbour = cluster_candidates(hashes, features, np.arange(140) >= 100, Closeness(12, 16, 0.95), window=200)
    assert {(i, j) for i, j, _ in neighbour.tolist()} == {(i, j) for i, j in pairs if max(i, j) >= 100}


def test_a_large_cluster_is_searched_by_a_window() -> None:
    hashes = planted(900, 50, 0)
    random = np.random.default_rng(3)
    features = random.normal(size=(950, 8)).astype(np.float32)
    features[900:] = features[:50]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    found = cluster_candidates(hashes, features, np.ones(950, bool), Closeness(4, 4, 0.95), window=16)
    assert {(i, j) for i, j, _ in found.tolist()} == {(i, 900 + i) for i in range(50)}


def test_nothing_to_compare() -> None:
    assert band_candidates(np.empty(0, np.uint64), 0, radius=8, window=8).shape == (0, 3)
    assert band_candidates(hashes_of(1), 0, radius=8, window=8).shape == (0, 3)
    empty = np.empty((0, 4), np.float32)
    assert cluster_candidates(np.empty(0, np.uint64), empty, np.empty(0, bool), Closeness(1, 1, 1), window=2).shape == (0, 3)
    assert keep_first(np.empty((0, 2), np.int64), np.arange(3)).tolist() == [-1, -1, -1]


def test_chains_do_not_carry_over() -> None:
    pairs = np.array([[0, 1], [1, 2], [2, 3]])
    assert keep_first(pairs, np.arange(4)).tolist() == [-1, 0, -1, 2]
    assert keep_first(pairs, np.array([3, 0, 2, 1])).tolist() == [1, -1, 1, -1]


@settings(max_examples=50)
@given(st.integers(1, 12), st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11))), st.randoms(use_true_random=False))
def test_dropped_rows_are_near_a_kept_better_one_and_kept_rows_near_none(
    n: int, drawn: set[tuple[int, int]], random: object
) -> None:
    pairs = [(a % n, b % n) for a, b in drawn if a % n != b % n]
    rank = np.random.default_rng(len(pairs)).permutation(n)
    found = keep_first(np.array(pairs, np.int64).reshape(-1, 2), rank)
    known = {frozenset(pair) for pair in pairs}
    for row, other in enumerate(found.tolist()):
        if other >= 0:
            assert found[other] == -1
            assert frozenset((row, other)) in known
            assert rank[other] < rank[row]
    kept = np.flatnonzero(found < 0).tolist()
    assert not any(frozenset(pair) in known for pair in itertools.combinations(kept, 2))
