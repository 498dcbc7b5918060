"""From regions in pixels to a clean coverage: a minimum size, and simpler outlines without gaps or overlaps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import shapely
from shapely.geometry import Polygon

from cgeartheye.vectors.polygonize import Region


def drop_small(regions: Iterable[Region], min_px: int) -> list[Region]:
    """Return the regions of at least ``min_px`` pixels, ordered by their first pixel.

    A smaller region that lies inside another becomes part of it, because holes below the same size are filled; a small region
    between several others leaves a gap.
    """
    kept = []
    for region in regions:
        if region.pixels >= min_px:
            rings = [ring for ring in region.polygon.interiors if Polygon(ring).area >= min_px]
            kept.append(Region(region.value, Polygon(region.polygon.exterior, rings)))
    return sorted(kept, key=lambda region: region.first)


def simplify(regions: list[Region], tolerance_px: float) -> list[Polygon]:
    """Simplify shared outlines alike (Visvalingam and Whyatt 1993, as GEOS applies it to coverages).

    Outlines from pixels do not match at their vertices where three regions meet on a straight line, and a coverage must; one
    vertex a pixel makes them match.

    Args:
        regions: outlines in pixels, without overlaps.
        tolerance_px: root of the area of the triangles that are cut off; 0 returns the outlines as they are.

    Returns: polygons in the order of the regions.
    """
    polygons = [region.polygon for region in regions]
    if not tolerance_px or not polygons:
        return polygons
    dense = shapely.segmentize(np.array(polygons, dtype=object), 1.0)
    return list(shapely.coverage_simplify(dense, tolerance_px))
