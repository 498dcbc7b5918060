"""Blur against SciPy and torchvision, and how often it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as T
from scipy import ndimage, stats

from cgeartheye.transforms.blur import BlurPolicy, blur, draw_sigmas, gaussian_matrix


def noise(count: int, side: int) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 1.7, 3.0])
def test_equals_scipy_and_torchvision(sigma: float) -> None:
    image = noise(1, 23)
    found = blur(image.clone(), np.array([sigma], dtype=np.float32))[0]
    expected = ndimage.gaussian_filter(image[0].numpy().astype(np.float64), (0, sigma, sigma), mode="mirror", truncate=4.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    radius = int(4 * sigma + 0.5)
    torch.testing.assert_close(found, T.gaussian_blur(image, [2 * radius + 1] * 2, [sigma, sigma])[0], rtol=0, atol=1e-5)


def test_only_the_drawn_views_change() -> None:
    images = noise(4, 9)
    found = blur(images.clone(), np.array([0, 0.8, 0, 0.8], dtype=np.float32))
    assert torch.equal(found[[0, 2]], images[[0, 2]])
    assert not torch.allclose(found[[1, 3]], images[[1, 3]], atol=0.05)
    assert torch.equal(blur(images.clone(), np.zeros(4, dtype=np.float32)), images)


def test_a_blur_wider_than_its_view_still_is_a_mean() -> None:
    matrix = gaussian_matrix(torch.tensor([8.0]), side=8)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(1, 8))
    assert float(matrix.min()) >= 0


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9, 1.0])
def test_the_share_is_the_share_that_is_blurred(share: float) -> None:
    """dinov2 and dinov3 blur the complement of what their settings say; a binomial test would catch it."""
    policy = BlurPolicy(share=share, sigma_px=(0.3, 0.9))
    sigmas = draw_sigmas(policy, seed=0, names=("a", "b", "c"), samples=np.arange(1000))
    blurred = sigmas > 0
    assert stats.binomtest(int(blurred.sum()), blurred.size, share).pvalue > 1e-3
    assert share == 0 or ((sigmas[blurred] >= 0.3) & (sigmas[blurred] <= 0.9)).all()
    assert share in {0.0, 1.0} or stats.kstest(sigmas[blurred], "uniform", args=(0.3, 0.6)).pvalue > 1e-3


def test_a_view_depends_on_its_sample_alone() -> None:
    together = draw_sigmas(BlurPolicy(), seed=3, names=("a", "b"), samples=np.arange(50))
    alone = draw_sigmas(BlurPolicy(), seed=3, names=("b",), samples=np.array([40, 7]))
    np.testing.assert_array_equal(alone[0], together[1, [40, 7]])
