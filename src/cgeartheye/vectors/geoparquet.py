"""Class polygons as GeoParquet, with areas that mean what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon

from cgeartheye.files import atomic_path
from cgeartheye.geometry.crs import LONLAT, Affine6, apply, transformer


def write_polygons(
    path: Path, polygons: Sequence[Polygon], values: Sequence[int], *, names: Mapping[int, str], transform: Affine6, crs: str
) -> None:
    """Write polygons in pixels as GeoParquet 1.1 in the raster's coordinate system.

    Columns: ``class`` (name), ``value``, ``area_m2`` (on the ellipsoid, from an equal-area projection about the layer's centre),
    ``geometry``, and ``bbox`` for readers that take a part.

    Args:
        path: the file.
        polygons: outlines, x = column and y = row of the raster.
        values: class value of each.
        names: value -> class name.
        transform: of the raster, from pixels to the system.
        crs: the system.

    Raises:
        ResourceError: if the disk is full or the folder may not be written.
    """
    placed = to_ground(polygons, transform)
    frame = gpd.GeoDataFrame(
        {
            "class": np.array([names[value] for value in values], dtype=object),
            "value": np.array(values, dtype=np.int16),
            "area_m2": areas_m2(placed, crs),
        },
        geometry=gpd.GeoSeries(placed, crs=crs),
    )
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False, write_covering_bbox=True, schema_version="1.1.0")


def to_ground(polygons: Sequence[Polygon], transform: Affine6) -> list[Polygon]:
    """Move polygons from pixels to the raster's coordinate system, counter-clockwise shells as the format asks."""
    moved = shapely.transform(np.array(polygons, dtype=object), lambda xy: np.stack(apply(transform, xy[:, 0], xy[:, 1]), axis=1))
    return [shapely.orient_polygons(polygon) for polygon in moved]


def areas_m2(polygons: Sequence[Polygon], crs: str) -> NDArray[np.float64]:
    """Return the area of each polygon on the WGS84 ellipsoid, in square metres.

    Areas in map units are wrong by the square of the map's scale: 0.1 % in UTM, a factor of four in Web Mercator at 60 degrees.
    """
    if not len(polygons):
        return np.zeros(0)
    west, south, east, north = shapely.total_bounds(np.array(polygons, dtype=object))
    lon, lat = transformer(crs, LONLAT).transform((west + east) / 2, (south + north) / 2)
    equal_area = f"+proj=laea +lat_0={lat:.9f} +lon_0={lon:.9f} +datum=WGS84 +units=m +type=crs"
    project = transformer(crs, equal_area)
    moved = shapely.transform(
        np.array(polygons, dtype=object), lambda xy: np.stack(project.transform(xy[:, 0], xy[:, 1]), axis=1)
    )
    areas: NDArray[np.float64] = np.round(shapely.area(moved), 4)
    return areas
