"""Rows of length one against PyTorch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cgeartheye.losses.unit import unit


def test_values_and_gradients_equal_torch_s() -> None:
    given = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.randn(3, 7, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slopes = []
    for function in (unit, lambda rows: F.normalize(rows, dim=-1)):
        rows = given.clone().requires_grad_()
        torch.autograd.backward((function(rows) * weight).sum())
        slopes.append(rows.grad)
    torch.testing.assert_close(unit(given), F.normalize(given, dim=-1))
    torch.testing.assert_close(slopes[0], slopes[1])
    assert torch.autograd.gradcheck(unit, given.requires_grad_())


def test_a_row_of_zeros_stays_one() -> None:
    assert not unit(torch.zeros(2, 3)).any()
