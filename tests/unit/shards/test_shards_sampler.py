from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.shards.sampler import WindowOrder, sample_index


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6), n=st.integers(1, 700))
def test_every_epoch_draws_each_sample_exactly_once(seed: int, epoch: int, n: int) -> None:
    drawn = sample_index(seed, np.arange(epoch * n, (epoch + 1) * n), n)
    assert sorted(drawn.tolist()) == list(range(n))


@pytest.mark.parametrize("n", [4097, 65_536, 99_991])
def test_large_sizes_are_permutations_too(n: int) -> None:
    assert np.array_equal(np.sort(sample_index(3, np.arange(n), n)), np.arange(n))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), t=st.integers(0, 2**53), n=st.integers(1, 2**40))
def test_one_number_equals_the_vector_form_and_stays_inside(seed: int, t: int, n: int) -> None:
    one = sample_index(seed, t, n)
    assert isinstance(one, int)
    assert 0 <= one < n
    assert sample_index(seed, np.array([[t, t + 1]]), n)[0, 0] == one


def test_epochs_and_seeds_differ() -> None:
    n = 1000
    first, second = sample_index(0, np.arange(n), n), sample_index(0, np.arange(n, 2 * n), n)
    other = sample_index(1, np.arange(n), n)
    for a, b in [(first, second), (first, other)]:
        assert (a == b).mean() < 0.01


def test_order_is_mixed_like_a_uniform_shuffle() -> None:
    n = 20_000
    drawn = sample_index(5, np.arange(n), n)
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(drawn, np.arange(n))[0, 1]) < 4 / np.sqrt(n)
    near = np.mean(np.abs(np.diff(drawn)) <= 100)
    assert near == pytest.approx(0.01, abs=0.004)


def test_all_orders_of_three_are_about_equally_common() -> None:
    epochs = 6000
    orders = sample_index(11, np.arange(3 * epochs), 3).reshape(epochs, 3)
    _, counts = np.unique(orders @ [9, 3, 1], return_counts=True)
    expected = epochs / 6
    assert counts.size == 6
    assert ((counts - expected) ** 2 / expected).sum() < 20.5  # chi-squared with 5 degrees of freedom, p = 0.001


def test_the_order_is_part_of_the_format() -> None:
    assert sample_index(7, np.arange(8), 8).tolist() == [sample_index(7, t, 8) for t in range(8)]
    with pytest.raises(ValueError, match="nothing to draw"):
        sample_index(0, 0, 0)


sizes_and_windows = st.tuples(st.lists(st.integers(0, 30), min_size=1, max_size=25).filter(any), st.integers(1, 30))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6), shards=sizes_and_windows)
def test_windows_drop_and_double_nothing(seed: int, epoch: int, shards: tuple[list[int], int]) -> None:
    sizes, window = shards
    n = sum(sizes)
    drawn = WindowOrder(np.array(sizes), window).index(seed, np.arange(epoch * n, (epoch + 1) * n))
    assert sorted(drawn.tolist()) == list(range(n))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), shards=sizes_and_windows)
def test_a_window_opens_only_so_many_shards(seed: int, shards: tuple[list[int], int]) -> None:
    sizes, window = shards
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    visited = shard_of[WindowOrder(np.array(sizes), window).index(seed, np.arange(sum(sizes)))]
    first = {shard: int(np.flatnonzero(visited == shard)[0]) for shard in set(visited.tolist())}
    last = {shard: int(np.flatnonzero(visited == shard)[-1]) for shard in first}
    opened = max(sum(first[s] <= at <= last[s] for s in first) for at in range(len(visited)))
    assert opened <= window


def test_windows_mix_their_shards_and_change_every_epoch() -> None:
    sizes = np.full(40, 50)
    order = WindowOrder(sizes, 4)
    first, second = order.index(1, np.arange(2000)), order.index(1, np.arange(2000, 4000))
    assert (first == second).mean() < 0.01
    shards = first // 50
    assert np.mean(shards[1:] == shards[:-1]) == pytest.approx(0.25, abs=0.05)
    assert len(set((second[:200] // 50).tolist())) == 4
    assert set(shards[:200].tolist()) != set((second[:200] // 50).tolist())


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 97),
    batch=st.sampled_from([1, 6, 12, 60]),
    split=st.sampled_from([(1, 1), (1, 4), (2, 3), (3, 2), (6, 1), (2, 5)]),
    window=st.sampled_from([None, 1, 3]),
)
def test_ranks_and_workers_see_one_order(n: int, batch: int, split: tuple[int, int], window: int | None) -> None:
    """Rank r of R takes t = step B + r B / R + j, worker w of W every W-th j; together they are the order of one process."""
    ranks, workers = split
    if batch % ranks:
        return
    steps, share = 2 * n // batch + 1, batch // ranks
    sizes = np.bincount(np.arange(n) % 7, minlength=7)

    def draw(t: np.ndarray) -> np.ndarray:
        return sample_index(9, t, n) if window is None else WindowOrder(sizes, window).index(9, t)

    alone = draw(np.arange(steps * batch))
    together = np.full(steps * batch, -1)
    for step in range(steps):
        for rank in range(ranks):
            for worker in range(workers):
                t = step * batch + rank * share + np.arange(worker, share, workers)
                together[t] = draw(t)
    assert np.array_equal(together, alone)
    for epoch in range(steps * batch // n):
        assert sorted(alone[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


@pytest.mark.parametrize(("sizes", "window"), [([], 1), ([0, 0], 1), ([3], 0), ([3, -1], 1)])
def test_windows_over_nothing_are_refused(sizes: list[int], window: int) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        WindowOrder(np.array(sizes, dtype=np.int64), window)


def test_the_windowed_order_is_part_of_the_format() -> None:
    order = WindowOrder(np.array([3, 2, 4]), 2)
    assert order.index(7, np.arange(9)).tolist() == [int(order.index(7, np.array(t))) for t in range(9)]
    assert order.index(7, np.array([[0, 1], [2, 3]])).shape == (2, 2)
