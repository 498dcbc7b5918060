"""Cut a place's chips: every date on one grid, checked for quality and against one another."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.curation.filtering import encode_jpeg, fault_of, kind_of, quality_columns
from cgeartheye.curation.pieces import Piece
from cgeartheye.errors import DataError
from cgeartheye.geometry.grid import Grid, local_grid
from cgeartheye.geometry.registration import Shift, measure_shift
from cgeartheye.metrics.quality import LUMA, Quality, appeared_white, block_means, measure_quality, white_share
from cgeartheye.rasters.mosaic import Mosaic, read_mosaic
from cgeartheye.rasters.reader import Raster, open_raster
from cgeartheye.rasters.scenes import Scene
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import Chip, Place

_WHITE: Final = 200
"""Values from which a pixel whose colours differ by less than :data:`_COLOURLESS` may be cloud [ours]."""
_COLOURLESS: Final = 30


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
    """One date of a place: picture (H, W, 3) uint8, mask (H, W) bool, measures, and the scenes it is made of, most first."""

    scenes: tuple[Scene, ...]
    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    quality: Quality
    columns: Mapping[str, Any]

    @property
    def scene(self) -> Scene:
        """The scene that gave most of its pixels."""
        return self.scenes[0]


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
    # the place alone fixes the grid, so that it stays the same whatever scenes an archive gains
    grid = local_grid(spot.lon, spot.lat, gsd_m=task.gsd_m, size_px=task.settings.chip_px)
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
    good = _best_of_quarters(cuts, task.settings.chips.per_quarter)
    if len(good) < len(cuts):
        loss.count("other_dates_of_a_quarter", len(cuts) - len(good))
    cuts = _registered(_best(good, task.settings.max_dates), task.settings, spot, loss)
    cuts = _clouded(cuts, task.settings.quality.cloud_rise)
    if len(cuts) < max(1, task.settings.min_dates or 1):
        wanted = task.settings.min_dates or 1
        loss.reject(spot, None, f"{len(cuts)} good dates, {wanted} wanted", "places_with_too_few_dates")
        return None
    chips = tuple(_chip(cut, grid, task.settings.jpeg_quality) for cut in cuts)
    known = {name: getattr(spot, name) for name in ("lon", "lat", "cell", "region", "land_cover", "elevation_m", "stratum")}
    where = {"crs": grid.crs, "x0": grid.x0, "y0": grid.y0, "gsd_m": grid.gsd_m}
    return Place(spot.name, chips, {**{k: v for k, v in known.items() if v is not None}, **where})


def _by_date(spot: Spot, scenes: Mapping[int, Scene]) -> list[list[int]]:
    dates: dict[Any, list[int]] = defaultdict(list)
    for number in spot.scenes:
        dates[scenes[number].date].append(number)
    return [dates[date] for date in sorted(dates)]


def _cut_date(grid: Grid, sources: Sequence[tuple[Scene, Raster | None, str | None]], spot: Spot, loss: _Loss) -> _Cut | None:
    """Read one date from all its scenes; one that cannot be read costs only its own pixels."""
    usable: list[tuple[Scene, Raster]] = []
    for scene, raster, fault in sources:
        if raster is None:
            loss.reject(spot, scene, f"cannot be read: {fault or 'cannot be opened'}", "unreadable")
        else:
            usable.append((scene, raster))
    usable.sort(key=lambda entry: entry[0].id)
    mosaic = _read_date(grid, usable, spot, loss)
    if mosaic is None:
        return None
    loss.count("chips_cut")
    scenes = tuple(usable[i][0] for i in mosaic.used) or (usable[0][0],)
    return _Cut(scenes, mosaic.colours, mosaic.valid, measure_quality(mosaic.colours, mosaic.valid), {})


def _read_date(grid: Grid, usable: list[tuple[Scene, Raster]], spot: Spot, loss: _Loss) -> Mosaic | None:
    """Read the scenes together; where that fails, find and leave out (from ``usable``, too) those that cannot be read."""
    try:
        return read_mosaic([raster for _, raster in usable], grid) if usable else None
    except DataError:
        for entry in list(usable):
            try:
                read_mosaic([entry[1]], grid)
            except DataError as error:
                loss.reject(spot, entry[0], f"cannot be read: {error}", "unreadable")
                usable.remove(entry)
    return read_mosaic([raster for _, raster in usable], grid) if usable else None


def _best_of_quarters(cuts: Sequence[_Cut], wanted: int) -> list[_Cut]:
    """Return the best dates of each quarter of each year, in order of date."""
    quarters: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, cut in enumerate(cuts):
        quarters[cut.scene.year, cut.scene.quarter].append(number)
    kept: list[int] = []
    for members in quarters.values():
        ranked = members if len(members) <= wanted else sorted(members, key=lambda i: _rank(cuts[i]))
        kept.extend(ranked[:wanted])
    return [cuts[i] for i in sorted(kept)]


def _rank(cut: _Cut) -> tuple[float, float, float, float, float, str]:
    """Order the dates of a quarter: coverage, white pixels, stated clouds, angle of view, days from mid-quarter, name.

    What a producer does not state counts as half a sky of cloud and as 45 degrees. Coverage and white are compared in steps
    of 1 %, so that a hair's breadth does not outweigh what comes after.
    """
    scene = cut.scene
    middle = dt.date(scene.year, 3 * scene.quarter - 1, 15)
    clouds = 0.5 if scene.cloud_share is None else scene.cloud_share
    angle = 45.0 if scene.off_nadir_deg is None else abs(scene.off_nadir_deg)
    nodata, white = round(cut.quality.nodata, 2), round(_white_share(cut), 2)
    return nodata, white, clouds, angle, abs((scene.date - middle).days), scene.id


def _white_share(cut: _Cut) -> float:
    """Return the share of valid pixels that are bright and colourless: between dates of one place, most often cloud."""
    low, high = cut.image.min(axis=2), cut.image.max(axis=2)
    white = (low >= _WHITE) & (high - low < _COLOURLESS) & cut.valid
    return float(white.sum() / max(1, cut.valid.sum()))


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
        "scene": "+".join(scene.id for scene in cut.scenes),
        "width": grid.width,
        "height": grid.height,
        "licence": " AND ".join(sorted({one.licence for one in cut.scenes})),
        **quality_columns(cut.quality),
        **cut.columns,
    }
    return Chip(encode_jpeg(cut.image, jpeg_quality), columns)
