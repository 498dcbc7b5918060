"""What comes between the ground and the file: haze, cloud and its shadow, differing scenes, lost corners, wrong places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cgeartheye.seeding import stream
from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis.noise import Field, enlarge, fractal
from cgeartheye.synthesis.seasons import Sun

CLEAR, CLOUD, CLOUD_SHADOW = 0, 1, 2
"""Values of the cloud masks."""
CLOUD_TOP_M: Final = 260.0
COARSE_M: Final = 3.0
OVERLAP_PX: Final = 32
"""Width in pixels of the strip that neighbouring scenes share."""
LARGEST_SHIFT_PX: Final = 1.5
HAZE: Final = (206.0, 212.0, 218.0)
CLOUD_COLOUR: Final = (240.0, 242.0, 246.0)


@dataclass(frozen=True)
class ScenePlan:
    """One scene of a quarter's 2 x 2 mosaic and everything that is wrong with it.

    Args:
        row: row in the mosaic, 0 or 1.
        column: column in the mosaic, 0 or 1.
        window: first row, first column, height, width in pixels of the landscape.
        shift_px: how far the content lies east and south of where the georeference says, in pixels.
        gain: factor of the three bands.
        offset: added to all bands, in grey values.
        wedge: no-data corner as legs along the landscape's edge in pixels (horizontal, vertical), (0, 0) without.
    """

    row: int
    column: int
    window: tuple[int, int, int, int]
    shift_px: tuple[float, float]
    gain: tuple[float, float, float]
    offset: float
    wedge: tuple[int, int]


@dataclass(frozen=True)
class Sky:
    """Clouds of a quarter as (n, 3): centre x, y and radius in local metres; haze as base and extra share."""

    clouds: NDArray[np.float64]
    haze: float
    extra_haze: float


def plan_sky(settings: WorldSettings, quarter: int) -> Sky:
    """Return haze and clouds of a quarter; one quarter of the year has no cloud."""
    if not settings.faults:
        return Sky(np.zeros((0, 3)), 0.03, 0.0)
    cloudless = int(stream(settings.seed, "cloudless").integers(4))
    rng = stream(settings.seed, "sky", quarter)
    count = 0 if quarter == cloudless else int(rng.integers(2, 5))
    size = settings.size_m
    at = rng.uniform(0.06 * size, 0.94 * size, (count, 2))
    radius = size * rng.uniform(0.032, 0.068, (count, 1))
    return Sky(np.concatenate([at, radius], axis=1), float(rng.uniform(0.02, 0.06)), float(rng.uniform(0.06, 0.20)))


def plan_scenes(settings: WorldSettings, quarter: int) -> tuple[ScenePlan, ...]:
    """Return the four scenes of a quarter."""
    rng = stream(settings.seed, "scenes", quarter)
    side, half = settings.side_px, OVERLAP_PX // 2
    middle = side // 2
    spans = ((0, middle + half), (middle - half, side))
    lost = int(rng.integers(4)) if settings.faults and quarter in {1, 3} else -1
    plans = []
    for row in range(2):
        for column in range(2):
            (top, bottom), (left, right) = spans[row], spans[column]
            reach, turn = LARGEST_SHIFT_PX * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
            legs = tuple(int(v) for v in side * rng.uniform(0.07, 0.14, 2))
            gain = rng.normal(1.0, 0.028) * rng.normal(1.0, 0.008, 3)
            shift = (round(float(reach * np.cos(turn)), 3), round(float(reach * np.sin(turn)), 3))
            offset = round(float(rng.normal(0, 2.2)), 2)
            window = (top, left, bottom - top, right - left)
            if not settings.faults:
                shift, gain, offset = (0.0, 0.0), np.ones(3), 0.0
            wedge = (legs[0], legs[1]) if lost == 2 * row + column else (0, 0)
            plans.append(ScenePlan(row, column, window, shift, tuple(np.round(gain, 4).tolist()), offset, wedge))
    return tuple(plans)


def cloud_fields(settings: WorldSettings, quarter: int, sky: Sky, sun: Sun) -> tuple[Field, Field]:
    """Return the opacity (h, w) of clouds and of their shadows, 0 to 1, on a grid of :data:`COARSE_M`."""
    side = max(8, round(settings.size_m / COARSE_M))
    if len(sky.clouds) == 0:
        return np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
    rng = stream(settings.seed, "clouds", quarter)
    margin = int(CLOUD_TOP_M / sun.slope / COARSE_M) + 1
    wide = side + 2 * margin
    noise = enlarge(fractal(rng, 512, 1.3), wide, wide)
    at = (np.arange(wide, dtype=np.float32) - margin + 0.5) * COARSE_M
    density = np.full((wide, wide), -1.0, dtype=np.float32)
    for x, y, radius in _puffs(sky, rng):
        away = np.hypot(at[None, :] - np.float32(x), at[:, None] - np.float32(y)) / np.float32(radius)
        np.maximum(density, 0.9 - away, out=density)
    t = np.clip((density + 0.42 * noise * (density > -0.9)) / 0.75, 0, 1)
    opacity = t * t * (3 - 2 * t) * np.float32(0.96)
    east, south = sun.shadow * CLOUD_TOP_M / sun.slope / COARSE_M
    shadow = ndimage.shift(ndimage.gaussian_filter(opacity, 2.0), (south, east), order=1)
    inner = slice(margin, margin + side)
    return np.asarray(opacity[inner, inner], dtype=np.float32), np.asarray(shadow[inner, inner], dtype=np.float32)


def _puffs(sky: Sky, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Return centre and radius of the puffs that clouds are heaped up of."""
    puffs = []
    for x, y, radius in sky.clouds:
        for dx, dy in rng.normal(0, 0.42 * radius, (6, 2)):
            puffs.append((x + dx, y + dy, radius * rng.uniform(0.45, 0.8)))
    return puffs


def veil(picture: Field, settings: WorldSettings, quarter: int, *, sky: Sky, sun: Sun) -> NDArray[np.uint8]:
    """Lay haze, cloud shadows and clouds over a picture (3, H, W) in place; return the cloud mask (H, W)."""
    H, W = picture.shape[1:]
    opacity, shadow = (enlarge(field, H, W) for field in cloud_fields(settings, quarter, sky, sun))
    rng = stream(settings.seed, "haze", quarter)
    drift = enlarge(fractal(rng, 128, 1.8)[:96, :96], H, W)
    relief = enlarge(fractal(rng, 256, 1.2), H, W)
    for first in range(0, H, 256):
        rows = slice(first, first + 256)
        haze = sky.haze + sky.extra_haze * np.clip(0.8 * drift[rows] - 0.4, 0, 1)
        dim = 1 - 0.42 * np.clip(shadow[rows], 0, 1)
        hidden = np.clip(opacity[rows], 0, 1)
        shine = 1 + 0.025 * relief[rows] - 0.06 * (1 - hidden)
        for band in range(3):
            view = picture[band, rows]
            view *= dim
            view += haze * (HAZE[band] - view)
            view += hidden * (CLOUD_COLOUR[band] * shine - view)
    mask = np.where(opacity > 0.2, CLOUD, np.where(shadow > 0.35, CLOUD_SHADOW, CLEAR))
    return mask.astype(np.uint8)


def expose(picture: Field, plan: ScenePlan, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take one scene (h, w, 3) uint8 out of a picture (3, H, W): blur of the optics, shift, gain, noise, lost corner.

    Blur and shift are one pass of a Gaussian point-spread function (0.58 px) sampled at the shifted place. Values are at
    least 1; 0 is no-data.
    """
    top, left, height, width = plan.window
    H, W = picture.shape[1:]
    pad = 5
    rows = np.clip(np.arange(top - pad, top + height + pad), 0, H - 1)
    columns = np.clip(np.arange(left - pad, left + width + pad), 0, W - 1)
    east, south = plan.shift_px
    scene = np.empty((height, width, 3), dtype=np.uint8)
    inner = (slice(pad, -pad), slice(pad, -pad))
    for band in range(3):
        view = picture[band][rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        view = np.pad(view, ((_before(rows), _after(rows)), (_before(columns), _after(columns))), mode="edge")
        view = ndimage.correlate1d(view, point_spread(south), axis=0, mode="nearest")
        view = ndimage.correlate1d(view, point_spread(east), axis=1, mode="nearest")[inner]
        noise = rng.standard_normal(view.shape, dtype=np.float32)
        view = view * np.float32(plan.gain[band]) + np.float32(plan.offset) + noise * (0.9 + 0.008 * view)
        scene[:, :, band] = np.clip(np.round(view), 1, 255).astype(np.uint8)
    _lose_corner(scene, plan)
    return scene


def _before(index: NDArray[np.intp]) -> int:
    return int(np.argmax(index > index[0])) - 1


def _after(index: NDArray[np.intp]) -> int:
    return int(np.argmax(index[::-1] < index[-1])) - 1


def point_spread(shift_px: float, sigma_px: float = 0.58) -> NDArray[np.float64]:
    """Return 9 weights, sum 1, that blur a line and move its content by ``shift_px`` towards higher indices."""
    taps = np.exp(-0.5 * ((np.arange(-4, 5) + shift_px) / sigma_px) ** 2)
    return np.asarray(taps / taps.sum())


def _lose_corner(scene: NDArray[np.uint8], plan: ScenePlan) -> None:
    along, down = plan.wedge
    if not along:
        return
    height, width = scene.shape[:2]
    x = np.arange(width) if plan.column == 0 else np.arange(width)[::-1]
    y = np.arange(height) if plan.row == 0 else np.arange(height)[::-1]
    scene[(x[None, :] / along + y[:, None] / down) < 1.0] = 0


def as_truth(plan: ScenePlan) -> dict[str, Any]:
    """Return a scene's faults as JSON values."""
    return {
        "row": plan.row,
        "column": plan.column,
        "window_px": list(plan.window),
        "shift_px": {"east": plan.shift_px[0], "south": plan.shift_px[1]},
        "gain": list(plan.gain),
        "offset": plan.offset,
        "no_data_legs_px": list(plan.wedge),
    }
