"""Rows for comparisons of k-means: unit vectors of concepts with Zipf sizes, gathered in families."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CONCEPTS, FAMILIES, RANK, ZIPF = 2_000, 40, 24, 1.15
APART, SPREAD = 0.6, 0.775
"""Lengths of a concept's offset from its family's centre, and of the spread around it, beside a centre of length 1."""


def _unit(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def make_rows(n: int, d: int, seed: int, concepts: int = CONCEPTS) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (n, d) unit rows and the concept (n,) of each; concept k has a share proportional to 1 / (k + 1)^1.15."""
    random = np.random.default_rng(seed)
    families = _unit(random.standard_normal((FAMILIES, d)))
    offsets = APART * _unit(random.standard_normal((concepts, d)))
    centres = _unit(families[random.integers(0, FAMILIES, concepts)] + offsets)
    weights = 1 / np.arange(1, concepts + 1) ** ZIPF
    truth = random.choice(concepts, n, p=weights / weights.sum())
    order = np.argsort(truth, kind="stable")
    bounds = np.searchsorted(truth[order], np.arange(concepts + 1))
    rows = np.empty((n, d), np.float32)
    for k in range(concepts):
        members = order[bounds[k] : bounds[k + 1]]
        basis = random.standard_normal((RANK, d)) / np.sqrt(d)
        spread = random.standard_normal((len(members), RANK)) / np.sqrt(RANK) @ basis
        rows[members] = _unit(centres[k] + SPREAD * spread)
    return rows, truth
