"""Block masks over patch grids with exact counts, so that every batch hides the same number of patches.

B batch, h w patches of a view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgeartheye.seeding import stream

_LEAST_BLOCK = 4
_MOST_STRETCH = 1 / 0.3  # ratio of a block's sides, as in BEiT (Bao et al. 2021)
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPolicy:
    """How many patches of how many global views are hidden.

    Args:
        share_of_views: share of the global views that are masked at all.
        ratio: least and greatest share of hidden patches in a masked view.
    """

    share_of_views: float = 0.5
    ratio: tuple[float, float] = (0.1, 0.5)


def mask_counts(policy: MaskPolicy, *, views: int, patches: int) -> NDArray[np.int64]:
    """Return the hidden patches of each of ``views`` global views: equal steps over the ratio's range, the rest 0.

    Returns:
        (views,) int64, descending number of hidden patches; the sum is the same in every batch.
    """
    masked = int(views * policy.share_of_views)
    low, high = policy.ratio
    ratios = low + (high - low) * (np.arange(masked) + 0.5) / max(masked, 1)
    counts = np.zeros(views, dtype=np.int64)
    counts[:masked] = np.maximum(1, np.rint(ratios * patches))[::-1]
    return counts


def block_mask(count: int, grid: tuple[int, int], generator: np.random.Generator) -> NDArray[np.bool_]:
    """Hide exactly ``count`` patches in blocks.

    Blocks are drawn as in BEiT (area uniform, ratio of sides log-uniform) until the next one no longer fits the count;
    what is still missing is drawn among the visible patches.

    Args:
        count: patches to hide, 0 .. h w.
        grid: h and w.
        generator: source of the draws.

    Returns:
        (h, w) bool, True where hidden.
    """
    mask = np.zeros(grid, dtype=np.bool_)
    missing, tries = count, 0
    while missing >= _LEAST_BLOCK and tries < _TRIES:
        tries += 1
        missing -= _add_block(mask, missing, generator)
    if missing:
        free = np.flatnonzero(~mask)
        mask.reshape(-1)[generator.choice(free, size=missing, replace=False)] = True
    return mask


def _add_block(mask: NDArray[np.bool_], most: int, generator: np.random.Generator) -> int:
    """Hide one block if it adds at most ``most`` patches; return how many it added."""
    h, w = mask.shape
    area = generator.uniform(_LEAST_BLOCK, max(most, _LEAST_BLOCK + 1e-9))
    stretch = math.exp(generator.uniform(-math.log(_MOST_STRETCH), math.log(_MOST_STRETCH)) / 2)
    height, width = round(math.sqrt(area) * stretch), round(math.sqrt(area) / stretch)
    if not (1 <= height <= h and 1 <= width <= w):
        return 0
    top, left = int(generator.integers(h - height + 1)), int(generator.integers(w - width + 1))
    block = mask[top : top + height, left : left + width]
    added = int(block.size - block.sum())
    if added > most:
        return 0
    block[:] = True
    return added


def draw_masks(
    policy: MaskPolicy, grid: tuple[int, int], *, seed: int, samples: NDArray[np.int64], views: int = 2
) -> NDArray[np.bool_]:
    """Draw the masks of a microbatch's global views.

    Which view hides how many patches is a permutation of the microbatch (keyed by its first sample), the blocks of a view are
    keyed by its own sample number.

    Args:
        policy: how many patches and views.
        grid: h and w.
        seed: the stage's seed.
        samples: (B,) int64 running sample numbers of the microbatch.
        views: global views a sample, V.

    Returns:
        (V, B, h w) bool, True where hidden.
    """
    counts = mask_counts(policy, views=views * len(samples), patches=grid[0] * grid[1])
    counts = stream(seed, "mask/counts", int(samples[0])).permutation(counts).reshape(views, len(samples))
    masks = np.zeros((views, len(samples), grid[0] * grid[1]), dtype=np.bool_)
    for v, b in zip(*np.nonzero(counts), strict=True):
        generator = stream(seed, "mask/blocks", int(samples[b]), int(v))
        masks[v, b] = block_mask(int(counts[v, b]), grid, generator).reshape(-1)
    return masks


def hidden_patches(masks: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return where the hidden patches are and how much each counts, so that the loss is a mean over masked views.

    Args:
        masks: (V, B, N) bool, True where hidden.

    Returns:
        (R,) int64 ascending positions in the flattened masks, and (R,) float32 weights that sum to 1: 1 / (hidden patches of
        the view) / (masked views). Both are empty if nothing is hidden.
    """
    of_view = masks.sum(-1, keepdims=True)
    masked = max(int(np.count_nonzero(of_view)), 1)
    weights = np.broadcast_to(1.0 / np.maximum(of_view, 1) / masked, masks.shape)
    return np.flatnonzero(masks).astype(np.int64), weights[masks].astype(np.float32)
