"""Colour changes against torchvision's own operations."""

from __future__ import annotations

import numpy as np
import torch
import torchvision.transforms.v2.functional as T

from cgeartheye.transforms.colour import JitterPolicy, draw_factors, jitter


def test_equals_torchvision_where_nothing_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    images = 0.35 + 0.2 * torch.rand(5, 3, 16, 17, generator=generator)
    factors = 0.8 + 0.4 * torch.rand(5, 6, generator=generator)
    found = jitter(images, factors)
    for image, (brightness, contrast, saturation, *gain), result in zip(images, factors.tolist(), found, strict=True):
        expected = T.adjust_brightness(image * torch.tensor(gain)[:, None, None], brightness)
        expected = T.adjust_saturation(T.adjust_contrast(expected, contrast), saturation)
        torch.testing.assert_close(result, expected, rtol=0, atol=3e-4)  # luma weights sum to 0.9999


def test_ones_change_nothing_and_results_stay_in_range() -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(jitter(images, torch.ones(4, 6)), images, rtol=0, atol=1e-4)
    loud = jitter(images, torch.full((4, 6), 3.0))
    assert float(loud.min()) >= 0
    assert float(loud.max()) <= 1


def test_factors_keep_to_the_policy() -> None:
    policy = JitterPolicy(brightness=0.4, contrast=0.3, saturation=0.2, channel_gain=0.0, share=0.7)
    factors = torch.from_numpy(draw_factors(policy, seed=0, names=("a", "b"), samples=np.arange(3000)))
    assert factors.shape == (2, 3000, 6)
    changed = (factors != 1).any(-1)
    assert abs(float(changed.float().mean()) - 0.7) < 0.03
    limits = torch.tensor([0.4, 0.3, 0.2, 0.0, 0.0, 0.0])
    assert ((factors - 1).abs().amax((0, 1)) <= limits).all()
    assert ((factors - 1).abs().amax((0, 1)) >= 0.98 * limits).all()
    assert not torch.equal(factors[0], factors[1])
