"""Class polygons as GeoParquet, with areas that mean what they say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray
from pyproj import CRS
from shapely.geometry import Polygon

from cgeartheye.files import atomic_path
from cgeartheye.geometry.crs import LONLAT, Affine6, apply, transformer
from cgeartheye.vectors.polygonize import Region

ROW_GROUP: Final = 10_000
"""Polygons that are in memory at once, and make a row group [ours]."""
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_SCHEMA: Final = pa.schema(
    {
        "class": pa.string(),
        "value": pa.int16(),
        "area_m2": pa.float64(),
        "geometry": pa.binary(),
        "bbox": pa.struct(dict.fromkeys(_CORNERS, pa.float64())),
    }
)


def write_polygons(
    path: Path, regions: Iterable[Region], *, names: Mapping[int, str], transform: Affine6, crs: str, size: tuple[int, int]
) -> None:
    """Write regions as GeoParquet 1.1 in the raster's coordinate system, :data:`ROW_GROUP` of them in memory at a time.

    Columns: ``class`` (name), ``value``, ``area_m2`` (on the ellipsoid, from an equal-area projection about the raster's centre),
    ``geometry``, and ``bbox`` for readers that take a part.

    Args:
        path: the file.
        regions: outlines in pixels, x = column and y = row of the raster.
        names: value -> class name.
        transform: of the raster, from pixels to the system.
        crs: the system.
        size: height and width of the raster.

    Raises:
        ResourceError: if the disk is full or the folder may not be written.
    """
    x, y = apply(transform, np.array([size[1] / 2]), np.array([size[0] / 2]))
    about = (float(x[0]), float(y[0]))
    bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, _SCHEMA) as writer:
        for batch in _batches(regions):
            table, found = _table(batch, names, transform, crs, about)
            writer.write_table(table)
            bounds[:2], bounds[2:] = np.minimum(bounds[:2], found[:2]), np.maximum(bounds[2:], found[2:])
        writer.add_key_value_metadata(geo_metadata(crs, bounds, ["Polygon"], boxes=True))


def to_ground(polygons: NDArray[np.object_], transform: Affine6) -> NDArray[np.object_]:
    """Move (n,) polygons from pixels to the raster's coordinate system, counter-clockwise shells as the format asks."""
    moved = shapely.transform(polygons, lambda xy: np.stack(apply(transform, xy[:, 0], xy[:, 1]), axis=1))
    oriented: NDArray[np.object_] = shapely.orient_polygons(moved)
    return oriented


def areas_m2(polygons: NDArray[np.object_], crs: str, about: tuple[float, float]) -> NDArray[np.float64]:
    """Return the area of each polygon on the WGS84 ellipsoid, in square metres.

    Areas in map units are wrong by the square of the map's scale: 0.1 % in UTM, a factor of four in Web Mercator at 60 degrees.

    Args:
        polygons: (n,) polygons in ``crs``.
        crs: their coordinate system.
        about: centre of the equal-area projection, in ``crs``.
    """
    lon, lat = transformer(crs, LONLAT).transform(*about)
    equal_area = f"+proj=laea +lat_0={lat:.9f} +lon_0={lon:.9f} +datum=WGS84 +units=m +type=crs"
    project = transformer(crs, equal_area)
    moved = shapely.transform(polygons, lambda xy: np.stack(project.transform(xy[:, 0], xy[:, 1]), axis=1))
    areas: NDArray[np.float64] = np.round(shapely.area(moved), 4)
    return areas


def _batches(regions: Iterable[Region]) -> Iterator[list[Region]]:
    stream = iter(regions)
    while batch := list(islice(stream, ROW_GROUP)):
        yield batch


def _table(
    batch: list[Region], names: Mapping[int, str], transform: Affine6, crs: str, about: tuple[float, float]
) -> tuple[pa.Table, NDArray[np.float64]]:
    """Return the rows of some regions and their common bounds (4,)."""
    outlines: list[Polygon] = [region.polygon for region in batch]
    placed = to_ground(np.array(outlines, dtype=object), transform)
    boxes = shapely.bounds(placed)
    columns = {
        "class": [names[region.value] for region in batch],
        "value": np.array([region.value for region in batch], np.int16),
        "area_m2": areas_m2(placed, crs, about),
        "geometry": shapely.to_wkb(placed, flavor="iso"),
        "bbox": pa.StructArray.from_arrays([pa.array(corner) for corner in boxes.T], list(_CORNERS)),
    }
    return pa.table(columns, schema=_SCHEMA), shapely.total_bounds(placed)


def geo_metadata(crs: str, bounds: NDArray[np.float64], types: Iterable[str], *, boxes: bool) -> dict[str, str]:
    """Return what GeoParquet 1.1 asks a file to say of its column ``geometry`` of counter-clockwise WKB.

    Args:
        crs: of the geometry.
        bounds: (4,) of all of it; not finite where there is none.
        types: of the geometry, such as ``Polygon``.
        boxes: the file has a column ``bbox``, a struct of :data:`_CORNERS`.
    """
    geometry: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": sorted(types),
        "crs": CRS.from_user_input(crs).to_json_dict(),
        "orientation": "counterclockwise",
    }
    if boxes:
        geometry["covering"] = {"bbox": {corner: ["bbox", corner] for corner in _CORNERS}}
    if np.isfinite(bounds).all():
        geometry["bbox"] = bounds.tolist()
    return {"geo": json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}})}
