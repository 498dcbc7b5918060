"""The hidden-patch term against a loop over views."""

from __future__ import annotations

import pytest
import torch

from cgeartheye.errors import ShapeError
from cgeartheye.losses.patch import patch_loss


def test_mean_over_masked_views_of_the_mean_over_their_patches() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    log_probs = torch.randn(4, 6, generator=generator).log_softmax(-1)
    targets = torch.randn(4, 6, generator=generator).softmax(-1)
    rows = -(targets * log_probs).sum(1)
    expected = (rows[:3].mean() + rows[3]) / 2
    torch.testing.assert_close(patch_loss(log_probs, targets, masks=masks), expected)


def test_nothing_hidden_costs_nothing() -> None:
    nothing = torch.zeros(0, 6, requires_grad=True)
    loss = patch_loss(nothing, nothing.detach(), masks=torch.zeros(2, 4, dtype=torch.bool))
    assert float(loss.detach()) == 0
    assert loss.requires_grad


def test_rows_that_do_not_fit_the_masks_are_refused() -> None:
    with pytest.raises(ShapeError):
        patch_loss(torch.zeros(3, 6), torch.zeros(3, 6), masks=torch.eye(4, dtype=torch.bool))
