"""Tokens of the frozen backbone, computed once a window and kept in half precision.

n windows, D joined width of the levels, h w patches, P side of a window in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from cgeartheye.files import write_bytes
from cgeartheye.progress import Progress
from cgeartheye.tasks.segmentation import joined_levels
from cgeartheye.weights.backbone import Backbone

CHUNK: Final = 32
"""Windows a cached file."""
_BATCH: Final = 8


@dataclass(frozen=True)
class TokenStore:
    """Cached tokens of n windows in several views.

    Attributes:
        chunks: by view, then by chunk: (up to CHUNK, D, h, w) float16, mapped from disk.
    """

    chunks: list[list[NDArray[np.float16]]]

    @property
    def width(self) -> int:
        """D."""
        return int(self.chunks[0][0].shape[1])

    def get(self, windows: Sequence[int], views: Sequence[int]) -> torch.Tensor:
        """Return (B, D, h, w) float32 tokens of windows, each in its view."""
        rows = [self.chunks[view][k // CHUNK][k % CHUNK] for k, view in zip(windows, views, strict=True)]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def statistics(self, windows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation (D,) of each channel over the first view of some windows."""
        total, squares, count = np.zeros(self.width), np.zeros(self.width), 0
        for k in windows:
            tokens = self.chunks[0][k // CHUNK][k % CHUNK].reshape(self.width, -1).astype(np.float64)
            total += tokens.sum(1)
            squares += np.square(tokens).sum(1)
            count += tokens.shape[1]
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
        return torch.from_numpy(mean).float(), torch.from_numpy(deviation).float()


def turned(array: NDArray[np.uint8], view: int) -> NDArray[np.uint8]:
    """Return one of the eight turned and mirrored views of (n, P, P, ...) arrays; view 0 is the array itself."""
    rotated = np.rot90(array, view % 4, axes=(1, 2))
    return np.ascontiguousarray(rotated[:, :, ::-1] if view >= 4 else rotated)


def cache_tokens(
    backbone: Backbone,
    layers: Sequence[int],
    images: NDArray[np.uint8],
    folder: Path,
    *,
    views: Sequence[int],
    progress: Progress,
) -> TokenStore:
    """Compute what is not cached in ``folder`` yet, chunk by chunk.

    Args:
        backbone: frozen.
        layers: its blocks whose tokens are joined.
        images: (n, P, P, 3) uint8.
        folder: of this backbone, these layers and these windows alone.
        views: which views.
        progress: who listens.
    """
    starts = range(0, len(images), CHUNK)
    wanted = [(view, start) for view in views for start in starts]
    paths = {(view, start): folder / f"{view}_{start // CHUNK:05d}.npy" for view, start in wanted}
    missing = [key for key in wanted if not paths[key].exists()]
    with progress.task("features", len(wanted), len(wanted) - len(missing)) as advance:
        for view, start in missing:
            buffer = BytesIO()
            np.save(buffer, _tokens(backbone, layers, turned(images[start : start + CHUNK], view)))
            write_bytes(paths[view, start], buffer.getvalue())
            advance(1)
    return TokenStore([[np.load(paths[view, start], mmap_mode="r") for start in starts] for view in views])


def _tokens(backbone: Backbone, layers: Sequence[int], images: NDArray[np.uint8]) -> NDArray[np.float16]:
    """(n, P, P, 3) uint8 -> (n, D, h, w) float16."""
    with torch.inference_mode():
        parts = [
            joined_levels(backbone, torch.from_numpy(images[k : k + _BATCH]).permute(0, 3, 1, 2), layers).half().numpy()
            for k in range(0, len(images), _BATCH)
        ]
    return np.concatenate(parts)
