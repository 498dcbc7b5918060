"""Outlines of one block made clean: a minimum size, and simpler outlines without gaps or overlaps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import Polygon


def fill_small_holes(polygon: Polygon, min_px: float) -> Polygon:
    """Return a polygon without its holes of fewer than ``min_px`` square pixels."""
    rings = [ring for ring in polygon.interiors if Polygon(ring).area >= min_px]
    return polygon if len(rings) == len(polygon.interiors) else Polygon(polygon.exterior, rings)


def without_islets(outlines: Mapping[int, Polygon], small: set[int], min_px: int) -> dict[int, Polygon]:
    """Give regions below the minimum to the region around them.

    Args:
        outlines: outlines of a block in pixels, without overlaps, by number.
        small: numbers of those below the minimum that do not touch the block's border.
        min_px: holes of fewer pixels are filled.

    Returns: the outlines without those that lie in a filled hole.
    """
    if not small:
        return dict(outlines)
    filled = {number: fill_small_holes(polygon, min_px) for number, polygon in outlines.items()}
    holes = [Polygon(r) for p in outlines.values() for r in p.interiors if Polygon(r).area < min_px]
    numbers = sorted(small)
    tree = shapely.STRtree([outlines[number] for number in numbers])
    inside = {numbers[i] for i in np.unique(tree.query(holes, predicate="covers")[1])} if holes else set()
    return {number: polygon for number, polygon in filled.items() if number not in inside}


def simplify(polygons: NDArray[np.object_], tolerance_px: float) -> NDArray[np.object_]:
    """Simplify shared outlines alike (Visvalingam and Whyatt 1993, as GEOS applies it to coverages).

    What lies on the outer border of the coverage keeps every vertex, so that blocks simplified one by one still fit together.
    Outlines from pixels do not match at their vertices where three regions meet on a straight line, and a coverage must; one
    vertex a pixel makes them match.

    Args:
        polygons: (n,) outlines in whole pixels that fill a block without overlaps.
        tolerance_px: root of the area of the triangles that are cut off; 0 returns the outlines as they are.

    Returns: (n,) polygons in the same order, empty where a region was too thin to be kept.
    """
    if not tolerance_px or not len(polygons):
        return polygons
    dense = shapely.transform(
        shapely.segmentize(polygons, 1.0), np.rint
    )  # GEOS interpolates: 7.000000000000001 would not match 7
    found: NDArray[np.object_] = shapely.coverage_simplify(dense, tolerance_px, simplify_boundary=False)
    return np.where(shapely.area(found) > 0, found, shapely.from_wkt("POLYGON EMPTY"))
