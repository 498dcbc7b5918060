"""Coordinate reference systems: metric systems of a place, pixel sizes in metres, footprints in degrees.

An affine transform is six floats ``(a, b, c, d, e, f)``: x = a * column + b * row + c, y = d * column + e * row + f.
Any text that PROJ understands names a system; x is always east or longitude, y north or latitude.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Geod, Transformer
from shapely.affinity import translate
from shapely.geometry.base import BaseGeometry

Affine6 = tuple[float, float, float, float, float, float]
Floats = NDArray[np.float64]

LONLAT: Final = "EPSG:4326"
_NOMINAL: Final = 0.01
"""Projected units count as ground metres while the map scale is within 1 % of true (UTM 0.04 %); else geodesics do."""
_POLAR_DEG: Final = 80.0
"""Beyond this latitude sides are followed at more points, because straight lines on the map bend there in degrees."""


@lru_cache(maxsize=256)
def transformer(source: str, target: str) -> Transformer:
    """Return the cached transformer between two systems, x before y in both."""
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=1024)
def same_crs(one: str, other: str) -> bool:
    """Tell whether two texts name the same system, apart from its name and the order of its axes."""
    return one == other or CRS.from_user_input(one).equals(CRS.from_user_input(other), ignore_axis_order=True)


def utm_zone(lon: ArrayLike, lat: ArrayLike) -> NDArray[np.int64]:
    """Return the UTM zones (1 to 60) of points in degrees, (n,) each -> (n,) int64.

    With the exceptions 32V (Norway) and 31X, 33X, 35X, 37X (Svalbard); 0 where the polar system (UPS) holds, north of 84 N
    and south of 80 S (NGA.SIG.0012, section 7).
    """
    north, east = np.asarray(lat, dtype=np.float64), (np.asarray(lon, dtype=np.float64) + 180) % 360 - 180
    zone = np.clip(np.floor((east + 180) / 6).astype(np.int64) + 1, 1, 60)
    zone = np.where((north >= 56) & (north < 64) & (east >= 3) & (east < 12), 32, zone)
    svalbard = (north >= 72) & (east >= 0) & (east < 42)
    zone = np.where(svalbard, 31 + 2 * np.searchsorted([9.0, 21.0, 33.0], east, side="right"), zone)
    return np.where((north >= 84) | (north < -80), 0, zone)


def utm_crs(lon: float, lat: float) -> str:
    """Return the EPSG code of the system that :func:`utm_zone` names for a point in degrees: UTM, or UPS at the poles."""
    zone = int(utm_zone(lon, lat))
    if zone == 0:
        return "EPSG:32661" if lat > 0 else "EPSG:32761"
    return f"EPSG:{326 if lat >= 0 else 327}{zone:02d}"


def apply(transform: Affine6, column: ArrayLike, row: ArrayLike) -> tuple[Floats, Floats]:
    """Return x, y of pixel coordinates (0, 0 is the top-left corner of the first pixel), arrays of equal shape."""
    a, b, c, d, e, f = transform
    u, v = np.asarray(column, dtype=np.float64), np.asarray(row, dtype=np.float64)
    return a * u + b * v + c, d * u + e * v + f


def invert(transform: Affine6) -> Affine6:
    """Return the inverse affine transform, from x, y to column, row.

    Raises:
        ValueError: if the pixels have no area.
    """
    a, b, c, d, e, f = transform
    area = a * e - b * d
    if area == 0:
        raise ValueError("the transform has no inverse: its pixels have no area")
    return (e / area, -b / area, (b * f - c * e) / area, -d / area, a / area, (c * d - a * f) / area)


def pixel_size_m(transform: Affine6, width: int, height: int, crs: str) -> tuple[float, float]:
    """Return the width and height on the ground, in metres, of a raster's central pixel.

    Sizes of a projected system are taken as they are (feet converted) while its scale is true within 1 %; for degrees,
    Web Mercator and the like they are geodesic lengths on WGS84.
    """
    columns = np.array([width / 2 - 0.5, width / 2 + 0.5, width / 2, width / 2])
    rows = np.array([height / 2, height / 2, height / 2 - 0.5, height / 2 + 0.5])
    x, y = apply(transform, columns, rows)
    lon, lat = transformer(crs, LONLAT).transform(x, y)
    geod = Geod(ellps="WGS84")
    _, _, ground = geod.inv(lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]])
    system = CRS.from_user_input(crs)
    if system.is_projected:
        nominal = np.hypot(x[[1, 3]] - x[[0, 2]], y[[1, 3]] - y[[0, 2]]) * system.axis_info[0].unit_conversion_factor
        if np.all(np.abs(ground / nominal - 1) <= _NOMINAL):
            ground = nominal
    return float(ground[0]), float(ground[1])


def footprint(transform: Affine6, width: int, height: int, crs: str) -> BaseGeometry:
    """Return a raster's outline as a polygon in degrees, cut in two parts where it crosses the antimeridian.

    Sides are followed at 21 points each, so that curved ones stay within a fraction of a pixel for scenes of usual size, and
    at 401 near the poles. A raster that holds a pole becomes the polygon from -180 to 180 degrees between its outline and it.

    Raises:
        ValueError: if the outline has no place on the ellipsoid.
    """
    lon, lat = _outline(transform, (width, height), crs, steps=20)
    if np.abs(lat).max() > _POLAR_DEG:
        lon, lat = _outline(transform, (width, height), crs, steps=400)
    unwrapped = np.unwrap(np.append(lon, lon[0]), period=360)  # neighbours on both sides of +-180 come together
    if abs(unwrapped[-1] - unwrapped[0]) > 180:
        return _around_pole(lon, lat)
    return split_antimeridian(shapely.Polygon(np.stack([unwrapped[:-1], lat], axis=1)).buffer(0))


def square_footprints(x0: Floats, y0: Floats, side: tuple[Floats, Floats], crs: str) -> NDArray[np.object_]:
    """Return what :func:`footprint` returns for many north-up rectangles of one system, counter-clockwise.

    Args:
        x0: (n,) west edges.
        y0: (n,) north edges.
        side: (n,) widths and (n,) heights.
        crs: the system.
    """
    steps = 20
    along, ones, zeros = np.linspace(0, 1, steps + 1)[:-1], np.ones(steps), np.zeros(steps)
    u, v = np.concatenate([zeros, along, ones, 1 - along]), np.concatenate([along, ones, 1 - along, zeros])
    lon, lat = transformer(crs, LONLAT).transform(x0[:, None] + u * side[0][:, None], y0[:, None] - v * side[1][:, None])
    plain = np.isfinite(lon).all(axis=1) & (np.ptp(lon, axis=1) < 180) & (np.abs(lat).max(axis=1) <= _POLAR_DEG)
    found = np.empty(len(x0), object)
    found[plain] = shapely.polygons(np.stack([lon[plain], lat[plain]], axis=-1))
    for one in np.flatnonzero(~plain):  # at the antimeridian and the poles
        transform = (float(side[0][one]), 0.0, float(x0[one]), 0.0, -float(side[1][one]), float(y0[one]))
        found[one] = shapely.orient_polygons(footprint(transform, 1, 1, crs))
    return found


def _outline(transform: Affine6, size: tuple[int, int], crs: str, *, steps: int) -> tuple[Floats, Floats]:
    """Return longitudes and latitudes of ``steps`` points a side of a raster of ``size`` (width, height)."""
    along, ones, zeros = np.linspace(0, 1, steps + 1)[:-1], np.ones(steps), np.zeros(steps)
    u = np.concatenate([along, ones, 1 - along, zeros]) * size[0]
    v = np.concatenate([zeros, along, ones, 1 - along]) * size[1]
    lon, lat = transformer(crs, LONLAT).transform(*apply(transform, u, v))
    if not (np.all(np.isfinite(lon)) and np.all(np.abs(lat) <= 90)):
        raise ValueError("the outline leaves the area of its coordinate system")
    return lon, lat


def _around_pole(lon: Floats, lat: Floats) -> BaseGeometry:
    """Return the area between an outline that turns once around a pole, and the pole."""
    east = (lon + 180) % 360 - 180
    order = np.argsort(east)
    seam = float(np.interp(180.0, east[order], lat[order], period=360))
    pole = 90.0 if lat.mean() > 0 else -90.0
    edge = [(-180.0, seam), *zip(east[order].tolist(), lat[order].tolist(), strict=True), (180.0, seam)]
    return shapely.orient_polygons(shapely.Polygon([*edge, (180.0, pole), (-180.0, pole)]))


def split_antimeridian(area: BaseGeometry) -> BaseGeometry:
    """Return an area of unwrapped longitudes as one within [-180, 180], its outer rings counter-clockwise as GeoJSON wants."""
    parts: list[BaseGeometry] = []
    for turn in (-1, 0, 1):
        piece = area.intersection(shapely.box(turn * 360 - 180, -90, turn * 360 + 180, 90))
        if piece.area > 0:
            parts.append(translate(piece, xoff=-360.0 * turn))
    whole: BaseGeometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return shapely.orient_polygons(whole)
