"""A quarter as seen from above on a clear day, strip by strip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.seeding import stream
from cgeartheye.synthesis.canvas import Canvas
from cgeartheye.synthesis.light import cast_shadows, halo_px, shade_objects, shade_relief
from cgeartheye.synthesis.materials import NAMES, Palette, palette
from cgeartheye.synthesis.noise import Field, enlarge, fractal
from cgeartheye.synthesis.seasons import CROWN, DATES, LEAF, SNOW, SPECIES, Sun, sun_on
from cgeartheye.synthesis.traffic import PAINTS, VEHICLE_HEIGHT_M, make_traffic
from cgeartheye.synthesis.vegetation import TINTS

STRIP_PX: Final = 256
AMBIENT: Final = 0.40
"""Light of the sky on level ground as a share of all light."""
SKY: Final = (0.94, 0.99, 1.10)
"""Colour of the sky's light."""


@dataclass(frozen=True)
class Season:
    """What a quarter adds to the canvas: sun, colours, vehicles (H, W), and light of the hills and snow (h, w) at 7.5 m."""

    quarter: int
    sun: Sun
    palette: Palette
    hills: Field
    snow: Field | None
    crowns: Field
    traffic: NDArray[np.uint8]


def make_season(canvas: Canvas, quarter: int) -> Season:
    """Return the season of a quarter, 0 to 3."""
    sun = sun_on(DATES[quarter])
    relief = canvas.layout.relief
    hills = shade_relief(relief, sun)
    snow = None
    if quarter == 0 and canvas.settings.winter == "snow":
        side = relief.shape[0]
        drift = enlarge(fractal(stream(canvas.settings.seed, "snow"), 512, 1.1)[:side, :side], side, side)
        snow = (0.5 * drift - 2.2 * (hills - 1.0) + 0.25 * (relief - relief.mean()) / relief.std() - 0.15).astype(np.float32)
    seed = canvas.settings.seed
    traffic = make_traffic(canvas.layout, quarter, seed=seed, side=canvas.settings.side_px, gsd_m=canvas.settings.gsd_m)
    return Season(quarter, sun, palette(quarter), hills, snow, _crown_colours(seed, quarter), traffic)


def _crown_colours(seed: int, quarter: int) -> Field:
    """Return colours (1 + species * tints, 3): darker and lighter crowns; in autumn they turn at different times."""
    rng = stream(seed, "crowns")
    light = np.linspace(0.84, 1.18, TINTS)[None, :, None]
    hue = rng.normal(0, 1.0, (SPECIES, TINTS, 3))
    turned = np.array([(17.0, -8.0, -6.0)]) * rng.uniform(-1.3, 1.0, (SPECIES, TINTS, 1))
    colours = CROWN[:, quarter][:, None, :] * light + 2.5 * hue
    if quarter == 3:
        colours[:2] += turned[:2]
    return np.concatenate([np.zeros((1, 3)), colours.reshape(-1, 3)]).astype(np.float32)


def render_quarter(canvas: Canvas, quarter: int) -> NDArray[np.float32]:
    """Return the clear picture (3, H, W) float32 of a quarter, RGB, 0 to about 255."""
    season = make_season(canvas, quarter)
    H, W = canvas.ground.shape
    hills = enlarge(season.hills, H, W)
    snow = None if season.snow is None else enlarge(season.snow, H, W)
    picture = np.empty((3, H, W), dtype=np.float32)
    halo = halo_px(canvas.settings.gsd_m)
    for first in range(0, H, STRIP_PX):
        last = min(first + STRIP_PX, H)
        low, high = max(0, first - halo), min(H, last + halo)
        strip = _Strip(canvas, season, low, high)
        lit = strip.render(hills[low:high], None if snow is None else snow[low:high])
        picture[:, first:last] = lit[:, first - low : last - low]
    return picture


class _Strip:
    """Rows ``low`` to ``high`` of a quarter while they are painted."""

    def __init__(self, canvas: Canvas, season: Season, low: int, high: int) -> None:
        self.canvas, self.season, self.low, self.high = canvas, season, low, high
        width = canvas.ground.shape[1]
        self.grain, self.clump, self.patch, self.mottle = (
            canvas.textures.rows(name, low, high, width) for name in ("grain", "clump", "patch", "mottle")
        )
        self.height: Field = np.zeros((high - low, width), dtype=np.float32)
        self.changed = canvas.since[low:high] <= season.quarter

    def render(self, hills: Field, snow: Field | None) -> Field:
        """Return the lit strip (3, rows, W)."""
        colour, snow_bias = self._ground()
        self._buildings(colour, snow_bias)
        if snow is not None:
            lying = np.clip(1.6 * (snow + 1.8 * snow_bias - 1.0 + 0.22 * self.patch + 0.12 * self.clump), 0, 0.88)
            for band in range(3):
                colour[band] += lying * (SNOW[band] - colour[band])
        self._trees(colour)
        self._traffic(colour)
        return self._lit(colour, hills)

    def _ground(self) -> tuple[Field, Field]:
        canvas, table = self.canvas, self.season.palette
        ids = canvas.ground[self.low : self.high]
        material = np.asarray(canvas.layout.surfaces.material, dtype=np.uint8)[ids]
        material[self.changed] = NAMES.index("earth")
        mix = mixture(self.mottle, self.patch, table.sharp[material])
        factor = np.asarray(canvas.layout.surfaces.tint, dtype=np.float32)[ids]
        factor *= 1 + table.grain[material] * (0.55 * self.grain + 0.85 * self.clump)
        rows = canvas.rows[self.low : self.high].astype(np.float32)
        rows *= table.rows[material] * np.float32(1 / 127) * (1 + 0.3 * self.patch)
        factor += rows * ~self.changed
        colour = np.empty((3, *ids.shape), dtype=np.float32)
        paint = canvas.paint[self.low : self.high].astype(np.float32) * np.float32(0.55 / 255)
        for band in range(3):
            first, second = table.first[:, band], table.second[:, band]
            colour[band] = (first[material] + mix * (second - first)[material]) * factor
            colour[band] += paint * (225 - colour[band])
        return colour, table.snow[material]

    def _buildings(self, colour: Field, snow_bias: Field) -> None:
        buildings = self.canvas.layout.buildings
        ids = self.canvas.building[self.low : self.high]
        at = np.flatnonzero(ids)
        number = ids.ravel()[at].astype(np.int64) - 1
        stands = buildings.appears[number] <= self.season.quarter
        at, number = at[stands], number[stands]
        grain = 1 + 0.035 * self.clump.ravel()[at] + 0.02 * self.grain.ravel()[at]
        roofs = buildings.colour.astype(np.float32)
        for band in range(3):
            colour[band].ravel()[at] = roofs[number, band] * grain
        self.height.ravel()[at] = self.canvas.roof[self.low : self.high].ravel()[at] * np.float32(0.1)
        spread = stream(self.canvas.settings.seed, "snow on roofs").uniform(0.25, 0.7, len(buildings)).astype(np.float32)
        snow_bias.ravel()[at] = spread[number]

    def _trees(self, colour: Field) -> None:
        kinds = self.canvas.kind[self.low : self.high]
        at = np.flatnonzero((kinds > 0) & ~self.changed)
        kind = kinds.ravel()[at]
        leaf = LEAF[(np.maximum(kind, 1) - 1) // TINTS, self.season.quarter]
        clump = self.clump.ravel()[at]
        # a bare crown is a net of branches: more ground shows where the texture is thin
        cover = np.clip(leaf + (1 - leaf) * (0.25 + 0.3 * clump), 0.05, 1)
        shade = 1 + 0.10 * clump + 0.05 * self.grain.ravel()[at]
        for band in range(3):
            flat = colour[band].ravel()  # a view: snow and ground show through
            flat[at] += cover * (self.season.crowns[kind, band] * shade - flat[at])
        crown = self.canvas.crown[self.low : self.high].ravel()[at] * np.float32(0.1)
        crown = crown * (0.25 + 0.75 * leaf) + 0.28 * clump
        height = self.height.ravel()
        height[at] = np.maximum(height[at], crown)

    def _traffic(self, colour: Field) -> None:
        vehicles = self.season.traffic[self.low : self.high]
        at = np.flatnonzero(vehicles)
        for band in range(3):
            colour[band].ravel()[at] = PAINTS[vehicles.ravel()[at], band]
        self.height.ravel()[at] = np.maximum(self.height.ravel()[at], np.float32(VEHICLE_HEIGHT_M))

    def _lit(self, colour: Field, hills: Field) -> Field:
        sun, gsd_m = self.season.sun, self.canvas.settings.gsd_m
        depth = cast_shadows(self.height, sun, gsd_m)
        direct = shade_objects(self.height, sun, gsd_m)
        direct *= 1 - np.clip(depth * 1.4 - 0.25, 0, 1)
        direct *= hills * np.float32(1 - AMBIENT)
        for band in range(3):
            colour[band] *= direct + np.float32(AMBIENT * SKY[band])
        return colour


def mixture(mottle: Field, patch: Field, sharp: Field | float = 1.0) -> Field:
    """Return the share of a material's second colour, 0 to 1, from two textures of one shape and how sharply it changes."""
    return np.asarray(np.clip(0.5 + sharp * (mottle + 0.5 * patch), 0, 1), dtype=np.float32)
