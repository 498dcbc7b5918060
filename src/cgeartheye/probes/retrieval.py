"""Finding the same place again at another date.

n queries, m gallery pictures, d numbers a picture, H W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import ShapeError
from cgeartheye.inference.features import prepare
from cgeartheye.probes.knn import unit_rows
from cgeartheye.seeding import stream

SMALLEST_CROP = 0.75
"""Smallest side of a query, as a share of the chip's [ours]."""


def disturb(image: NDArray[np.uint8], *, seed: int, name: str) -> NDArray[np.uint8]:
    """Turn a query by a random number of quarter turns and cut 75 to 100 % of its sides at a random position.

    Args:
        image: (H, W, 3) uint8.
        seed: of the stage.
        name: of the picture; decides the draw together with ``seed``.

    Returns:
        (h, w, 3) uint8, the same for every method that is compared.
    """
    random = stream(seed, "retrieval query", name)
    turned = np.rot90(image, int(random.integers(4)))
    share = random.uniform(SMALLEST_CROP, 1.0)
    h, w = (max(1, round(share * side)) for side in turned.shape[:2])
    top, left = int(random.integers(turned.shape[0] - h + 1)), int(random.integers(turned.shape[1] - w + 1))
    return np.ascontiguousarray(turned[top : top + h, left : left + w])


def grey_thumbnail(image: NDArray[np.uint8], side_px: int) -> NDArray[np.float32]:
    """Return a chip's grey pixels, resized and standardised: the plainest thing that knows where what lies.

    Args:
        image: (H, W, 3) uint8 RGB; the centre square is used.
        side_px: side of the thumbnail.

    Returns:
        (side_px * side_px,) float32 with mean 0 and deviation 1; zeros for a chip without any contrast.
    """
    grey = prepare(image, side_px).numpy().astype(np.float32).mean(axis=0)  # (side, side)
    spread = float(grey.std())
    standardised: NDArray[np.float32] = (grey.ravel() - grey.mean()) / (spread if spread > 0 else 1.0)
    return standardised


def turned_thumbnails(thumbnails: NDArray[np.float32], side_px: int) -> list[NDArray[np.float32]]:
    """Return (n, side_px * side_px) thumbnails at each of the four quarter turns."""
    square = thumbnails.reshape(-1, side_px, side_px)
    return [np.rot90(square, turn, axes=(1, 2)).reshape(len(square), -1) for turn in range(4)]


def cosine(queries: NDArray[np.floating], gallery: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the (n, m) float64 cosine similarities of (n, d) queries and (m, d) gallery pictures."""
    similarity: NDArray[np.float64] = unit_rows(queries) @ unit_rows(gallery).T
    return similarity


def ranks(similarity: NDArray[np.floating], truth: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return at which rank each query finds its place, 1 the best; gallery pictures as near as the right one count before it.

    Args:
        similarity: (n, m) float.
        truth: (n,) int, column of the right gallery picture.

    Returns:
        (n,) int64 in [1, m].

    Raises:
        ShapeError: if the shapes do not fit.
    """
    if similarity.ndim != 2 or truth.shape != similarity.shape[:1]:
        raise ShapeError(f"similarity {similarity.shape} and truth {truth.shape} do not fit")
    own = np.take_along_axis(similarity, truth[:, None].astype(np.int64), axis=1)  # (n, 1)
    before: NDArray[np.int64] = (similarity >= own).sum(axis=1)
    return before
