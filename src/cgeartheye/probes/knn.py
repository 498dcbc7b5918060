"""k nearest neighbours on frozen features.

n bank pictures, m queries, d numbers a picture, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import ShapeError

_CHUNK = 1024


def knn_votes(
    bank: NDArray[np.floating],
    labels: NDArray[np.integer],
    queries: NDArray[np.floating],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.float64]:
    """Return the weighted votes of each query's nearest bank pictures.

    Cosine similarity s, weight exp(s / temperature). Of equally near pictures the first in the bank count.

    Args:
        bank: (n, d) float.
        labels: (n,) int >= 0; C is the largest plus one.
        queries: (m, d) float.
        k: number of neighbours [dinov2: 20]; all of a smaller bank.
        temperature: of the weights [dinov2: 0.07].

    Returns:
        (m, C) float64, each row sums to 1.

    Raises:
        ShapeError: if the shapes do not fit.

    Source: Wu et al. 2018 (arXiv 1805.01978), section 3.4.
    """
    if bank.ndim != 2 or queries.ndim != 2 or bank.shape[1] != queries.shape[1] or len(bank) != len(labels) or not len(bank):
        raise ShapeError(f"bank {bank.shape}, labels {labels.shape} and queries {queries.shape} do not fit")
    k = min(k, len(bank))
    known = unit_rows(bank)
    classes = np.eye(int(labels.max()) + 1)[labels]  # (n, C)
    votes = [
        _votes(unit_rows(queries[i : i + _CHUNK]) @ known.T, classes, k, temperature) for i in range(0, len(queries), _CHUNK)
    ]
    return np.concatenate(votes) if votes else np.zeros((0, classes.shape[1]))


def knn_predict(
    bank: NDArray[np.floating],
    labels: NDArray[np.integer],
    queries: NDArray[np.floating],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.int64]:
    """Return the class (m,) with the largest vote of :func:`knn_votes`; of equal ones the first."""
    return first_largest(knn_votes(bank, labels, queries, k=k, temperature=temperature))


def knn_leave_one_out(
    bank: NDArray[np.floating], labels: NDArray[np.integer], *, k: int = 20, temperature: float = 0.07
) -> NDArray[np.int64]:
    """Return for each picture of the bank (n, d) the class (n,) that its nearest others vote for."""
    known = unit_rows(bank)
    classes = np.eye(int(labels.max()) + 1)[labels]
    similarity = known @ known.T
    np.fill_diagonal(similarity, -np.inf)
    return first_largest(_votes(similarity, classes, min(k, len(bank) - 1), temperature))


def first_largest(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the column (m,) of each row's largest value in (m, C) scores; of equal ones the first."""
    best: NDArray[np.int64] = np.argmax(scores, axis=1)
    return best


def unit_rows(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return (n, d) features as float64 with rows of length 1; rows of zeros stay zero."""
    wide = features.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit


def _votes(similarity: NDArray[np.float64], classes: NDArray[np.float64], k: int, temperature: float) -> NDArray[np.float64]:
    threshold = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]  # (m, 1): the k-th largest
    nearer, level = similarity > threshold, similarity == threshold
    first = level & (np.cumsum(level, axis=1) <= k - nearer.sum(axis=1, keepdims=True))
    exponent = (similarity - similarity.max(axis=1, keepdims=True)) / temperature
    weights = np.where(nearer | first, np.exp(exponent), 0.0)  # (m, n)
    votes = weights @ classes
    shares: NDArray[np.float64] = votes / votes.sum(axis=1, keepdims=True)
    return shares
