"""A linear probe: multinomial logistic regression on frozen features.

n bank pictures, d numbers a picture, C classes, S strengths tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from cgeartheye.errors import ShapeError
from cgeartheye.seeding import stream

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse L2 strengths C tried, in decades [ours]."""
_INNER_PARTS = 4
_MAX_ITERATIONS = 500
_CHOICE_SLOPE = 1e-4
"""Largest slope at which a fit ends while strengths are compared, as in scikit-learn."""
_SLOPE = 1e-5
"""The same for the fit that is used."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe; standardises its input with the bank's mean and deviation."""

    mean: NDArray[np.float64]
    """(d,)."""
    scale: NDArray[np.float64]
    """(d,): standard deviation of the bank, 1 where it is 0."""
    weight: NDArray[np.float64]
    """(C, d)."""
    bias: NDArray[np.float64]
    """(C,)."""
    strength: float
    """The C that was chosen."""

    def logits(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (m, C) logits of (m, d) features."""
        logits: NDArray[np.float64] = ((features - self.mean) / self.scale) @ self.weight.T + self.bias
        return logits

    def predict(self, features: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the likeliest class (m,) of (m, d) features."""
        best: NDArray[np.int64] = np.argmax(self.logits(features), axis=1)
        return best


def fit_linear(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    groups: Sequence[str] | None = None,
) -> LinearProbe:
    """Choose the L2 strength on an inner split of the bank, then fit the whole bank with it.

    A quarter of each class is held out for the choice; of equally good strengths the strongest regularisation is taken.
    A bank too small to hold anything out gets the middle strength.

    Args:
        features: (n, d) float.
        labels: (n,) int >= 0.
        seed: of the inner split.
        strengths: values of C, the weight of the summed cross-entropy against half the squared weights.
        groups: (n,) keys; pictures of one group stay on one side of the inner split.

    Raises:
        ShapeError: if the shapes do not fit or there is only one class.
    """
    if features.ndim != 2 or len(features) != len(labels) or len(np.unique(labels)) < 2 or not strengths:
        raise ShapeError(f"features {features.shape} and labels {labels.shape} do not make a problem")
    ordered = sorted(strengths)
    if len(ordered) == 1:
        return _fit_path(features, labels, ordered)[0]
    held = inner_split(labels, groups or [str(i) for i in range(len(labels))], seed=seed)
    if not held.any():
        return _fit_path(features, labels, [ordered[len(ordered) // 2]])[0]
    tried = _fit_path(features[~held], labels[~held], ordered, slope=_CHOICE_SLOPE)
    scores = [float((probe.predict(features[held]) == labels[held]).mean()) for probe in tried]
    best = tried[int(np.argmax(scores))]
    return _fit_path(features, labels, [best.strength], start=best)[0]


def cross_fitted(
    features: NDArray[np.floating], labels: NDArray[np.integer], second: NDArray[np.bool_], *, strength: float
) -> float | None:
    """Fit each half of the rows, predict the other one, and return the accuracy over all rows.

    A quick look at features during training: one strength, every row used for fitting once and for testing once.

    Args:
        features: (n, d) float.
        labels: (n,) int >= 0; a class that the fitted half lacks counts as missed.
        second: (n,) bool, which half a row belongs to.
        strength: the C of both fits.

    Returns:
        share of rows predicted right, or None if a half has fewer than two classes.
    """
    if any(len(np.unique(labels[half])) < 2 for half in (second, ~second)):
        return None
    right = np.zeros(len(labels), dtype=bool)
    for half in (second, ~second):
        probe = _fit_path(features[half], labels[half], [strength], slope=_CHOICE_SLOPE)[0]
        right[~half] = probe.predict(features[~half]) == labels[~half]
    return float(right.mean())


def inner_split(labels: NDArray[np.integer], groups: Sequence[str], *, seed: int) -> NDArray[np.bool_]:
    """Hold out every fourth group of each class, in random order, and one of two or three.

    Args:
        labels: (n,) int; a group counts for the class of its first picture.
        groups: (n,) keys.
        seed: of the order.

    Returns:
        (n,) bool, True where held out.
    """
    keys, first, group_of = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    order = stream(seed, "inner split").permutation(len(keys))
    held = np.zeros(len(keys), dtype=bool)
    for label in np.unique(labels):
        members = order[labels[first[order]] == label]
        start = min(_INNER_PARTS, len(members)) - 1
        held[members[max(start, 1) :: _INNER_PARTS]] = True
    return held[group_of]


def _fit_path(
    features: NDArray[np.floating],
    labels: NDArray[np.integer],
    strengths: Sequence[float],
    *,
    start: LinearProbe | None = None,
    slope: float = _SLOPE,
) -> list[LinearProbe]:
    """Fit one strength after the other, each from the one before; the optimum is unique, so this only saves time."""
    wide = features.astype(np.float64)
    mean, scale = wide.mean(axis=0), wide.std(axis=0)
    scale[scale < 1e-12 * np.maximum(1.0, np.abs(mean))] = 1.0
    inputs = np.hstack([(wide - mean) / scale, np.ones((len(wide), 1))])  # (n, d + 1)
    target = np.eye(int(labels.max()) + 1)[labels]  # (n, C)
    theta = np.zeros((target.shape[1], inputs.shape[1]))  # (C, d + 1), the bias last
    if start is not None and len(start.bias) == len(theta):
        theta[:, :-1], theta[:, -1] = start.weight, start.bias
    probes = []
    for strength in strengths:
        theta = _minimise(theta, inputs, target, strength=strength, slope=slope)
        probes.append(LinearProbe(mean, scale, theta[:, :-1].copy(), theta[:, -1].copy(), strength))
    return probes


def _minimise(
    theta: NDArray[np.float64], inputs: NDArray[np.float64], target: NDArray[np.float64], *, strength: float, slope: float
) -> NDArray[np.float64]:
    """Minimise mean cross-entropy + |W|^2 / (2 C n) over (C, d + 1) ``theta`` by L-BFGS (Liu and Nocedal 1989)."""
    shape, penalty = theta.shape, 1 / (strength * len(inputs))

    def loss_and_slope(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the loss at ``flat`` (C * (d + 1),) and its slope there."""
        weights = flat.reshape(shape)
        logits = inputs @ weights.T  # (n, C)
        logits -= logits.max(axis=1, keepdims=True)
        powers = np.exp(logits)
        total = powers.sum(axis=1, keepdims=True)
        decayed = weights * penalty
        decayed[:, -1] = 0  # the bias is free
        entropy = (np.log(total[:, 0]) - (logits * target).sum(axis=1)).mean()
        descent = (powers / total - target).T @ inputs / len(inputs) + decayed
        return float(entropy + 0.5 * (decayed * weights).sum()), descent.ravel()

    options = {"maxiter": _MAX_ITERATIONS, "gtol": slope, "ftol": 1e-13}
    found = minimize(loss_and_slope, theta.ravel(), jac=True, method="L-BFGS-B", options=options)
    best: NDArray[np.float64] = found.x.reshape(shape)
    return best
