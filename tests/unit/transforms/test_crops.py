"""Crops as matrix products against PyTorch's own antialiased resize, flips and turns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.errors import ShapeError
from cgeartheye.transforms.crops import Boxes, CropPolicy, crop, crop_products, draw_boxes


def boxes(*rows: tuple[int, int, int, int, int]) -> Boxes:
    columns = np.array(rows, dtype=np.int64).T[:, :, None]
    return Boxes(top=columns[0], left=columns[1], height=columns[2], width=columns[3], turn=columns[4])


def turned(view: torch.Tensor, turn: int) -> torch.Tensor:
    view = view.flip(-1) if turn & 1 else view
    view = view.flip(-2) if turn & 2 else view
    return view.transpose(-1, -2) if turn & 4 else view


@given(
    st.integers(0, 1000),
    st.integers(0, 15),
    st.integers(0, 15),
    st.integers(1, 30),
    st.integers(1, 30),
    st.integers(0, 7),
    st.integers(4, 40),
)
@settings(max_examples=60, deadline=None)
def test_equals_cutting_and_resizing(seed: int, top: int, left: int, height: int, width: int, turn: int, side: int) -> None:
    image = torch.rand(1, 3, 45, 46, generator=torch.Generator().manual_seed(seed))
    cut = image[:, :, top : top + height, left : left + width]
    expected = F.interpolate(cut, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    for cut in (crop, crop_products):  # what a CPU does, and what a GPU does
        found = cut(image, boxes((top, left, height, width, turn)), side=side)[0]
        torch.testing.assert_close(found, turned(expected, turn), rtol=0, atol=2e-5)


def test_bytes_become_shares_of_one() -> None:
    image = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = crop(image, boxes((0, 0, 20, 20, 0), (5, 6, 10, 10, 0)), side=10)
    assert found.shape == (1, 2, 3, 10, 10)
    torch.testing.assert_close(found[0, 1], image[1, :, 5:15, 6:16].float() / 255)  # nothing to resize


def test_whole_numbers_and_half_precision_stay_near() -> None:
    """What a CPU does with bytes and a GPU with halves, against single precision: on noise at most 4 steps of 255."""
    image = torch.randint(0, 256, (3, 3, 60, 60), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = draw_boxes(CropPolicy(scale=(0.1, 1.0)), np.full((3, 2), 60), seed=0, names=("a", "b"), samples=np.arange(3))
    exact = crop_products(image, drawn, side=20)
    for found in (crop(image, drawn, side=20), crop_products(image, drawn, side=20, dtype=torch.float16)):
        assert float((found - exact).abs().max()) < 4 / 255
        assert float((found - exact).abs().mean()) < 0.5 / 255
    last = image.contiguous(memory_format=torch.channels_last)
    assert float((crop(last, drawn, side=20) - exact).abs().max()) < 4 / 255


def test_boxes_of_a_reduced_picture_show_the_same_ground() -> None:
    drawn = draw_boxes(CropPolicy(scale=(0.3, 1.0)), np.full((50, 2), 101), seed=0, names=("a",), samples=np.arange(50))
    full, half = np.full((50, 2), 101), np.full((50, 2), 51)
    small = drawn.reduced(full, half)
    for start, length, first, extent in ((drawn.top, drawn.height, small.top, small.height),):
        assert np.abs(first / 51 - start / 101).max() <= 0.5 / 51 + 1e-9
        assert np.abs((first + extent) / 51 - (start + length) / 101).max() <= 0.5 / 51 + 1e-9
    same = drawn.reduced(full, full)
    np.testing.assert_array_equal(same.top, drawn.top)
    np.testing.assert_array_equal(same.width, drawn.width)


def test_padding_never_shows() -> None:
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    padded = F.pad(image, (0, 13, 0, 7), value=99.0)
    whole = boxes((0, 0, 20, 20, 3))
    torch.testing.assert_close(crop(padded, whole, side=11), crop(image, whole, side=11))


def test_the_eight_turns_differ_and_come_equally_often() -> None:
    policy = CropPolicy(scale=(0.3, 1.0))
    drawn = draw_boxes(policy, np.full((4000, 2), 64), seed=1, names=("a",), samples=np.arange(4000))
    counts = np.bincount(drawn.turn[:, 0], minlength=8)
    assert counts.min() > 400  # 500 expected, deviation 21
    image = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    views = [crop(image, boxes((0, 0, 9, 9, turn)), side=9) for turn in range(8)]
    assert all(not torch.allclose(views[a], views[b]) for a in range(8) for b in range(a))


@given(st.integers(0, 10_000), st.integers(8, 300), st.integers(8, 300), st.floats(0.05, 1.0), st.floats(1.0, 2.0))
@settings(max_examples=60, deadline=None)
def test_boxes_lie_inside_and_cover_the_share(seed: int, h: int, w: int, low: float, aspect: float) -> None:
    policy = CropPolicy(scale=(low, 1.0), aspect=aspect, turns=False)
    drawn = draw_boxes(policy, np.array([[h, w]] * 50), seed=seed, names=("a", "b"), samples=np.arange(50))
    assert (drawn.top >= 0).all()
    assert (drawn.left >= 0).all()
    assert (drawn.top + drawn.height <= h).all()
    assert (drawn.left + drawn.width <= w).all()
    assert not drawn.turn.any()
    if h == w and aspect == 1.0:
        share = drawn.height * drawn.width / (h * w)
        assert (share >= low - 2 / h).all()


def test_a_view_depends_on_its_sample_alone() -> None:
    policy, sizes = CropPolicy(scale=(0.1, 0.9)), np.full((6, 2), 50)
    together = draw_boxes(policy, sizes, seed=3, names=("a", "b"), samples=np.arange(6))
    alone = draw_boxes(policy, sizes[:2], seed=3, names=("b",), samples=np.array([5, 1]))
    np.testing.assert_array_equal(alone.top[:, 0], together.top[[5, 1], 1])
    np.testing.assert_array_equal(alone.turn[:, 0], together.turn[[5, 1], 1])


def test_a_missing_box_is_refused() -> None:
    with pytest.raises(ShapeError):
        crop(torch.zeros(2, 3, 8, 8), boxes((0, 0, 8, 8, 0)), side=4)
