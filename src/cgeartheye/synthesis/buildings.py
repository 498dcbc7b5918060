"""Buildings as rectangles with a roof: footprints for labels, heights per pixel for light and shadow."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Self

import numpy as np
import shapely
from numpy.typing import NDArray

FLAT, GABLE, HIP, ARCH = range(4)
"""Forms of roofs; arches are greenhouses."""

Floats = NDArray[np.float64]

ROOF_COLOURS: Final = np.array(
    [(152, 92, 74), (130, 80, 68), (112, 112, 116), (166, 162, 154), (96, 124, 156), (190, 188, 184), (124, 108, 92)],
    dtype=np.float64,
)
"""Red tile, old brick, grey tile, concrete, blue sheet, pale sheet, brown tile; one palette for all housing."""


@dataclass(frozen=True)
class Buildings:
    """n rectangles; lengths in metres, x east and y south of the upper left corner.

    Args:
        x: (n,) centre.
        y: (n,) centre.
        half_u: (n,) half the length along the ridge.
        half_v: (n,) half the width across it.
        angle: (n,) direction of the ridge in radians.
        eaves: (n,) height of the walls.
        rise: (n,) height of the ridge above the walls.
        form: (n,) :data:`FLAT`, :data:`GABLE`, :data:`HIP` or :data:`ARCH`.
        colour: (n, 3) roof colour, 0 to 255.
        appears: (n,) index of the first quarter it stands in, 0 to 3.
    """

    x: Floats
    y: Floats
    half_u: Floats
    half_v: Floats
    angle: Floats
    eaves: Floats
    rise: Floats
    form: NDArray[np.int64]
    colour: Floats
    appears: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.x)

    def footprints(self) -> NDArray[np.object_]:
        """Return the (n,) polygons."""
        return np.asarray(shapely.polygons(rectangles(np.stack([self.x, self.y], 1), self.half_u, self.half_v, self.angle)))

    def select(self, index: NDArray[np.bool_] | NDArray[np.intp]) -> Self:
        """Return the buildings at ``index``: (n,) bool or (k,) numbers."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Return all parts as one of n (the sum) rectangles, in order."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    @classmethod
    def none(cls) -> Self:
        """Return no buildings."""
        empty = np.zeros(0)
        whole = np.zeros(0, dtype=np.int64)
        return cls(empty, empty, empty, empty, empty, empty, empty, whole, np.zeros((0, 3)), whole)


def rectangles(centre: Floats, half_u: Floats, half_v: Floats, angle: Floats) -> Floats:
    """Return the corners (n, 4, 2) of rectangles with centres (n, 2), half sides (n,) and direction (n,) in radians."""
    u = np.array([-1.0, 1.0, 1.0, -1.0]) * half_u[:, None]
    v = np.array([-1.0, -1.0, 1.0, 1.0]) * half_v[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([centre[:, :1] + u * cos - v * sin, centre[:, 1:] + u * sin + v * cos], axis=-1)


def roof_heights(
    buildings: Buildings, ids: NDArray[np.integer], x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the height (k,) float32 in metres of the roofs ``ids`` (k,) at the points ``x``, ``y`` (k,)."""
    cos, sin = np.cos(buildings.angle).astype(np.float32), np.sin(buildings.angle).astype(np.float32)
    dx, dy = x - buildings.x.astype(np.float32)[ids], y - buildings.y.astype(np.float32)[ids]
    half_u, half_v = buildings.half_u.astype(np.float32)[ids], buildings.half_v.astype(np.float32)[ids]
    along, across = np.abs(dx * cos[ids] + dy * sin[ids]), np.abs(dy * cos[ids] - dx * sin[ids]) / half_v
    slope = np.clip(1.0 - across, 0, 1)
    form = buildings.form[ids]
    hip = np.minimum(slope, np.clip((half_u - along) / half_v, 0, 1))
    arch = 1.0 - across * across
    profile = np.select([form == GABLE, form == HIP, form == ARCH], [slope, hip, np.clip(arch, 0, 1)], 0.0)
    return np.asarray(buildings.eaves[ids] + buildings.rise[ids] * profile, dtype=np.float32)


def pick_roofs(rng: np.random.Generator, count: int) -> Floats:
    """Return roof colours (count, 3): a neighbourhood prefers some of the palette, every roof weathers differently."""
    weights = rng.dirichlet(np.full(len(ROOF_COLOURS), 0.9))
    weights = 0.5 * weights + 0.5 / len(ROOF_COLOURS)
    base = ROOF_COLOURS[rng.choice(len(ROOF_COLOURS), count, p=weights)]
    return np.clip(base * rng.normal(1.0, 0.10, (count, 1)) + rng.normal(0, 4.0, (count, 3)), 30, 235)
