"""Thinning: of points in an order of rank, those that keep a distance from all points kept before them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from scipy.spatial import cKDTree

from cgeartheye.geometry.cells import CellGrid
from cgeartheye.geometry.crs import LONLAT, transformer

_EARTH_CENTRED: Final = "EPSG:4978"
_REACH: Final = 3.5
"""The leaders of all buckets that hold a point within the distance lie within so many distances, polar wedges included."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def thin(lon: Floats, lat: Floats, distance_m: float) -> Bools:
    """Return (n,) bool, True for each point that is at least ``distance_m`` from all points kept before it.

    The result is that of looking at one point after another; it is found in rounds: in each, the first open point of
    every bucket of about the distance's size is kept if no neighbouring bucket has an earlier one, and its neighbours
    are dropped. The distance is the straight line between points on the WGS84 ellipsoid.

    Args:
        lon: (n,) degrees, in order of rank.
        lat: (n,) degrees.
        distance_m: > 0.
    """
    to_metres: Transformer = transformer(LONLAT, _EARTH_CENTRED)
    points = np.stack(to_metres.transform(lon, lat, np.zeros(len(lon))), axis=1)
    bucket = CellGrid(min(max(distance_m, 1.0), 1e6)).ids(lon, lat)
    kept, open_ = np.zeros(len(points), bool), np.arange(len(points))
    while open_.size:
        leaders = open_[np.unique(bucket[open_], return_index=True)[1]]  # the first of each: ``open_`` is ascending
        sure = leaders[_lead(points[leaders], leaders, _REACH * distance_m)]
        kept[sure] = True
        near, _ = cKDTree(points[sure]).query(points[open_], distance_upper_bound=distance_m)
        open_ = open_[~(near < distance_m)]
    return kept


def _lead(points: Floats, rank: NDArray[np.int64], reach_m: float) -> Bools:
    """Return which points have the lowest rank of all within reach."""
    pairs = cKDTree(points).query_pairs(reach_m, output_type="ndarray")
    lead = np.ones(len(points), bool)
    later = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 1], pairs[:, 0])
    lead[later] = False
    return lead
