"""Masks: exact counts, the same total in every batch, blocks rather than dust."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cgeartheye.seeding import stream
from cgeartheye.transforms.masks import MaskPolicy, block_mask, draw_masks, hidden_patches, mask_counts


@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 20), st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_counts_are_exact(seed: int, h: int, w: int, share: float) -> None:
    count = int(share * h * w)
    assert block_mask(count, (h, w), stream(seed, "test")).sum() == count


def test_every_batch_hides_as_many_patches() -> None:
    policy = MaskPolicy(share_of_views=0.5, ratio=(0.1, 0.5))
    masks = [draw_masks(policy, (6, 6), seed=0, samples=np.arange(t, t + 16)) for t in range(0, 160, 16)]
    assert len({int(mask.sum()) for mask in masks}) == 1
    per_view = masks[0].sum(-1).reshape(-1)
    assert int((per_view > 0).sum()) == 16
    shares = per_view[per_view > 0] / 36
    assert float(shares.min()) >= 0.1
    assert float(shares.max()) <= 0.5
    np.testing.assert_array_equal(np.sort(per_view), np.sort(mask_counts(policy, views=32, patches=36)))


def test_all_views_and_none() -> None:
    samples = np.arange(4)
    assert draw_masks(MaskPolicy(share_of_views=1.0), (4, 4), seed=0, samples=samples).any(-1).all()
    assert not draw_masks(MaskPolicy(share_of_views=0.0), (4, 4), seed=0, samples=samples).any()


def test_blocks_hang_together() -> None:
    pieces = [ndimage.label(block_mask(77, (16, 16), stream(k, "test")))[1] for k in range(50)]
    dust = []
    for k in range(50):
        flat = np.zeros(256, dtype=bool)
        flat[stream(k, "dust").choice(256, 77, replace=False)] = True
        dust.append(ndimage.label(flat.reshape(16, 16))[1])
    assert np.mean(pieces) < 0.4 * np.mean(dust)


def test_masks_are_a_function_of_seed_and_samples() -> None:
    policy, samples = MaskPolicy(), np.arange(32, 40)
    first, again = (draw_masks(policy, (6, 6), seed=1, samples=samples) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw_masks(policy, (6, 6), seed=2, samples=samples))


@given(st.integers(0, 1000), st.integers(1, 9), st.floats(0, 1), st.floats(0.05, 0.6))
@settings(max_examples=40, deadline=None)
def test_hidden_patches_are_listed_and_every_masked_view_counts_the_same(seed: int, batch: int, share: float, low: float) -> None:
    policy = MaskPolicy(share_of_views=share, ratio=(low, 0.6))
    samples = np.arange(seed, seed + batch)
    masks = draw_masks(policy, (5, 6), seed=seed, samples=samples)
    hidden, weight = hidden_patches(masks)
    assert len(hidden) == len(weight) == mask_counts(policy, views=2 * batch, patches=30).sum()
    assert (np.diff(hidden) > 0).all()
    of_view = np.bincount(hidden // 30, weights=weight, minlength=2 * batch)
    masked = int(2 * batch * share)
    assert np.isclose(weight.sum(), min(masked, 1))
    np.testing.assert_allclose(of_view[of_view > 0], 1 / max(masked, 1), rtol=1e-5)
    flat = np.zeros(masks.size, dtype=bool)
    flat[hidden] = True
    np.testing.assert_array_equal(flat.reshape(masks.shape), masks)
