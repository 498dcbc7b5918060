from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.geometry.blending import ONE, decide, feather, window_weight
from cgeartheye.geometry.windows import WindowPlan


@given(st.integers(0, 40).map(lambda n: 2 * n), st.integers(1, 60), st.integers(1, 6))
def test_neighbours_add_up_to_one(halo: int, extra: int, count: int) -> None:
    core = halo + extra
    total = np.zeros(count * core + 2 * halo)
    for index in range(count):
        weight = feather(core + 2 * halo, halo, first=index == 0, last=index == count - 1)
        total[index * core : index * core + core + 2 * halo] += weight
    np.testing.assert_allclose(total[halo : halo + count * core], 1, atol=1e-7)


def test_the_outer_quarter_is_cut_and_the_middle_half_is_linear() -> None:
    weight = feather(40, 8, first=False, last=False)  # overlap of 16 with each neighbour
    assert (weight[:4] == 0).all()
    np.testing.assert_allclose(np.diff(weight[4:12]), 1 / 8)
    assert (weight[12:28] == 1).all()
    np.testing.assert_allclose(weight[::-1], weight)


def test_no_halo_means_no_feather() -> None:
    assert (feather(16, 0, first=False, last=False) == 1).all()


@given(st.integers(1, 100), st.integers(1, 100))
def test_weights_of_a_plan_add_up_everywhere(height: int, width: int) -> None:
    plan = WindowPlan(height, width, 32, 8, 8)
    total = np.zeros((height, width))
    for i in range(plan.counts[0]):
        for j in range(plan.counts[1]):
            part = plan.support(i, j)
            total[part.slices] += window_weight(plan, i, j)[part.within(plan.window(i, j))]
            outside = np.ones((32, 32), bool)
            outside[part.within(plan.window(i, j))] = False
            inside_scene = plan.window(i, j).intersect(plan.scene).within(plan.window(i, j))
            assert (window_weight(plan, i, j) * outside)[inside_scene].sum() == 0  # nothing that counts is left out
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_decide_takes_the_largest_and_keeps_255_free() -> None:
    sums = np.array([[[ONE, ONE // 2, 3]], [[0, ONE // 2, ONE + 2]]], np.int32)  # rounding may exceed one by a little
    classes, confidence = decide(sums)
    assert classes.tolist() == [[0, 0, 1]]
    assert confidence.tolist() == [[254, 127, 254]]
    assert classes.dtype == confidence.dtype == np.uint8


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_confidence_is_the_probability_in_254_steps(share: float) -> None:
    sums = np.array([round(share * ONE), 0], np.int32).reshape(2, 1, 1)
    assert decide(sums)[1].item() == round(share * 254)
