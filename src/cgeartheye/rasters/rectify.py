"""The command that gives a raster with a sensor model its place on a map."""

from __future__ import annotations

import shlex
from pathlib import Path

from rasterio.rpc import RPC

from cgeartheye.geometry.crs import utm_crs


def rectify_command(rpcs: RPC, path: Path) -> str:
    """Return the shell command that orthorectifies a raster with rational polynomials (RPC).

    Only the elevation model, DEM.tif (heights above the ellipsoid), is the user's to fill in. The system is the UTM zone of the
    picture's centre.
    """
    out = path.with_name(f"{path.stem}_ortho.tif")
    crs = utm_crs(float(rpcs.long_off), float(rpcs.lat_off))
    names = f"{shlex.quote(str(path))} {shlex.quote(str(out))}"
    return f"gdalwarp -rpc -to RPC_DEM=DEM.tif -t_srs {crs} -r cubic -dstnodata 0 -co TILED=YES {names}"
