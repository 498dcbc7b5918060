"""Ground control points -> an affine transform, or a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from rasterio.control import GroundControlPoint

from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import Affine6, apply, invert

MISFIT_PX: Final = 0.5
"""Control points that an affine transform misses by more are refused: their picture needs a finer model [ours]."""


def fit_points(points: Sequence[GroundControlPoint], path: Path, *, degrees: bool) -> Affine6:
    """Return the affine transform nearest to control points, by least squares in x and y.

    Args:
        points: columns and rows count from the corner of the first pixel, as GDAL's do.
        path: of the picture, for messages.
        degrees: x is a longitude; those on both sides of the antimeridian are taken as neighbours.

    Raises:
        DataError: if fewer than three are apart, or one is missed by more than :data:`MISFIT_PX`.
    """
    at = np.array([[p.col, p.row, 1.0] for p in points])
    ground = np.array([[p.x, p.y] for p in points], dtype=np.float64)
    if degrees:
        ground[:, 0] = np.unwrap(ground[:, 0], period=360)
    middle = ground.mean(axis=0)
    found, _, rank, _ = np.linalg.lstsq(at, ground - middle, rcond=None)
    (a, d), (b, e), (c, f) = found.tolist()
    transform = (a, b, c + float(middle[0]), d, e, f + float(middle[1]))
    if rank < 3 or a * e == b * d:
        raise DataError(
            f"its {len(points)} ground control points do not fix a plane",
            where=str(path),
            remedy="georeference it with at least three points that are not in a line",
        )
    column, row = apply(invert(transform), ground[:, 0], ground[:, 1])
    misfit = float(np.hypot(column - at[:, 0], row - at[:, 1]).max())
    if misfit > MISFIT_PX:
        raise DataError(
            f"its {len(points)} ground control points are no affine transform (misfit {misfit:.1f} px)",
            where=str(path),
            remedy="rectify it first: gdalwarp -tps -r cubic -t_srs EPSG:CODE IN OUT.tif",
        )
    return transform
