"""Distances between features, against closed forms and PyTorch's own cosine."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from cgeartheye.losses.features import cosine_distance, patch_distance


def test_the_cosine_knows_directions_only() -> None:
    a = torch.tensor([[3.0, 0.0], [0.0, 0.5], [1.0, 1.0], [-2.0, 0.0]])
    b = torch.tensor([[1.0, 0.0]]).expand(4, 2)
    assert cosine_distance(a, b).tolist() == pytest.approx([0.0, 1.0, 1 - math.sqrt(0.5), 2.0], abs=1e-6)


def test_patches_also_match_lengths() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 3, 4, 5, generator=g, dtype=torch.float64) for _ in range(2))
    absolute = (a - b).abs()
    smooth = torch.where(absolute < 1, 0.5 * absolute**2, absolute - 0.5).mean(-1)
    expected = 0.9 * (1 - F.cosine_similarity(a, b, dim=-1)) + 0.1 * smooth
    torch.testing.assert_close(patch_distance(a, b), expected)
    assert float(patch_distance(b, b).abs().max()) < 1e-12
    assert (patch_distance(2 * b, b) > 0).all()
