"""A map of places and scenes in longitude and latitude, drawn true to scale at its middle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.reporting.blocks import Figure, Key
from cgeartheye.reporting.figures.axes import nice_step
from cgeartheye.reporting.figures.svg import dots, drawing, joined, line, path, rect, swatch, text
from cgeartheye.reporting.wording import count, significant

WIDTH, MOST_HEIGHT = 720.0, 560.0
MARGIN = 46.0
METRES_PER_DEGREE = 111_320.0
"""Length of a degree of longitude on the equator; enough for a scale bar of one significant digit."""
MOST_PLACES = 20_000
MOST_OUTLINES = 2_000

Ring = NDArray[np.float64]


@dataclass(frozen=True)
class Ground:
    """What the map shows: outlines are rings (n, 2) of longitude, latitude; groups name sets of places (n, 2) likewise."""

    scenes: tuple[Ring, ...]
    hold_out: tuple[Ring, ...]
    groups: tuple[tuple[str, Ring], ...]


@dataclass(frozen=True)
class Projection:
    """Longitude and latitude to drawing units: equal scale along both axes at the middle latitude."""

    west: float
    north: float
    units: float
    shrink: float
    width: float
    height: float

    def __call__(self, ring: Ring) -> list[tuple[float, float]]:
        """Return (n, 2) degrees as points of the drawing."""
        x = MARGIN + (ring[:, 0] - self.west) * self.shrink * self.units
        y = 12.0 + (self.north - ring[:, 1]) * self.units
        return list(zip(x.tolist(), y.tolist(), strict=True))


def place_map(title: str, ground: Ground, *, caption: str = "") -> Figure:
    """Return the map of scenes, held-out areas and places coloured by group, with corner coordinates and a scale bar.

    Raises:
        DataError: if there is neither a scene nor a place with finite coordinates.
    """
    projection = fit(ground)
    body = [rect((MARGIN, 12), projection.width, projection.height, "ground")]
    body += [path(projection(ring), "footprint", closed=True) for ring in ground.scenes[:MOST_OUTLINES]]
    body += [path(projection(ring), "holdout", closed=True) for ring in ground.hold_out[:MOST_OUTLINES]]
    total = sum(len(points) for _, points in ground.groups)
    step = max(1, math.ceil(total / MOST_PLACES))
    size = "small" if total / step > 1500 else "large"
    body += [dots(projection(points[::step]), f"{size} g{i + 1}") for i, (_, points) in enumerate(ground.groups)]
    body += [_coordinates(projection), _scale_bar(projection)]
    keys = [Key(f"{name} ({count(len(points))})", swatch("dot", f"g{i + 1}")) for i, (name, points) in enumerate(ground.groups)]
    keys += [Key("outline of a scene", swatch("box", "footprint"))] if ground.scenes else []
    keys += [Key("held out of pre-training", swatch("box", "holdout"))] if ground.hold_out else []
    said = f"{caption} Every {step}th place is drawn." if step > 1 else caption
    label = f"{title}: {len(ground.scenes)} scenes, {total} places: {', '.join(f'{n} {len(p)}' for n, p in ground.groups)}."
    height = projection.height + 64
    return Figure(
        title,
        drawing(projection.width + 2 * MARGIN, height, body, label=label),
        said.strip(),
        tuple(keys),
        wide=projection.height < 0.6 * projection.width,
    )


def fit(ground: Ground) -> Projection:
    """Return the projection that shows everything in at most 720 x 560 drawing units.

    Raises:
        DataError: if nothing has finite coordinates.
    """
    rings: Sequence[Ring] = [*ground.scenes, *(points for _, points in ground.groups)]
    everything = np.concatenate([r for r in rings if r.size]) if any(r.size for r in rings) else np.empty((0, 2))
    everything = everything[np.isfinite(everything).all(axis=1)]
    if not everything.size:
        raise DataError("no scene and no place has coordinates")
    (west, south), (east, north) = everything.min(axis=0), everything.max(axis=0)
    margin = max(0.03 * max(east - west, north - south), 1e-5)
    west, south, east, north = west - margin, south - margin, east + margin, north + margin
    shrink = max(math.cos(math.radians((south + north) / 2)), 0.05)
    units = min(WIDTH / ((east - west) * shrink), MOST_HEIGHT / (north - south))
    return Projection(
        float(west), float(north), float(units), shrink, float((east - west) * shrink * units), float((north - south) * units)
    )


def _coordinates(p: Projection) -> Markup:
    south, east = p.north - p.height / p.units, p.west + p.width / (p.units * p.shrink)
    digits = max(0, math.ceil(-math.log10((east - p.west) / 20)))
    left, right, bottom = MARGIN, MARGIN + p.width, 12 + p.height
    return joined(
        [
            text(left, bottom + 18, _degrees(p.west, "EW", digits)),
            text(right, bottom + 18, _degrees(east, "EW", digits), anchor="end"),
            _upright(left - 8, 12, _degrees(p.north, "NS", digits), "end"),
            _upright(left - 8, bottom, _degrees(south, "NS", digits), "start"),
        ]
    )


def _upright(x: float, y: float, content: str, anchor: str) -> Markup:
    return Markup('<text class="tick" text-anchor="{}" transform="translate({:.1f} {:.1f}) rotate(-90)">{}</text>').format(
        anchor, x, y, content
    )


def _degrees(value: float, letters: str, digits: int) -> str:
    return f"{abs(value):.{digits}f}\N{DEGREE SIGN}{letters[0] if value >= 0 else letters[1]}"


def _scale_bar(p: Projection) -> Markup:
    metres_per_unit = METRES_PER_DEGREE / p.units
    length_m = nice_step(p.width * metres_per_unit / 4, 1)
    written = f"{significant(length_m / 1000, 3)} km" if length_m >= 1000 else f"{significant(length_m, 3)} m"
    x, y, width = MARGIN, 12 + p.height + 44, length_m / metres_per_unit
    ends = [line((x + at, y - 4), (x + at, y + 4), "scale") for at in (0, width)]
    return joined([line((x, y), (x + width, y), "scale"), *ends, text(x + width + 8, y + 4, written)])
