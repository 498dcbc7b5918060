"""The spread against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from cgeartheye.losses.koleo import koleo


def test_two_opposite_points() -> None:
    assert float(koleo(torch.tensor([[[3.0, 0.0], [-0.5, 0.0]]]))) == pytest.approx(-math.log(2))


def test_corners_of_a_square() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert float(koleo(points[None])) == pytest.approx(-math.log(math.sqrt(2)))


def test_against_all_distances() -> None:
    rows = torch.randn(20, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    unit = rows / rows.norm(dim=1, keepdim=True)
    distances = torch.cdist(unit.double(), unit.double()) + 10 * torch.eye(20, dtype=torch.float64)
    assert float(koleo(rows[None])) == pytest.approx(float(-distances.min(1).values.log().mean()), abs=1e-5)


def test_equal_rows_stay_finite_and_push_nobody() -> None:
    rows = torch.ones(4, 3, requires_grad=True)
    loss = koleo(rows[None])
    torch.autograd.backward(loss)
    assert float(loss.detach()) == pytest.approx(-math.log(1e-4), rel=1e-4)
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()


def test_one_row_has_no_neighbour() -> None:
    assert float(koleo(torch.ones(1, 1, 3))) == 0


def test_views_are_added_and_never_compared() -> None:
    views = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1))
    assert float(koleo(views)) == pytest.approx(sum(float(koleo(view[None])) for view in views), rel=1e-5)
    assert float(koleo(torch.stack([views[0], views[0]]))) == pytest.approx(2 * float(koleo(views[:1])), rel=1e-5)
