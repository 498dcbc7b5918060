"""Crops as matrix products against PyTorch's own antialiased resize, flips and turns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.errors import ShapeError
from cgeartheye.transforms.crops import Boxes, CropPolicy, crop, draw_boxes


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
    found = crop(image, boxes((top, left, height, width, turn)), side=side)[0]
    torch.testing.assert_close(found, turned(expected, turn), rtol=0, atol=2e-5)


def test_bytes_become_shares_of_one() -> None:
    image = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = crop(image, boxes((0, 0, 20, 20, 0), (5, 6, 10, 10, 0)), side=10)
    assert found.shape == (1, 2, 3, 10, 10)
    torch.testing.assert_close(found[0, 1], image[1, :, 5:15, 6:16].float() / 255)  # nothing to resize


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
