"""The command that gives a raster without affine georeference its place on a map."""

from __future__ import annotations

import shlex
from pathlib import Path

import rasterio
from rasterio.warp import transform

from cgeartheye.geometry.crs import LONLAT, utm_crs


def rectify_command(dataset: rasterio.DatasetReader, path: Path) -> str:
    """Return the shell command that (ortho)rectifies a raster with ground control points or rational polynomials (RPC).

    Only the elevation model, DEM.tif (heights above the ellipsoid), is the user's to fill in. The system is the UTM zone of the
    picture's centre.
    """
    out = path.with_name(f"{path.stem}_ortho.tif")
    names = f"{shlex.quote(str(path))} {shlex.quote(str(out))}"
    rpcs = dataset.rpcs
    if rpcs:
        crs = utm_crs(float(rpcs.long_off), float(rpcs.lat_off))
        return f"gdalwarp -rpc -to RPC_DEM=DEM.tif -t_srs {crs} -r cubic -dstnodata 0 -co TILED=YES {names}"
    points, system = dataset.gcps
    xs, ys = [point.x for point in points], [point.y for point in points]
    crs = "EPSG:CODE"
    if system and points:
        lon, lat = transform(system, LONLAT, [sum(xs) / len(xs)], [sum(ys) / len(ys)])
        crs = utm_crs(lon[0], lat[0])
    return f"gdalwarp -order 1 -t_srs {crs} -r cubic -dstnodata 0 -co TILED=YES {names}"
