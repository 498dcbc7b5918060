"""Georeferenced files of the rendered world: GeoTIFF, GeoJSON and the ground they stand on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from cgeartheye.files import write_json
from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.reader import open_raster, read_values, read_window
from cgeartheye.rasters.writer import ColourTable, RasterSpec, write_geotiff

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
    colours: ColourTable | None = None


def write_raster(path: Path, pixels: NDArray[Any], raster: Raster) -> None:
    """Write (H, W) or (H, W, 3) pixels as a tiled GeoTIFF, atomically."""
    height, width = pixels.shape[:2]
    x = ORIGIN[0] + raster.at_px[0] * raster.pixel_m
    y = ORIGIN[1] - raster.at_px[1] * raster.pixel_m
    grid = Grid(CRS, x, y, raster.pixel_m, width, height)
    count = 1 if pixels.ndim == 2 else pixels.shape[2]
    spec = RasterSpec.on(grid, count=count, dtype=pixels.dtype.name, nodata=raster.nodata, colour_table=raster.colours)
    write_geotiff(path, pixels, spec, tags=raster.tags)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Return the uint8 pixels (H, W) or (H, W, 3) of a GeoTIFF that :func:`write_raster` wrote."""
    with open_raster(path) as raster:
        return read_values(raster)[0] if raster.dataset.count == 1 else read_window(raster)[0]


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
