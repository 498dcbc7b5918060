"""Products of matrices, which are what k-means spends its time on: one interface, here for the processor.

``on_device.py`` has the same for a GPU. Only what is compared is made there; sums of clusters stay on the processor.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cgeartheye.clustering.rows import squares

Array = NDArray[np.float32]
Positions = NDArray[np.int64]
Held = Any
"""A table where products are made, or centroids there: of a type that only the maker knows."""


class Products(Protocol):
    """Where products are made; tables are held there between calls."""

    def hold(self, x: Array, /) -> Held:
        """Bring a table (n, d) there."""

    def centroids(self, x: Array, /) -> Held:
        """Bring centroids (k, d) there, with their squared lengths."""

    def dots(self, held: Held, part: slice, at: Positions, /) -> Array:
        """Return the products (m, t) of the rows of a part with the rows at ``at`` (t,) of the same table."""

    def nearest(
        self, held: Held, centroids: Held, rows: Positions | None = None, tried: Positions | None = None, /
    ) -> tuple[Positions, Array]:
        """Return for each row which of the centroids is nearest, and the squared distance less the row's squared length.

        Args:
            held: a table (n, d).
            centroids: (k, d).
            rows: (m,) of the table; None takes all.
            tried: (t,) of the centroids; None takes all.

        Returns: (m,) position in ``tried``, ties to the earlier one, and (m,) float32.
        """

    def nearest_two(
        self, held: Held, centroids: Held, rows: Positions | None = None, tried: Positions | None = None, /
    ) -> Positions:
        """Return for each row which two of at least two centroids are nearest, (m, 2) positions, the nearest first."""


class Centroids(NamedTuple):
    """Centroids (k, d) with their squared lengths (k,)."""

    values: Array
    lengths: Array


class Processor:
    """Products by NumPy: the same bits with any number of threads."""

    def hold(self, x: Array, /) -> Array:
        """Return the table (n, d) as it is."""
        return x

    def centroids(self, x: Array, /) -> Centroids:
        """Return centroids (k, d) with their squared lengths."""
        return Centroids(x, squares(x))

    def dots(self, held: Array, part: slice, at: Positions, /) -> Array:
        """Return products (m, t) as :meth:`Products.dots` says."""
        return np.asarray(held[part] @ held[at].T)

    def nearest(
        self, held: Array, centroids: Centroids, rows: Positions | None = None, tried: Positions | None = None, /
    ) -> tuple[Positions, Array]:
        """Return positions (m,) and scores (m,) as :meth:`Products.nearest` says."""
        scores = self._scores(held, centroids, rows, tried)
        best = scores.argmin(axis=1)
        return best, scores[np.arange(len(scores)), best]

    def nearest_two(
        self, held: Array, centroids: Centroids, rows: Positions | None = None, tried: Positions | None = None, /
    ) -> Positions:
        """Return positions (m, 2) as :meth:`Products.nearest_two` says."""
        scores = self._scores(held, centroids, rows, tried)
        best = scores.argmin(axis=1)
        scores[np.arange(len(scores)), best] = np.inf
        return np.stack([best, scores.argmin(axis=1)], axis=1)

    def _scores(self, held: Array, centroids: Centroids, rows: Positions | None, tried: Positions | None) -> Array:
        values, lengths = centroids if tried is None else (centroids.values[tried], centroids.lengths[tried])
        scores: Array = (held if rows is None else held[rows]) @ values.T
        scores *= -2
        scores += lengths
        return scores


PROCESSOR: Final = Processor()
"""The one that is used unless another is asked for."""
