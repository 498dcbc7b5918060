"""The numbers of a catalogue that its manifest keeps and reports quote."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import shapely
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from cgeartheye.catalog.search import Listing
from cgeartheye.rasters.scenes import Scene


def summarise(scenes: Sequence[Scene], listing: Listing, *, unused_rows: int) -> dict[str, Any]:
    """Return the funnel and the make-up of a catalogue, JSON-able.

    Args:
        scenes: what was kept, at least one.
        listing: what was found and left out.
        unused_rows: rows of the CSV file of dates that fit no file.
    """
    days = sorted(scene.date for scene in scenes)
    gsd = [scene.gsd_m for scene in scenes]
    ground = area_km2(shapely.union_all([scene.footprint for scene in scenes]))
    return {
        "headline": f"{len(scenes)} scenes of {days[0]} to {days[-1]}, {ground:.4g} km2; {len(listing.left_out)} left out",
        "found": len(listing.files),
        "ignored": listing.ignored,
        "kept": len(scenes),
        "left_out": len(listing.left_out),
        "reasons": _count(part for entry in listing.left_out for part in _kind(entry.reason).split("; ")),
        "by_year": _count(str(scene.year) for scene in scenes),
        "by_quarter": {f"Q{n}": sum(scene.quarter == n for scene in scenes) for n in (1, 2, 3, 4)},
        "by_year_and_quarter": _count(f"{scene.year} Q{scene.quarter}" for scene in scenes),
        "first_date": days[0].isoformat(),
        "last_date": days[-1].isoformat(),
        "gsd_min_m": min(gsd),
        "gsd_max_m": max(gsd),
        "area_km2": round(ground, 6),
        "area_of_scenes_km2": round(sum(area_km2(scene.footprint) for scene in scenes), 6),
        "date_sources": _count(scene.date_source for scene in scenes),
        "dtypes": _count(scene.dtype for scene in scenes),
        "mask_kinds": _count(scene.mask_kind for scene in scenes),
        "licences": _count(scene.licence for scene in scenes),
        "notes": _count(_kind(note) for scene in scenes for note in scene.notes),
        "unused_csv_rows": unused_rows,
    }


def area_km2(area: BaseGeometry) -> float:
    """Return the area on the WGS84 ellipsoid of a polygon in degrees, in km2."""
    square_metres, _ = Geod(ellps="WGS84").geometry_area_perimeter(shapely.orient_polygons(area))
    return abs(square_metres) / 1e6


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _kind(reason: str) -> str:
    """Reasons of one kind count as one, whatever their numbers, paths and details."""
    general = re.sub(r"/\S+", "another file", re.sub(r" \(.*?\)", "", reason))
    return re.sub(r"(?<![A-Za-z\d])\d+(\.\d+)?(e[+-]\d+)?", "#", general)
