"""Real changes between quarters: felled forest and building sites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from shapely.affinity import rotate, scale, translate
from shapely.geometry import Polygon, box

from cgeartheye.synthesis.buildings import Buildings
from cgeartheye.synthesis.housing import build
from cgeartheye.synthesis.parcels import long_axis_deg


@dataclass(frozen=True)
class Change:
    """A piece of ground that is bare from quarter ``since`` (1 to 3) on; its trees are gone."""

    outline: Polygon
    since: int
    kind: str


@dataclass(frozen=True)
class Changes:
    """All changes of the year, and the buildings that rise on the sites among them."""

    pieces: tuple[Change, ...]
    buildings: Buildings


def make_changes(districts: list[Polygon], uses: list[str], *, size_m: float, rng: np.random.Generator) -> Changes:
    """Return a handful of changes: about one felled patch and one building site for every 1.5 square kilometres.

    Each lies within one district and covers a small part of it, 40 to 85 m across.
    """
    count = max(1, round(size_m**2 / 1.5e6))
    seen = box(8.0, 8.0, size_m - 8.0, size_m - 8.0)
    pieces, parts = [], [Buildings.none()]
    for kind, hosts in (("felled", {"forest"}), ("built", {"field", "grass"})):
        hosting = [piece.intersection(seen) for piece, use in zip(districts, uses, strict=True) if use in hosts]
        able = [piece for piece in hosting if isinstance(piece, Polygon) and piece.area > 6000.0]
        for number, index in enumerate(rng.permutation(len(able))[:count]):
            outline = _patch(able[index], rng)
            if outline.is_empty or not isinstance(outline, Polygon):
                continue
            since = 1 + number % 3
            pieces.append(Change(outline, since, kind))
            if kind == "built":
                parts.append(_site(outline, since, rng))
    return Changes(tuple(pieces), Buildings.joined(parts))


def _patch(district: Polygon, rng: np.random.Generator) -> Polygon:
    """Return a rough rectangle around a point deep inside a district."""
    middle = shapely.maximum_inscribed_circle(district, tolerance=2.0).coords[0]
    side = box(-0.5, -0.5, 0.5, 0.5)
    shape = scale(side, rng.uniform(55.0, 85.0), rng.uniform(40.0, 60.0), origin=(0, 0))
    shape = translate(rotate(shape, long_axis_deg(district) + rng.normal(0, 6.0), origin=(0, 0)), *middle)
    edge = shapely.get_coordinates(shapely.segmentize(shape, 7.0))[:-1]
    return Polygon(edge + rng.normal(0, 1.0, edge.shape)).buffer(0).intersection(district.buffer(-4.0))


def _site(outline: Polygon, since: int, rng: np.random.Generator) -> Buildings:
    """Return the buildings of a site: some stand with the bare ground already, some come a quarter later."""
    houses, _ = build(outline.buffer(-2.0), "sparse_housing", rng)
    late = np.minimum(since + (rng.random(len(houses)) < 0.4), 3)
    return Buildings(**{**houses.__dict__, "appears": late.astype(np.int64)})
