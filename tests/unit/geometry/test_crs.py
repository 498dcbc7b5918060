from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Geod
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info

from cgeartheye.geometry.crs import apply, footprint, invert, pixel_size_m, same_crs, square_footprints, transformer, utm_crs


@settings(max_examples=100, deadline=None)
@given(lon=st.floats(-179.99, 179.99), lat=st.floats(-79.9, 55.9))
def test_utm_zones_are_those_of_the_epsg_registry(lon: float, lat: float) -> None:
    if min(lon % 6, 6 - lon % 6) < 1e-6 or abs(lat) < 1e-6:
        return  # on a border both zones are right
    known = query_utm_crs_info(datum_name="WGS 84", area_of_interest=AreaOfInterest(lon, lat, lon, lat))
    assert utm_crs(lon, lat) in {f"EPSG:{info.code}" for info in known}


@pytest.mark.parametrize(
    ("lon", "lat", "code"),
    [(5, 60, 32632), (2.9, 60, 32631), (8, 75, 32631), (10, 75, 32633), (30, 75, 32635), (40, 75, 32637),
     (0, 85, 32661), (9, 72, 32633), (8.99, 72, 32631), (21, 80, 32635), (33, 83.9, 32637), (42, 75, 32638), (-0.1, 75, 32630),
     (3, 56, 32632), (11.99, 63.99, 32632), (12, 60, 32633), (3, 64, 32631), (3, 55.99, 32631),
     (0, -85, 32761), (180, 10, 32601), (-180, -10, 32701), (181, 10, 32601)],
)  # fmt: skip
def test_exceptions_and_poles(lon: float, lat: float, code: int) -> None:
    assert utm_crs(lon, lat) == f"EPSG:{code}"


@settings(max_examples=100)
@given(st.tuples(*[st.floats(-100, 100)] * 6))
def test_the_inverse_brings_points_back(transform: tuple[float, float, float, float, float, float]) -> None:
    if abs(transform[0] * transform[4] - transform[1] * transform[3]) < 1e-2:
        return
    column, row = np.array([0.0, 3.5, -7.0]), np.array([1.0, 0.25, 12.0])
    back = apply(invert(transform), *apply(transform, column, row))
    np.testing.assert_allclose(back, (column, row), atol=1e-4)


def test_pixels_without_area_have_no_inverse() -> None:
    with pytest.raises(ValueError, match="no area"):
        invert((1, 2, 0, 2, 4, 0))


def test_projected_sizes_stay_as_they_are() -> None:
    assert pixel_size_m((0.5, 0, 340000, 0, -0.5, 2790000), 100, 100, "EPSG:32640") == pytest.approx((0.5, 0.5))


def test_feet_become_metres() -> None:
    assert pixel_size_m((1, 0, 1_000_000, 0, -1, 200_000), 10, 10, "EPSG:2263") == pytest.approx((0.3048, 0.3048), rel=1e-3)


def test_degrees_and_web_mercator_are_measured_on_the_ground() -> None:
    x, y = pixel_size_m((1e-5, 0, 10, 0, -1e-5, 60), 100, 100, "EPSG:4326")
    assert y / 1e-5 == pytest.approx(111_412, rel=1e-3)
    assert x / y == pytest.approx(0.5009, rel=1e-3)
    mx, my = transformer("EPSG:4326", "EPSG:3857").transform(10, 60)
    assert pixel_size_m((1, 0, mx, 0, -1, my), 10, 10, "EPSG:3857") == pytest.approx((0.5, 0.5), rel=0.01)


def test_a_rotated_pixel_has_the_size_of_its_sides() -> None:
    angle = np.radians(30)
    turned = (2 * np.cos(angle), 3 * np.sin(angle), 5e5, 2 * np.sin(angle), -3 * np.cos(angle), 5e6)
    assert pixel_size_m(turned, 10, 10, "EPSG:32632") == pytest.approx((2, 3))


def test_a_footprint_has_the_area_of_its_raster() -> None:
    outline = footprint((10, 0, 500_000, 0, -10, 5_000_000), 1000, 500, "EPSG:32632")
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(outline)
    assert area == pytest.approx(1000 * 500 * 100 / 0.9996**2, rel=1e-4)


def test_a_footprint_over_the_antimeridian_has_two_parts_and_the_same_area() -> None:
    x, y = transformer("EPSG:4326", "EPSG:32660").transform(180, -17)
    outline = footprint((10, 0, x - 5000, 0, -10, y), 1000, 1000, "EPSG:32660")
    assert outline.geom_type == "MultiPolygon" and outline.is_valid
    assert outline.bounds[0] == -180 and outline.bounds[2] == 180
    assert shapely.area(outline) < 0.02
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(outline)
    assert abs(area) == pytest.approx(1e8, rel=0.01)


@pytest.mark.parametrize(("crs", "sign"), [("EPSG:32661", 1), ("EPSG:32761", -1), ("EPSG:3413", 1), ("EPSG:3031", -1)])
@pytest.mark.parametrize("centre", [(0.0, 0.0), (900.0, -300.0), (-40.0, 990.0)])
def test_a_footprint_around_a_pole_holds_it_and_has_the_area_of_its_raster(
    crs: str, sign: int, centre: tuple[float, float]
) -> None:
    x, y = transformer("EPSG:4326", crs).transform(0, 90 * sign)
    outline = footprint((1, 0, x + centre[0] - 1000, 0, -1, y + centre[1] + 1000), 2000, 2000, crs)
    assert outline.is_valid and outline.geom_type == "Polygon"
    assert outline.covers(shapely.Point(179.999, sign * 90)) and outline.covers(shapely.Point(-77, sign * (90 - 1e-6)))
    # x and y of the ellipsoid's polar area: within a metre of the pole a degree of longitude is next to nothing
    edge = shapely.segmentize(outline, 0.02)
    local = shapely.transform(edge, lambda at: np.stack(transformer("EPSG:4326", crs).transform(*at.T), axis=1))
    assert local.area == pytest.approx(2000 * 2000, rel=2e-3)


def test_a_footprint_beside_the_pole_is_unwrapped_step_by_step() -> None:
    """Its longitudes span more than a half-turn, but it does not hold the pole."""
    x, y = transformer("EPSG:4326", "EPSG:32661").transform(0, 90)
    outline = footprint((1, 0, x - 1000, 0, -1, y - 5), 2000, 1000, "EPSG:32661")
    back = shapely.transform(
        shapely.segmentize(outline, 0.02), lambda at: np.stack(transformer("EPSG:4326", "EPSG:32661").transform(*at.T), axis=1)
    )
    assert back.area == pytest.approx(2000 * 1000, rel=5e-3)
    assert not outline.intersects(shapely.Point(10, 90))


def test_an_outline_off_the_earth_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves"):
        footprint((1, 0, 0, 0, -1, 200), 10, 10, "EPSG:4326")


def test_equal_systems_by_other_names() -> None:
    assert same_crs("EPSG:32640", CRS.from_epsg(32640).to_wkt())
    assert not same_crs("EPSG:32640", "EPSG:32641")


@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:32660", "EPSG:32731", "EPSG:32661", "EPSG:32761", "EPSG:3857", "EPSG:4326"])
def test_outlines_of_many_are_those_of_each(crs: str) -> None:
    random = np.random.default_rng(0)
    area = CRS.from_user_input(crs).area_of_use
    assert area is not None
    lon = random.uniform(area.west, area.east, 60)
    lat = random.uniform(area.south, area.north, 60)
    x, y = transformer("EPSG:4326", crs).transform(lon, lat)
    one = 1e-5 if crs == "EPSG:4326" else 1.0
    side = random.uniform(50, 3000, (2, 60)) * one
    if crs in {"EPSG:32661", "EPSG:32761"}:
        x[0], y[0] = 2_000_000 - 500, 2_000_000 + 700  # holds the pole
    if crs in {"EPSG:32601", "EPSG:32660"}:
        x[1], y[1] = transformer("EPSG:4326", crs).transform(180.0, 40.0)
        x[1] -= side[0][1] / 2
    found = square_footprints(x, y, (side[0], side[1]), crs)
    for number, outline in enumerate(found):
        expected = footprint((side[0][number], 0, x[number], 0, -side[1][number], y[number]), 1, 1, crs)
        assert outline.is_valid
        assert outline.symmetric_difference(expected).area < 1e-9 * expected.area
        assert all(part.exterior.is_ccw for part in shapely.get_parts(outline))
