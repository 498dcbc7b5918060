from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.shards.sampler import sample_index


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
