from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.errors import InputError
from cgeartheye.geometry.windows import Window, WindowPlan, check_lattice, reflect


@st.composite
def plans(draw: st.DrawFn) -> WindowPlan:
    patch = draw(st.sampled_from([2, 8, 14]))
    halo = patch * draw(st.integers(0, 3))
    window = 2 * halo + patch * draw(st.integers(max(1, -(-halo // patch)), 6))
    height, width = draw(st.integers(1, 4 * window)), draw(st.integers(1, 4 * window))
    return WindowPlan(height, width, window, halo, patch, superblock=draw(st.integers(1, 5)))


@given(plans())
def test_cores_and_regions_cover_each_pixel_once(plan: WindowPlan) -> None:
    by_core, by_region, by_interior = (np.zeros((plan.height, plan.width), int) for _ in range(3))
    for block in plan.blocks():
        by_region[block.region.slices] += 1
        by_interior[block.interior.slices] += 1
        for core in block.cores:
            by_core[plan.core(*core).intersect(plan.scene).slices] += 1
    assert (by_core == 1).all()
    assert (by_region == 1).all()
    assert (by_interior <= 1).all()


@given(plans())
def test_windows_lie_on_the_patch_lattice(plan: WindowPlan) -> None:
    for i in range(plan.counts[0]):
        for j in range(plan.counts[1]):
            window = plan.window(i, j)
            assert window.row % plan.patch_px == 0
            assert window.col % plan.patch_px == 0
            assert window.shape == (plan.window_px, plan.window_px)


@given(plans())
def test_no_foreign_window_counts_in_an_interior(plan: WindowPlan) -> None:
    for block in plan.blocks():
        own = set(block.cores)
        for i in range(plan.counts[0]):
            for j in range(plan.counts[1]):
                if (i, j) not in own:
                    assert not plan.support(i, j).intersect(block.interior)


@given(plans())
def test_windows_that_count_in_a_region_belong_to_the_neighbours(plan: WindowPlan) -> None:
    for block in plan.blocks():
        near = {core for other in block.neighbours() for core in other.cores}
        for i in range(plan.counts[0]):
            for j in range(plan.counts[1]):
                if plan.support(i, j).intersect(block.region):
                    assert (i, j) in near


@given(st.integers(-60, 60), st.integers(1, 90), st.integers(2, 20))
def test_reflect_is_numpys(first: int, count: int, size: int) -> None:
    axis = np.arange(size)
    before, after = max(0, -first), max(0, first + count - size)
    padded = np.pad(axis, (before, after), mode="reflect")
    assert (reflect(first, count, size) == padded[first + before : first + before + count]).all()


def test_reflect_of_one_pixel_repeats_it() -> None:
    assert reflect(-3, 7, 1).tolist() == [0] * 7


@pytest.mark.parametrize(
    ("window", "halo", "patch", "word"),
    [(512, 32, 14, "multiple"), (504, 30, 14, "multiple"), (56, 28, 14, "core"), (70, 35, 7, "even"), (64, -8, 8, "negative")],
)
def test_sizes_off_the_lattice_are_refused(window: int, halo: int, patch: int, word: str) -> None:
    with pytest.raises(InputError, match=word):
        check_lattice(window, halo, patch)


def test_window_arithmetic() -> None:
    a, b = Window(0, 0, 10, 20), Window(5, 15, 10, 20)
    assert a.intersect(b) == Window(5, 15, 5, 5)
    assert not a.intersect(Window(10, 0, 3, 3))
    picture = np.arange(200).reshape(10, 20)
    assert (picture[Window(2, 3, 4, 5).slices] == picture[2:6, 3:8]).all()
    assert (picture[2:, 3:][Window(4, 5, 2, 2).within(Window(2, 3, 8, 17))] == picture[4:6, 5:7]).all()
