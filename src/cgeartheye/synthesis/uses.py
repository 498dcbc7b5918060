"""Who uses which district: quotas of area per class, given to the districts where the use is most plausible."""

from __future__ import annotations

from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from cgeartheye.synthesis.noise import Field, sample
from cgeartheye.synthesis.relief import RELIEF_M
from cgeartheye.synthesis.water import Water

CLASSES: Final = (
    "forest",
    "orchard",
    "field",
    "greenhouse",
    "grass",
    "water",
    "road",
    "dense_housing",
    "sparse_housing",
    "bare",
)
"""Classes of whole neighbourhoods, in the order of their numbers in ``labels/classes.tif``."""
COVERS: Final = ("water", "road", "building", "tree", "field", "grass", "bare")
"""Classes of single pixels, in the order of their numbers in ``labels/cover.tif``."""

QUOTAS: Final = (
    ("dense_housing", 0.105, 3, 0.0),
    ("greenhouse", 0.095, 3, 0.0),
    ("bare", 0.06, 4, 0.0),
    ("sparse_housing", 0.12, 3, 0.0),
    ("orchard", 0.11, 3, 0.3),
    ("grass", 0.095, 3, -0.2),
    ("forest", 0.18, 3, 1.2),
)
"""Class, share of the land, number of centres it clusters around, and its liking for high ground; fields get the rest."""


def assign_uses(districts: list[Polygon], relief: Field, water: Water, *, size_m: float, rng: np.random.Generator) -> list[str]:
    """Return the use of every district.

    Each class in turn takes the free districts of the best score - near one of its centres, at its height - until its quota
    is met. Centres of a class lie far from each other, so that hold-out blocks and the rest of the land both get a part;
    sparse housing has the centres of dense housing, because towns thin out towards their edges.
    """
    at = np.array([piece.representative_point().coords[0] for piece in districts])
    area = np.array([piece.area for piece in districts])
    height = sample(relief, at[:, 0], at[:, 1], RELIEF_M)
    height = (height - height.mean()) / max(height.std(), 1e-6)
    dry = shapely.distance(shapely.points(at), water.surface) / size_m
    uses = np.full(len(districts), "field", dtype=object)
    towns = _spread(at, 3, rng, height < 0.6)
    for name, share, count, liking in QUOTAS:
        town = name in {"dense_housing", "sparse_housing"}
        free = uses == "field"
        if not free.any():
            break
        centres = towns if town else at[free][_best_spread(at[free], count, rng, liking * height[free])]
        near = np.min(np.hypot(*(at[:, None] - centres[None]).T), axis=0) / size_m
        score = liking * height - 9.0 * near + 0.25 * rng.standard_normal(len(at)) - (1.0 if town else 0.0) * (dry < 0.01)
        _take(uses, np.where(free, score, -np.inf), area, share, name)
    return [str(use) for use in uses]


def _take(uses: NDArray[np.object_], score: NDArray[np.float64], area: NDArray[np.float64], share: float, name: str) -> None:
    order = np.argsort(-score, kind="stable")
    order = order[np.isfinite(score[order])]
    before = np.concatenate([[0.0], np.cumsum(area[order])[:-1]]) / area.sum()
    uses[order[before < share - 0.3 * area.mean() / area.sum()]] = name
    uses[order[:1]] = name


def _best_spread(at: NDArray[np.float64], count: int, rng: np.random.Generator, liking: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return indices of ``count`` points, each the best by distance to those before and by ``liking``."""
    score = liking + rng.uniform(0, 1.0, len(at))
    chosen = [int(np.argmax(score))]
    reach = float(np.ptp(at, axis=0).max()) + 1e-9
    while len(chosen) < min(count, len(at)):
        gap = np.min(np.hypot(*(at[:, None] - at[chosen][None]).T), axis=0) / reach
        gap[chosen] = -9.0
        chosen.append(int(np.argmax(3.0 * np.minimum(gap, 0.4) + 0.3 * score)))
    return np.array(chosen)


def _spread(at: NDArray[np.float64], count: int, rng: np.random.Generator, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    kept = at[allowed] if allowed.any() else at
    return kept[_best_spread(kept, count, rng, np.zeros(len(kept)))]
