"""The landscape as geometry: who uses what, drawn in painter's order, with its buildings and planted trees.

Local metres: x east, y south, origin at the upper left corner of the landscape.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from cgeartheye.seeding import stream
from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis.buildings import Buildings, Floats
from cgeartheye.synthesis.changes import Changes, make_changes
from cgeartheye.synthesis.earthworks import make_works
from cgeartheye.synthesis.farmland import make_fields, make_greenhouses, make_orchards, orchard_trees
from cgeartheye.synthesis.housing import MANNERS, build
from cgeartheye.synthesis.materials import NAMES
from cgeartheye.synthesis.noise import Field, fractal
from cgeartheye.synthesis.parcels import Cut, make_districts, make_warp, polygons_of
from cgeartheye.synthesis.relief import make_relief
from cgeartheye.synthesis.roads import ROAD_WIDTH_M, Motorways, make_motorways, rank_of
from cgeartheye.synthesis.uses import CLASSES, assign_uses
from cgeartheye.synthesis.water import Water, make_water

UNUSED: Final = 255
"""Class number of ground that belongs to no class."""
_GROUND: Final = {"forest": "litter", "grass": "meadow"}


@dataclass
class Surfaces:
    """Polygons in painter's order, each with material, class and the direction and distance of its rows."""

    shapes: list[BaseGeometry] = field(default_factory=list)
    material: list[int] = field(default_factory=list)
    use: list[int] = field(default_factory=list)
    angle: list[float] = field(default_factory=list)
    period_m: list[float] = field(default_factory=list)
    tint: list[float] = field(default_factory=list)

    def paint(
        self, shape: BaseGeometry, material: str, use: str | None, *, rows: tuple[float, float] = (0.0, 0.0), tint: float = 1.0
    ) -> None:
        """Lay a polygon over all before it; ``use`` None belongs to no class, ``rows`` are direction (radians) and metres."""
        if shape.is_empty:
            return
        self.shapes.append(shape)
        self.material.append(NAMES.index(material))
        self.use.append(UNUSED if use is None else CLASSES.index(use))
        self.angle.append(rows[0])
        self.period_m.append(rows[1])
        self.tint.append(tint)


@dataclass(frozen=True)
class Layout:
    """Everything that is decided before pixels: surfaces, buildings, planted trees, painted lines, relief and changes."""

    surfaces: Surfaces
    buildings: Buildings
    orchards: Floats
    hedges: Floats
    heaps: Floats
    motorways: Motorways
    water: Water
    relief: Field
    changes: Changes


@dataclass
class _Draft:
    surfaces: Surfaces
    rng: np.random.Generator
    buildings: list[Buildings] = field(default_factory=list)
    orchards: list[Floats] = field(default_factory=list)
    heaps: list[Floats] = field(default_factory=list)


def make_layout(settings: WorldSettings) -> Layout:
    """Return the landscape of a seed; the same for every pixel size."""
    seed, size = settings.seed, settings.size_m
    motorways = make_motorways(seed, size, settings.chip_m)
    water = make_water(seed, size, motorways.corridor)
    relief = make_relief(seed, size, water)
    warp_rng = stream(seed, "warp")
    fields = (fractal(warp_rng, 512, 1.6)[:320, :320], fractal(warp_rng, 512, 1.6)[:320, :320])
    warp = make_warp(fields, size, min(24.0, 0.01 * size))
    districts, cuts = make_districts(size, float(np.clip(size / 10.5, 125.0, 285.0)), stream(seed, "districts"), warp)
    blocked = shapely.union_all([water.surface.buffer(12.0), motorways.corridor.buffer(3.0)])
    land = [part for piece in districts for part in polygons_of(piece.difference(blocked), 1500.0)]
    uses = assign_uses(land, relief, water, size_m=size, rng=stream(seed, "uses"))
    draft = _Draft(Surfaces(), stream(seed, "content"))
    draft.surfaces.paint(shapely.box(-300, -300, size + 300, size + 300), "meadow", None)
    for piece, use in zip(land, uses, strict=True):
        _fill(draft, piece, use)
    paved = _paint_roads(draft.surfaces, cuts, motorways)
    _paint_water(draft.surfaces, water, motorways, paved)
    buildings = Buildings.joined(draft.buildings) if draft.buildings else Buildings.none()
    changes = make_changes(land, uses, size_m=size, rng=stream(seed, "changes"))
    buildings = Buildings.joined([buildings, changes.buildings])
    orchards, heaps = (np.concatenate([np.zeros((0, 2)), *points]) for points in (draft.orchards, draft.heaps))
    hedges = _hedges(cuts, motorways, water, stream(seed, "hedges"))
    return Layout(draft.surfaces, buildings, orchards, hedges, heaps, motorways, water, relief, changes)


def _fill(draft: _Draft, piece: Polygon, use: str) -> None:
    if use == "field":
        _fill_fields(draft, piece)
    elif use == "orchard":
        for parcel in make_orchards(piece, draft.rng):
            draft.surfaces.paint(parcel.outline, "orchard_floor", use, tint=draft.rng.normal(1.0, 0.05))
            draft.orchards.append(orchard_trees(parcel, draft.rng))
    elif use in MANNERS:
        draft.surfaces.paint(piece, "yard", use, tint=draft.rng.normal(1.0, 0.05))
        houses, streets = build(_inner(piece, 5.0), use, draft.rng)
        draft.buildings.append(houses)
        for street in streets:
            draft.surfaces.paint(street, "street", use)
    elif use == "bare":
        draft.surfaces.paint(piece, "earth", use, tint=draft.rng.normal(1.0, 0.06))
        works = make_works(piece, draft.rng)
        for area, tint in works.areas:
            draft.surfaces.paint(area, "earth", use, tint=tint)
        draft.surfaces.paint(works.tracks, "earth", use, tint=1.12)
        draft.heaps.append(works.heaps)
    elif use == "greenhouse":
        draft.surfaces.paint(piece, "beds", use, tint=draft.rng.uniform(0.95, 1.45))
        draft.buildings.append(make_greenhouses(_inner(piece, 3.0), draft.rng))
    else:
        draft.surfaces.paint(piece, _GROUND[use], use, tint=draft.rng.normal(1.0, 0.06))


def _inner(piece: Polygon, margin: float) -> Polygon:
    return max(polygons_of(piece.buffer(-margin)), key=lambda part: part.area, default=piece)


def _fill_fields(draft: _Draft, piece: Polygon) -> None:
    parcels = make_fields(piece, draft.rng)
    for parcel in parcels:
        tint = float(np.clip(draft.rng.normal(1.0, 0.07), 0.8, 1.2))
        draft.surfaces.paint(parcel.outline, parcel.crop, "field", rows=(parcel.angle, parcel.period_m), tint=tint)
    baulks = shapely.union_all([parcel.outline.boundary for parcel in parcels])
    draft.surfaces.paint(baulks.buffer(draft.rng.uniform(0.5, 1.1), cap_style="flat"), "fallow", "field")


def _paint_roads(surfaces: Surfaces, cuts: list[Cut], motorways: Motorways) -> BaseGeometry:
    """Draw the network and return the asphalt that crosses water on bridges."""
    by_rank: dict[str, list[BaseGeometry]] = {"track": [], "minor": [], "main": []}
    for cut in cuts:
        by_rank[rank_of(cut.depth)].append(cut.line)
    material = {"track": "dirt_road", "minor": "pale_asphalt", "main": "asphalt"}
    for rank, lines in by_rank.items():
        half = 0.5 * ROAD_WIDTH_M[rank]
        whole = shapely.MultiLineString(lines)
        if rank != "track":
            surfaces.paint(whole.buffer(half + 2.5), "fallow", None)
        surfaces.paint(whole.buffer(half), material[rank], "road")
    surfaces.paint(motorways.corridor, "meadow", "road", tint=0.97)
    surfaces.paint(motorways.asphalt, "asphalt", "road")
    mains = shapely.MultiLineString(by_rank["main"]).buffer(0.5 * ROAD_WIDTH_M["main"])
    return mains.union(motorways.asphalt)


def _paint_water(surfaces: Surfaces, water: Water, motorways: Motorways, paved: BaseGeometry) -> None:
    for lake in water.lakes:
        surfaces.paint(lake.buffer(9.0).difference(motorways.corridor), "reed", "grass")
        surfaces.paint(lake, "water", "water")
    surfaces.paint(water.river.buffer(4.0).difference(motorways.corridor), "sand", None)
    surfaces.paint(water.river, "river", "water")
    surfaces.paint(paved.intersection(water.river.buffer(8.0)), "asphalt", "road", tint=1.12)


def _hedges(cuts: list[Cut], motorways: Motorways, water: Water, rng: np.random.Generator) -> Floats:
    """Return (n, 2) points of trees in lines: along roads, motorways and the river."""
    points = []
    for cut in cuts:
        rank = rank_of(cut.depth)
        sides = [side for side in (-1.0, 1.0) if rng.random() < {"main": 0.9, "minor": 0.6, "track": 0.3}[rank]]
        points += [_along(cut.line.offset_curve(side * (0.5 * ROAD_WIDTH_M[rank] + 3.0)), 7.0, rng) for side in sides]
    for line in motorways.lines:
        points += [_along(line.offset_curve(offset), 6.0, rng) for offset in (-42.0, -39.0, -24.5, 24.5, 39.0, 42.0)]
    points.append(_along(water.river.buffer(9.0).boundary, 8.0, rng))
    points += [_along(lake.buffer(14.0).boundary, 9.0, rng) for lake in water.lakes]
    return np.concatenate(points)


def _along(line: BaseGeometry, step: float, rng: np.random.Generator) -> Floats:
    places = np.arange(0.0, line.length, step)
    places = places[rng.random(len(places)) < 0.8] + rng.normal(0, 0.8, 1)
    at = np.asarray(shapely.get_coordinates(shapely.line_interpolate_point(shapely.line_merge(line), places)))
    return at + rng.normal(0, 0.6, at.shape)
