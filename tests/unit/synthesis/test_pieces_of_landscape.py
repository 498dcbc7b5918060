"""Parts of the landscape against closed forms and brute force."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import STRtree
from shapely.geometry import LineString, box

from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis.atmosphere import point_spread
from cgeartheye.synthesis.buildings import FLAT, GABLE, HIP, Buildings, rectangles, roof_heights
from cgeartheye.synthesis.holdout import Block, covered
from cgeartheye.synthesis.light import cast_shadows, shade_objects, shade_relief
from cgeartheye.synthesis.noise import band, fractal, make_textures
from cgeartheye.synthesis.parcels import halve
from cgeartheye.synthesis.roads import dashes
from cgeartheye.synthesis.seasons import DATES, Sun, sun_on
from cgeartheye.synthesis.vegetation import Trees, stamp
from cgeartheye.synthesis.water import make_water, meander


@given(st.integers(0, 10**6), st.floats(80, 900), st.floats(80, 900), st.floats(2000, 30000))
@settings(max_examples=30, deadline=None)
def test_halving_parts_land_without_gap_or_overlap(seed: int, width: float, height: float, target: float) -> None:
    land = box(0, 0, width, height)
    pieces, cuts = halve(land, target, np.random.default_rng(seed))
    assert sum(piece.area for piece in pieces) == pytest.approx(land.area, rel=1e-6)
    # points, because the area of overlays is wrong where edges nearly coincide
    points = shapely.points(np.random.default_rng(0).uniform((0, 0), (width, height), (3000, 2)))
    assert np.array_equal(np.sort(STRtree(pieces).query(points, predicate="within")[0]), np.arange(3000))
    assert len(cuts) == len(pieces) - 1
    assert max(piece.area for piece in pieces) <= 1.4 * target + 1e-6


@given(st.floats(-1.5, 1.5))
def test_point_spread_moves_a_line_by_its_shift(shift: float) -> None:
    taps = point_spread(shift)
    assert taps.sum() == pytest.approx(1.0)
    # content at place p of the input appears where p = i + k, weighted; its centre of mass lies at -k
    assert -(taps * np.arange(-4, 5)).sum() == pytest.approx(shift, abs=0.02)


def test_the_sun_stands_as_geometry_says() -> None:
    noon = sun_on(date(2024, 6, 21), 39.9, 12.0)
    assert noon.elevation_deg == pytest.approx(90 - 39.9 + 23.44, abs=0.1)
    assert noon.azimuth_deg == pytest.approx(180, abs=1e-6)
    equinox = sun_on(date(2024, 3, 21), 0.0, 6.0)
    assert equinox.elevation_deg == pytest.approx(0, abs=1e-6)
    assert equinox.azimuth_deg == pytest.approx(90, abs=1.0)
    heights = [sun_on(day).elevation_deg for day in DATES]
    assert heights[1] > heights[2] > heights[0]
    assert heights[0] == pytest.approx(heights[3], abs=6)


def test_shadows_lie_opposite_the_sun_and_are_as_long_as_geometry_says() -> None:
    height = np.zeros((200, 200), dtype=np.float32)
    height[95:105, 95:105] = 6.0
    sun = Sun(30.0, 90.0)  # due east: shadows fall west
    depth = cast_shadows(height, sun, 0.75)
    dark = np.flatnonzero(depth[100, :95] > 0)
    length = 6.0 / np.tan(np.radians(30.0)) / 0.75
    assert dark[-1] == 94
    assert len(dark) == pytest.approx(length, abs=1.5)
    assert not depth[100, 105:].any()
    assert not depth[95:105, 95:105].any()


def test_doubling_equals_marching_along_a_row() -> None:
    rng = np.random.default_rng(3)
    height = (rng.random((20, 300)) ** 8 * 12).astype(np.float32)
    sun = Sun(40.0, 270.0)
    marched = height.copy()
    for step in range(1, 64):
        marched[:, step:] = np.maximum(marched[:, step:], height[:, :-step] - step * 0.75 * sun.slope)
    assert cast_shadows(height, sun, 0.75) == pytest.approx(marched - height, abs=1e-4)


def test_slopes_towards_the_sun_are_brighter() -> None:
    ramp = np.tile(np.arange(50, dtype=np.float32) * 0.3, (50, 1))  # rises to the east
    morning, evening = Sun(35.0, 90.0), Sun(35.0, 270.0)
    for shade in (lambda sun: shade_objects(ramp, sun, 1.0)[25, 25], lambda sun: shade_relief(ramp, sun)[25, 25]):
        assert shade(evening) > 1.0 > shade(morning)


def test_roofs_have_their_form() -> None:
    ones = np.ones(3)
    roofs = Buildings(
        ones * 10, ones * 10, ones * 6, ones * 4, ones * 0, ones * 3, ones * 2, np.array([FLAT, GABLE, HIP]),
        np.zeros((3, 3)), np.zeros(3, dtype=np.int64),
    )  # fmt: skip
    where = np.arange(3)
    at = lambda x, y: roof_heights(roofs, where, np.full(3, x, np.float32), np.full(3, y, np.float32))  # noqa: E731 - table
    assert at(10, 10) == pytest.approx([3, 5, 5])
    assert at(10, 12) == pytest.approx([3, 4, 4])
    assert at(16, 10) == pytest.approx([3, 5, 3])
    assert roofs.footprints()[0].area == pytest.approx(96)


@given(st.floats(-3, 3), st.floats(1, 20), st.floats(1, 20))
def test_rectangles_keep_area_and_centre(angle: float, half_u: float, half_v: float) -> None:
    corners = rectangles(np.array([[5.0, -7.0]]), np.array([half_u]), np.array([half_v]), np.array([angle]))
    shape = shapely.polygons(corners)[0]
    assert shape.area == pytest.approx(4 * half_u * half_v)
    assert shape.centroid.coords[0] == pytest.approx((5.0, -7.0), abs=1e-6)


def test_crowns_are_discs_and_the_higher_one_shows() -> None:
    two = lambda *values: np.array(values, dtype=np.float64)  # noqa: E731 - columns
    trees = Trees(two(30, 33), two(30, 30), two(4, 3), two(6, 12), np.array([0, 2]), np.array([1, 2]))
    height, kind = stamp(trees, 80, 0.75)
    assert (kind > 0).sum() * 0.75**2 == pytest.approx(
        shapely.union_all(shapely.buffer(shapely.points([[30, 30], [33, 30]]), [4, 3])).area, rel=0.06
    )
    assert height.max() == pytest.approx(120, abs=3)
    assert kind[40, 44] == trees.kind[1]
    assert kind[40, 36] == trees.kind[0]


def test_noise_wraps_and_has_unit_spread() -> None:
    for field in (fractal(np.random.default_rng(0), 256, 2.0), band(np.random.default_rng(0), 256, 12.0)):
        assert field.std() == pytest.approx(1, abs=1e-3)
        across = np.abs(field[:, 0] - field[:, -1]).mean()
        assert across == pytest.approx(np.abs(np.diff(field, axis=1)).mean(), rel=0.35)
    textures = make_textures(0, 0.75)
    assert np.array_equal(textures.rows("patch", -5, 3, 1500)[5:, :3], textures.rows("patch", 0, 3, 3))


def test_band_noise_has_its_wavelength() -> None:
    power = np.abs(np.fft.fft2(band(np.random.default_rng(1), 512, 16.0, 0.5))) ** 2
    way = np.fft.fftfreq(512) * 512
    radius = np.hypot(way[:, None], way[None, :]).round().astype(int).ravel()
    by_radius = np.bincount(radius, power.ravel()) / np.bincount(radius)
    assert 512 / by_radius[1:256].argmax() == pytest.approx(16, rel=0.25)


def test_dashes_are_equally_long() -> None:
    painted = dashes(LineString([(0, 0), (100, 0)]))
    assert len(painted) == 7
    assert {round(dash.length, 6) for dash in painted} == {6.0}


def test_blocks_and_their_buffer() -> None:
    mask = covered((Block(2, 0, 2, 3),), 10)
    assert mask.sum() == 6
    assert covered((Block(2, 0, 2, 3),), 10, 1).sum() == 4 * 4


@pytest.mark.parametrize("seed", range(5))
def test_rivers_cross_the_landscape_and_lakes_keep_clear(seed: int) -> None:
    line = meander(seed, 3000.0)
    assert line[:, 1].min() < 0
    assert line[:, 1].max() > 3000
    inside = line[(line[:, 1] > 0) & (line[:, 1] < 3000)]
    assert np.mean((inside[:, 0] > 0) & (inside[:, 0] < 3000)) > 0.95
    motorway = box(0, 1450, 3000, 1550)
    water = make_water(seed, 3000.0, motorway)
    assert len(water.lakes) >= 2
    for lake in water.lakes:
        assert lake.distance(water.river) > 0
        assert lake.distance(motorway) > 0


def test_settings_hold_their_limits() -> None:
    assert WorldSettings().chip_m == 96
    assert WorldSettings().side_px == 4000
    with pytest.raises(ValueError, match="16000"):
        WorldSettings(size_m=12000, gsd_m=0.5)
