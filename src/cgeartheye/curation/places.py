"""Cut a place's chips: every date on one grid, checked for quality and against one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pyproj import Geod

from cgeartheye.curation.filtering import encode_jpeg, fault_of, kind_of, quality_columns
from cgeartheye.curation.pieces import Piece
from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import LONLAT, transformer
from cgeartheye.geometry.grid import Grid, local_grid
from cgeartheye.geometry.registration import Shift, measure_shift
from cgeartheye.metrics.quality import LUMA, Quality, appeared_white, block_means, measure_quality, white_share
from cgeartheye.rasters.reader import Raster, open_raster, read_on_grid
from cgeartheye.rasters.scenes import Scene
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import Chip, Place

_SAME: Final = 1e-6
"""Relative difference below which two pixel sizes are the same."""
_TRUE_SCALE: Final = 0.01
"""A projected system is used for chips while its scale is within 1 % of true; Web Mercator is not."""


@dataclass(frozen=True)
class Spot:
    """A drawn place before its chips are cut; ``scenes`` are positions in the catalogue."""

    name: str
    lon: float
    lat: float
    cell: int
    region: str
    land_cover: str
    elevation_m: float | None
    stratum: str
    scenes: tuple[int, ...]


@dataclass(frozen=True)
class PlaceBlock:
    """The task of one piece: places, and the scenes they need."""

    spots: tuple[Spot, ...]
    scenes: Mapping[int, Scene]
    settings: CurateSettings
    gsd_m: float


@dataclass(frozen=True)
class _Cut:
    """One date of a place: picture (H, W, 3) uint8, mask (H, W) bool, measures."""

    scene: Scene
    name: str
    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    quality: Quality
    columns: Mapping[str, Any]


class _Loss:
    """Collects what was left out and why."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.counts: dict[str, int] = {}

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def reject(self, spot: Spot, scene: Scene | None, reason: str, kind: str) -> None:
        date = scene.date.isoformat() if scene else None
        self.rows.append({"place": spot.name, "scene": scene.id if scene else None, "date": date, "reason": reason})
        self.count(kind)


def cut_places(task: PlaceBlock) -> Piece:
    """Cut the chips of a block of places; whatever cannot be read or is certainly bad is left out with its reason."""
    loss, places = _Loss(), []
    with ExitStack() as closing:
        rasters, broken = _open_all(task.scenes, closing)
        for spot in task.spots:
            place = _cut_place(spot, task, rasters, broken, loss)
            if place is not None:
                places.append(place)
                loss.count("places")
                loss.count("chips", len(place.chips))
    return Piece(tuple(places), tuple(loss.rows), loss.counts)


def _open_all(scenes: Mapping[int, Scene], closing: ExitStack) -> tuple[dict[int, Raster], dict[int, str]]:
    rasters, broken = {}, {}
    for number, scene in scenes.items():
        try:
            rasters[number] = closing.enter_context(open_raster(scene))
        except DataError as error:
            broken[number] = str(error)
    return rasters, broken


def _cut_place(
    spot: Spot, task: PlaceBlock, rasters: Mapping[int, Raster], broken: Mapping[int, str], loss: _Loss
) -> Place | None:
    grid = place_grid(spot, [task.scenes[n] for n in spot.scenes], task.settings.chip_px, task.gsd_m)
    cuts = []
    for numbers in _by_date(spot, task.scenes):
        cut = _cut_date(grid, [(task.scenes[n], rasters.get(n), broken.get(n)) for n in numbers], spot, loss)
        if cut is None:
            continue
        fault = fault_of(cut.quality, task.settings.quality)
        if fault:
            loss.reject(spot, cut.scene, fault, kind_of(fault))
        else:
            cuts.append(cut)
    cuts = _registered(_best(cuts, task.settings.max_dates), task.settings, spot, loss)
    cuts = _clouded(cuts, task.settings.quality.cloud_rise)
    if len(cuts) < max(1, task.settings.min_dates or 1):
        wanted = task.settings.min_dates or 1
        loss.reject(spot, None, f"{len(cuts)} good dates, {wanted} wanted", "places_with_too_few_dates")
        return None
    chips = tuple(_chip(cut, grid, task.settings.jpeg_quality) for cut in cuts)
    known = {name: getattr(spot, name) for name in ("lon", "lat", "cell", "region", "land_cover", "elevation_m", "stratum")}
    where = {"crs": grid.crs, "x0": grid.x0, "y0": grid.y0, "gsd_m": grid.gsd_m}
    return Place(spot.name, chips, {**{k: v for k, v in known.items() if v is not None}, **where})


def place_grid(spot: Spot, scenes: Sequence[Scene], chip_px: int, gsd_m: float) -> Grid:
    """Return the one grid onto which all dates of a place go.

    Its system is that of most of the scenes if it is metric and true to scale there, else the UTM zone of the place. Its
    pixels fall on those of the first scene (by date and name) that has this system and pixel size, so that chips of such
    scenes are copies and not resampled; where there is none, on whole multiples of the pixel.
    """
    systems = [scene.crs for scene in scenes]
    common = max(sorted(set(systems)), key=systems.count)
    crs = common if _is_true(common, spot.lon, spot.lat) else None
    grid = local_grid(spot.lon, spot.lat, gsd_m=gsd_m, size_px=chip_px, crs=crs)
    for scene in scenes:
        a, b, x0, d, e, y0 = scene.transform
        square = abs(a - gsd_m) <= _SAME * gsd_m and abs(e + gsd_m) <= _SAME * gsd_m
        if scene.crs == grid.crs and square and b == d == 0:
            column, row = round((grid.x0 - x0) / a), round((grid.y0 - y0) / e)
            return replace(grid, x0=x0 + column * a, y0=y0 + row * e)
    return grid


def _is_true(crs: str, lon: float, lat: float) -> bool:
    """Tell whether a metre of the system is a metre on the ground at a point, within 1 %, in both directions."""
    to_degrees, geod = transformer(crs, LONLAT), Geod(ellps="WGS84")
    system = to_degrees.source_crs
    if system is None or not system.is_projected or abs(system.axis_info[0].unit_conversion_factor - 1) > _SAME:
        return False
    x, y = transformer(LONLAT, crs).transform(lon, lat)
    lons, lats = to_degrees.transform([x, x + 100, x], [y, y, y + 100])
    _, _, ground = geod.inv([lons[0]] * 2, [lats[0]] * 2, lons[1:], lats[1:])
    return bool(np.all(np.abs(np.asarray(ground) / 100 - 1) <= _TRUE_SCALE))


def _by_date(spot: Spot, scenes: Mapping[int, Scene]) -> list[list[int]]:
    dates: dict[Any, list[int]] = defaultdict(list)
    for number in spot.scenes:
        dates[scenes[number].date].append(number)
    return [dates[date] for date in sorted(dates)]


def _cut_date(grid: Grid, sources: Sequence[tuple[Scene, Raster | None, str | None]], spot: Spot, loss: _Loss) -> _Cut | None:
    """Read one date: the best covered scene, its holes filled from the date's other scenes in order of coverage."""
    read = []
    for scene, raster, fault in sources:
        try:
            if raster is None:
                raise DataError(fault or "cannot be opened")
            read.append((scene, *read_on_grid(raster, grid)))
        except DataError as error:
            loss.reject(spot, scene, f"cannot be read: {error}", "unreadable")
    if not read:
        return None
    read.sort(key=lambda entry: (-int(entry[2].sum()), entry[0].id))
    scene, image, valid = read[0]
    used, image, valid = [scene.id], np.array(image), np.array(valid)
    for other, colours, known in read[1:]:
        fresh = known & ~valid
        if fresh.any():
            image[fresh], valid[fresh] = colours[fresh], True
            used.append(other.id)
    loss.count("chips_cut")
    return _Cut(scene, "+".join(used), image, valid, measure_quality(image, valid), {})


def _best(cuts: list[_Cut], wanted: int) -> list[_Cut]:
    """Return the best covered dates, in order of date."""
    ranked = sorted(range(len(cuts)), key=lambda i: (cuts[i].quality.nodata, i))[:wanted]
    return [cuts[i] for i in sorted(ranked)]


def _registered(cuts: list[_Cut], settings: CurateSettings, spot: Spot, loss: _Loss) -> list[_Cut]:
    """Measure each date's shift against the best covered one; drop dates that are certainly too far off."""
    if not settings.registration.enabled or len(cuts) < 2:
        return cuts
    anchor = min(range(len(cuts)), key=lambda i: (cuts[i].quality.nodata, i))
    greys = [cut.image @ LUMA for cut in cuts]
    kept = []
    for number, cut in enumerate(cuts):
        if number == anchor:
            kept.append(replace(cut, columns={"shift_px": 0.0, "shift_rows": 0.0, "shift_columns": 0.0}))
            continue
        shift = measure_shift(
            greys[anchor],
            greys[number],
            valid=cuts[anchor].valid & cut.valid,
            search_px=settings.registration.search_px,
            certain_from=settings.registration.min_confidence,
        )
        length = round(shift.length_px, 4) if shift.certain else None
        if length is not None and length > settings.registration.drop_px:
            loss.reject(spot, cut.scene, f"shifted by {length:.1f} px against {cuts[anchor].scene.date}", "shifted")
            continue
        if length is None:
            loss.count("shift_unknown")
        elif length > settings.registration.flag_px:
            loss.count("shift_flagged")
        kept.append(replace(cut, columns=_shift_columns(shift)))
    return kept


def _clouded(cuts: list[_Cut], least_rise: float) -> list[_Cut]:
    """Note for each date what looks like cloud there and lies bare at another date."""
    if len(cuts) < 2:
        return cuts
    whites = np.stack([white_share(cut.image, cut.valid) for cut in cuts])
    greys = np.stack([block_means(cut.image @ LUMA) for cut in cuts])
    known = np.stack([block_means(cut.valid) == 1 for cut in cuts])
    shares = appeared_white(whites, greys, known, least_rise)
    found = [{} if np.isnan(share) else {"q_cloud": round(float(share), 6)} for share in shares]
    return [replace(cut, columns={**cut.columns, **more}) for cut, more in zip(cuts, found, strict=True)]


def _shift_columns(shift: Shift) -> dict[str, Any]:
    known = {"shift_px": shift.length_px, "shift_rows": shift.rows, "shift_columns": shift.columns} if shift.certain else {}
    return {name: round(value, 4) for name, value in {**known, "shift_confidence": shift.confidence}.items()}


def _chip(cut: _Cut, grid: Grid, jpeg_quality: int) -> Chip:
    scene = cut.scene
    columns = {
        "date": scene.date,
        "year": scene.year,
        "quarter": scene.quarter,
        "scene": cut.name,
        "width": grid.width,
        "height": grid.height,
        "licence": scene.licence,
        **quality_columns(cut.quality),
        **cut.columns,
    }
    return Chip(encode_jpeg(cut.image, jpeg_quality), columns)
