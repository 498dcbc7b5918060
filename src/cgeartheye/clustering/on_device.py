"""Products of matrices by torch, for a GPU. Nothing here imports this module but by name, because torch is slow to load."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]
Positions = NDArray[np.int64]


class TorchProducts:
    """Products in float32 on one device; equal to those of the processor but for rounding, so that near ties may differ.

    Args:
        device: such as ``cuda``.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def hold(self, x: Array, /) -> Tensor:
        """Copy a table (n, d) to the device."""
        return torch.tensor(x, dtype=torch.float32, device=self._device)

    def centroids(self, x: Array, /) -> tuple[Tensor, Tensor]:
        """Copy centroids (k, d) to the device; return them with their squared lengths."""
        values = self.hold(x)
        return values, values.square().sum(dim=1)

    def dots(self, held: Tensor, part: slice, at: Positions, /) -> Array:
        """Return products (m, t) as :meth:`cgeartheye.clustering.products.Products.dots` says."""
        found: Array = (held[part] @ held[self._at(at)].T).cpu().numpy()
        return found

    def nearest(
        self, held: Tensor, centroids: tuple[Tensor, Tensor], rows: Positions | None = None, tried: Positions | None = None, /
    ) -> tuple[Positions, Array]:
        """Return positions (m,) and scores (m,) as :meth:`cgeartheye.clustering.products.Products.nearest` says."""
        scores, best = self._scores(held, centroids, rows, tried).min(dim=1)
        return best.cpu().numpy(), scores.cpu().numpy()

    def nearest_two(
        self, held: Tensor, centroids: tuple[Tensor, Tensor], rows: Positions | None = None, tried: Positions | None = None, /
    ) -> Positions:
        """Return positions (m, 2) as :meth:`cgeartheye.clustering.products.Products.nearest_two` says."""
        best = self._scores(held, centroids, rows, tried).topk(2, dim=1, largest=False).indices
        found: Positions = best.cpu().numpy()
        return found

    def _scores(self, held: Tensor, centroids: tuple[Tensor, Tensor], rows: Positions | None, tried: Positions | None) -> Tensor:
        values, lengths = centroids
        if tried is not None:
            values, lengths = values[self._at(tried)], lengths[self._at(tried)]
        x = held if rows is None else held[self._at(rows)]
        return torch.addmm(lengths, x, values.T, alpha=-2)

    def _at(self, positions: Positions) -> Tensor:
        return torch.from_numpy(positions).to(self._device)
