"""Many files of one picture: their common name, and one stretch of 16-bit values for all of them, so that no seams appear."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.catalog.products import Product
from cgeartheye.catalog.search import Found
from cgeartheye.rasters.colours import sample
from cgeartheye.rasters.reader import Raster
from cgeartheye.rasters.scenes import Scene
from cgeartheye.rasters.stretch import HIGH_SHARE, LOW_SHARE, MIN_SPAN

Sketch = list[float]
"""Number of valid values, then their quantiles at :data:`SHARES`."""
SHARES: Final = np.unique(np.concatenate([np.linspace(0, 1, 101), np.linspace(0, 0.02, 41), np.linspace(0.98, 1, 41)]))
"""Shares at which a tile's values are kept: fine near both ends of the stretch [ours]."""


def acquisition_of(found: Found, product: Product | None, pattern: re.Pattern[str]) -> str | None:
    """Return what all tiles of a file's picture share, or None for a picture in one file.

    A product's name tells it; else it is the file's name without the part that matches ``pattern``.
    """
    if product is not None:
        return f"{product.acquisition}{'' if product.kind is None else f'-{product.kind}'}"
    match = pattern.search(found.named.stem)
    return None if match is None else found.named.stem[: match.start()] + found.named.stem[match.end() :]


def sketch(raster: Raster) -> Sketch:
    """Return the distribution of a 16-bit raster's valid values, from the same sample that its own stretch is measured on."""
    plan = raster.plan
    values, valid = sample(raster.dataset, tuple(sorted(set(plan.bands))), plan.mask)
    kept = values[:, valid].ravel()
    return [float(kept.size), *np.quantile(kept, SHARES).tolist()] if kept.size else [0.0]


def share_stretch(scenes: Sequence[Scene], sketches: Mapping[int, Sketch]) -> list[Scene]:
    """Give all tiles of an acquisition the stretch of their values taken together.

    Args:
        scenes: of the catalogue.
        sketches: number of a scene -> its :func:`sketch`.
    """
    together: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for number in sketches:
        together[scenes[number].acquisition, scenes[number].date].append(number)
    done = list(scenes)
    for numbers in together.values():
        if len(numbers) < 2:
            continue
        low, high = _pooled([sketches[number] for number in numbers])
        for number in numbers:
            done[number] = replace(done[number], stretch_low=low, stretch_high=high)
    return done


def _pooled(sketches: Sequence[Sketch]) -> tuple[float, float]:
    """Return the ends of the stretch of several distributions weighted by their numbers of values."""
    parts = [np.asarray(entry) for entry in sketches if entry[0] > 0]
    levels = np.unique(np.concatenate([part[1:] for part in parts]))
    weights = np.array([part[0] for part in parts])
    below = sum(weight * _share_below(part[1:], levels) for weight, part in zip(weights, parts, strict=True)) / weights.sum()
    low, high = np.interp((LOW_SHARE, HIGH_SHARE), below, levels)
    if high - low < MIN_SPAN:
        middle = (low + high) / 2
        low, high = max(0.0, middle - MIN_SPAN / 2), middle + MIN_SPAN / 2
    return float(low), float(high)


def _share_below(quantiles: NDArray[np.float64], levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of values up to each level; where quantiles tie, the largest share holds."""
    values, last = np.unique(quantiles[::-1], return_index=True)
    share: NDArray[np.float64] = np.interp(levels, values, SHARES[::-1][last], left=0.0, right=1.0)
    return share
