"""Georeferenced files of the rendered world: GeoTIFF, GeoJSON and the ground they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio import Affine
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from cgeartheye.files import atomic_path, write_json

CRS: Final = "EPSG:32650"
ORIGIN: Final = (448_800.0, 4_418_880.0)
"""Upper left corner of every world in metres, a multiple of 96, about 116.4 E 39.9 N."""


@dataclass(frozen=True)
class Raster:
    """What a GeoTIFF says besides its pixels.

    Args:
        pixel_m: pixel size in metres.
        nodata: the value that means no data, or None.
        at_px: column and row of the upper left pixel in the grid of the world.
        tags: metadata, for example ``TIFFTAG_DATETIME``.
        colours: value -> RGB, for class rasters.
    """

    pixel_m: float
    nodata: float | None = None
    at_px: tuple[int, int] = (0, 0)
    tags: Mapping[str, str] | None = None
    colours: Mapping[int, tuple[int, int, int]] | None = None


def write_geotiff(path: Path, pixels: NDArray[Any], raster: Raster) -> None:
    """Write (H, W) or (H, W, 3) pixels as a tiled, compressed GeoTIFF, atomically."""
    stack = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)
    x = ORIGIN[0] + raster.at_px[0] * raster.pixel_m
    y = ORIGIN[1] - raster.at_px[1] * raster.pixel_m
    profile = {
        "driver": "GTiff",
        "count": stack.shape[0],
        "height": stack.shape[1],
        "width": stack.shape[2],
        "dtype": stack.dtype.name,
        "crs": CRS,
        "transform": Affine(raster.pixel_m, 0.0, x, 0.0, -raster.pixel_m, y),
        "nodata": raster.nodata,
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "DEFLATE",
        "zlevel": 3,
        "predictor": 3 if stack.dtype.kind == "f" else 2,
    }
    if stack.shape[0] == 3:
        profile |= {"photometric": "RGB", "interleave": "pixel"}
    with atomic_path(path) as temporary, rasterio.open(temporary, "w", **profile) as target:
        target.write(stack)
        if raster.tags:
            target.update_tags(**raster.tags)
        if raster.colours:
            target.write_colormap(1, {value: (*rgb, 255) for value, rgb in raster.colours.items()})


def read_pixels(path: Path) -> NDArray[Any]:
    """Return the pixels (H, W) or (H, W, 3) of a GeoTIFF that :func:`write_geotiff` wrote."""
    with rasterio.open(path, driver="GTiff") as source:
        stack = source.read()
    return np.asarray(stack[0] if stack.shape[0] == 1 else np.moveaxis(stack, 0, 2))


def to_crs(geometry: BaseGeometry) -> BaseGeometry:
    """Turn local metres (x east, y south) into coordinates of :data:`CRS`."""
    return shapely.transform(geometry, lambda at: np.stack([ORIGIN[0] + at[:, 0], ORIGIN[1] - at[:, 1]], axis=1))


def to_degrees(geometry: BaseGeometry) -> BaseGeometry:
    """Turn local metres into longitude and latitude; edges are first divided to 100 m."""
    turn = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    projected = to_crs(shapely.segmentize(geometry, 100.0))
    return shapely.transform(projected, lambda at: np.stack(turn.transform(at[:, 0], at[:, 1]), axis=1))


def write_geojson(path: Path, shapes: Mapping[str, BaseGeometry]) -> None:
    """Write named geometries in local metres as a GeoJSON feature collection (RFC 7946: longitude, latitude)."""
    features = [
        {"type": "Feature", "properties": {"name": name}, "geometry": mapping(shapely.set_precision(to_degrees(shape), 1e-8))}
        for name, shape in shapes.items()
    ]
    write_json(path, {"type": "FeatureCollection", "features": features})
