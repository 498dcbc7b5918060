"""Hashed draws: uniform, independent of the batch, permutations where asked."""

from __future__ import annotations

import numpy as np
from scipy import stats

from cgeartheye.transforms.draws import ranks, uniforms


def test_uniform_and_uncorrelated() -> None:
    values = uniforms(0, "x", np.arange(20_000), 3)
    assert stats.kstest(values.ravel(), "uniform").pvalue > 1e-3
    columns = np.corrcoef(values.T)
    assert np.abs(columns - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(values[:-1, 0], values[1:, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(values[:, 0], uniforms(0, "y", np.arange(20_000), 1)[:, 0])[0, 1]) < 0.03


def test_a_row_depends_on_its_sample_alone() -> None:
    whole = uniforms(7, "x", np.arange(100), 4)
    np.testing.assert_array_equal(uniforms(7, "x", np.array([42, 3]), 2), whole[[42, 3], :2])
    assert (uniforms(8, "x", np.arange(100), 4) != whole).all()


def test_ranks_are_permutations() -> None:
    drawn = ranks(0, "x", np.arange(500), 4)
    assert (np.sort(drawn, axis=1) == np.arange(4)).all()
    assert stats.chisquare(np.bincount(drawn[:, 0], minlength=4)).pvalue > 1e-3
