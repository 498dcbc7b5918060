"""Trees: where they stand, and their crowns as domes on the pixel grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.seeding import stream
from cgeartheye.synthesis.buildings import Floats
from cgeartheye.synthesis.layout import Layout
from cgeartheye.synthesis.noise import enlarge, fractal, sample
from cgeartheye.synthesis.seasons import DECIDUOUS, EVERGREEN, ORCHARD_LEAF, SPOIL
from cgeartheye.synthesis.uses import CLASSES

TINTS: Final = 8
"""Crowns of one species come in this many shades."""
MARGIN: Final = 20
"""Pixels around the landscape into which crowns may reach: those of 4.4 m at 0.25 m."""
DENSITY: Final = {"dense_housing": 1 / 260, "sparse_housing": 1 / 230, "grass": 1 / 1500, "bare": 1 / 9000, "field": 1 / 30000}
"""Scattered trees per square metre."""


@dataclass(frozen=True)
class Trees:
    """n trees: centre (n,) in metres, crown radius and height (n,) in metres, species and shade (n,)."""

    x: Floats
    y: Floats
    radius: Floats
    height: Floats
    species: NDArray[np.int64]
    tint: NDArray[np.int64]

    @property
    def kind(self) -> NDArray[np.uint8]:
        """Species and shade as one number from 1 on; 0 means no tree."""
        return (1 + self.species * TINTS + self.tint).astype(np.uint8)


@dataclass(frozen=True)
class Stand:
    """What planting has to know of the ground: class numbers and buildings on a grid of ``gsd_m``."""

    classes: NDArray[np.uint8]
    built: NDArray[np.bool_]
    gsd_m: float

    def at(self, points: Floats) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return class (n,) and whether free and on the map (n,) of points (n, 2)."""
        side = self.classes.shape[0]
        index = np.floor(points / self.gsd_m).astype(np.int64)
        on_map = np.all((index >= 0) & (index < side), axis=1)
        column, row = np.clip(index, 0, side - 1).T
        return self.classes[row, column], on_map & ~self.built[row, column]


def plant(seed: int, size_m: float, stand: Stand, layout: Layout) -> Trees:
    """Return all trees - forest, orchards, hedges and scattered ones - and heaps of spoil, which are drawn the same way."""
    rng = stream(seed, "trees")
    mix = enlarge(fractal(rng, 256, 1.4), 256, 256)
    parts = [_forest(rng, size_m, stand, mix), _orchard(rng, size_m, stand, layout.orchards, mix)]
    parts += [_single(rng, stand, layout.hedges, size_m, mix), _heaps(rng, stand, layout.heaps)]
    parts += [_single(rng, stand, _scatter(rng, size_m, stand), size_m, mix)]
    return Trees(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


_Columns = tuple[Floats, Floats, Floats, Floats, NDArray[np.int64], NDArray[np.int64]]


def _forest(rng: np.random.Generator, size_m: float, stand: Stand, mix: NDArray[np.float32]) -> _Columns:
    step = 4.9
    count = int(size_m / step) + 1
    column, row = (grid.ravel() for grid in np.meshgrid(np.arange(count), np.arange(int(count / 0.87))))
    at = np.stack([(column + 0.5 * (row % 2)) * step, row * step * 0.87], axis=1) + rng.uniform(-1.9, 1.9, (len(row), 2))
    classes, free = stand.at(at)
    glade = sample(fractal(rng, 512, 0.9), at[:, 0], at[:, 1], size_m / 420.0)
    at = at[free & (classes == CLASSES.index("forest")) & (rng.random(len(at)) < np.clip(1.02 - 0.16 * (glade + 0.6), 0.35, 1.0))]
    radius = np.clip(rng.gamma(9.0, 0.30, len(at)), 1.5, 4.4)
    return _columns(rng, at, radius, _stand_species(rng, at, size_m, mix))


def _stand_species(rng: np.random.Generator, at: Floats, size_m: float, mix: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return species (n,): stands of evergreens in deciduous forest, with single trees of the other kind."""
    wave = sample(mix, at[:, 0], at[:, 1], size_m / 150.0) + 0.55 * rng.standard_normal(len(at))
    return np.where(wave > 0.45, EVERGREEN, DECIDUOUS).astype(np.int64)


def _orchard(rng: np.random.Generator, size_m: float, stand: Stand, at: Floats, mix: NDArray[np.float32]) -> _Columns:
    classes, free = stand.at(at)
    at = at[free & (classes == CLASSES.index("orchard"))]
    radius = np.clip(rng.normal(2.25, 0.26, len(at)), 1.4, 3.0)
    species = np.where(sample(mix, at[:, 0], at[:, 1], size_m / 150.0) > 0.45, EVERGREEN, ORCHARD_LEAF).astype(np.int64)
    columns = _columns(rng, at, radius, species)
    return (*columns[:3], columns[3] * 0.8, *columns[4:])


def _scatter(rng: np.random.Generator, size_m: float, stand: Stand) -> Floats:
    at = rng.uniform(0, size_m, (int(size_m**2 / 150.0), 2))
    classes, _ = stand.at(at)
    density = np.zeros(256)
    for name, value in DENSITY.items():
        density[CLASSES.index(name)] = value
    return np.asarray(at[rng.random(len(at)) < 150.0 * density[classes]])


def _single(rng: np.random.Generator, stand: Stand, at: Floats, size_m: float, mix: NDArray[np.float32]) -> _Columns:
    classes, free = stand.at(at)
    at = at[free & (classes != CLASSES.index("water"))]
    radius = np.clip(rng.gamma(12.0, 0.19, len(at)), 1.2, 4.0)
    return _columns(rng, at, radius, _stand_species(rng, at, size_m, mix))


def _heaps(rng: np.random.Generator, stand: Stand, at: Floats) -> _Columns:
    classes, free = stand.at(at)
    at = at[free & (classes == CLASSES.index("bare"))]
    radius = rng.uniform(1.6, 4.4, len(at))
    columns = _columns(rng, at, radius, np.full(len(at), SPOIL, dtype=np.int64))
    return (*columns[:3], 0.55 * radius, *columns[4:])


def _columns(rng: np.random.Generator, at: Floats, radius: Floats, species: NDArray[np.int64]) -> _Columns:
    height = np.clip(1.6 * radius + rng.normal(2.4, 0.9, len(at)), 2.0, 13.0) * np.where(species == EVERGREEN, 1.15, 1.0)
    tint = np.clip(np.round(rng.normal(0.5 * (TINTS - 1), 1.8, len(at))), 0, TINTS - 1).astype(np.int64)
    return at[:, 0], at[:, 1], radius, height, species, tint


def stamp(trees: Trees, side: int, gsd_m: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw all crowns on a (side, side) grid.

    Returns: height of the crown's surface in decimetres, and the number of its kind (0: no tree), both uint8. Where crowns
    meet the higher surface shows.
    """
    height, kind = (
        np.zeros((side + 2 * MARGIN, side + 2 * MARGIN), np.uint8),
        np.zeros((side + 2 * MARGIN, side + 2 * MARGIN), np.uint8),
    )
    flat_height, flat_kind = height.ravel(), kind.ravel()
    inner = slice(MARGIN, -MARGIN)
    reach = np.ceil(trees.radius / gsd_m).astype(np.int64)
    for size in np.unique(reach):
        _stamp_size(trees, np.flatnonzero(reach == size), int(size), gsd_m, (flat_height, flat_kind, side))
    return height[inner, inner].copy(), kind[inner, inner].copy()


def _stamp_size(
    trees: Trees, chosen: NDArray[np.intp], size: int, gsd_m: float, canvas: tuple[NDArray[np.uint8], NDArray[np.uint8], int]
) -> None:
    flat_height, flat_kind, side = canvas
    wide = side + 2 * MARGIN
    column, row = np.floor(trees.x[chosen] / gsd_m).astype(np.int64), np.floor(trees.y[chosen] / gsd_m).astype(np.int64)
    place = (row + MARGIN) * wide + column + MARGIN
    # two trees in one pixel would overwrite each other within one step: the first of them stays
    place, first = np.unique(place, return_index=True)
    chosen, column, row = chosen[first], column[first], row[first]
    off_x = (trees.x[chosen] / gsd_m - column - 0.5).astype(np.float32)
    off_y = (trees.y[chosen] / gsd_m - row - 0.5).astype(np.float32)
    inverse = (gsd_m / trees.radius[chosen]).astype(np.float32)
    top, kinds = (10.0 * trees.height[chosen]).astype(np.float32), trees.kind[chosen]
    for dy in range(-size, size + 1):
        for dx in range(-size, size + 1):
            square = ((dx - off_x) ** 2 + (dy - off_y) ** 2) * inverse**2
            near = np.flatnonzero(square < 1.0)
            at = place[near] + dy * wide + dx
            value = (top[near] * (0.4 + 0.6 * np.sqrt(1.0 - square[near]))).astype(np.uint8)
            higher = value > flat_height[at]
            flat_height[at[higher]] = value[higher]
            flat_kind[at[higher]] = kinds[near[higher]]
