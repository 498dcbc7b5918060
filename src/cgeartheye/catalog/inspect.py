"""One file -> a scene, or all its faults at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pyproj import CRS
from pyproj.exceptions import ProjError
from shapely.geometry.base import BaseGeometry

from cgeartheye.catalog.dates import Entry, find_date
from cgeartheye.catalog.search import Found
from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import Affine6, footprint, pixel_size_m
from cgeartheye.rasters.integrity import check_whole
from cgeartheye.rasters.reader import Raster, open_raster
from cgeartheye.rasters.scenes import Scene
from cgeartheye.settings.catalog import CatalogSettings

T = TypeVar("T")


class Faults:
    """Collects what is wrong with a file, so that the user hears of everything in one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.errors: list[DataError] = []

    def attempt(self, work: Callable[[], T]) -> T | None:
        """Return what ``work`` returns, or remember its fault and return None."""
        try:
            return work()
        except DataError as error:
            self.errors.append(error)
            return None

    def raise_if_any(self) -> None:
        """Raise one error of all faults.

        Raises:
            DataError: if there are any.
        """
        if self.errors:
            what = "; ".join(dict.fromkeys(error.what for error in self.errors))
            remedies = "; ".join(dict.fromkeys(error.remedy for error in self.errors if error.remedy))
            raise DataError(what, where=str(self.path), remedy=remedies or None)


def inspect(found: Found, entry: Entry | None, fingerprint: str, settings: CatalogSettings) -> Scene:
    """Read a file's header and a few of its pixels.

    Args:
        found: the file.
        entry: its row in the CSV file of dates.
        fingerprint: of the file.
        settings: of the stage.

    Returns: the scene; its ``id`` is the file's stem with other characters than ``[A-Za-z0-9._-]`` replaced.

    Raises:
        DataError: naming all faults of the file.
    """
    with open_raster(found.path, rgb_bands=settings.rgb_bands) as raster:
        dataset, faults = raster.dataset, Faults(found.path)
        tag = dataset.tags().get("TIFFTAG_DATETIME")
        pattern = re.compile(settings.date_pattern)
        date = faults.attempt(lambda: find_date(found, tag, entry, order=settings.date_from, pattern=pattern))
        located = faults.attempt(lambda: _locate(raster, settings))
        plan = faults.attempt(lambda: raster.plan)
        if settings.check_pixels and plan is not None:
            faults.attempt(lambda: check_whole(raster))
        faults.raise_if_any()
        if date is None or located is None or plan is None:
            raise DataError("could not be looked at", where=str(found.path))
        transform, crs, (gsd_x_m, gsd_y_m), outline = located
        return Scene(
            id=re.sub(r"[^A-Za-z0-9._-]+", "_", found.path.stem).strip("._-") or "scene",
            path=found.path.absolute(),
            datetime=date[0],
            date_source=date[1],
            gsd_m=math.sqrt(gsd_x_m * gsd_y_m),
            gsd_x_m=gsd_x_m,
            gsd_y_m=gsd_y_m,
            width=raster.width,
            height=raster.height,
            count=dataset.count,
            dtype=dataset.dtypes[0],
            band_names=_band_names(raster),
            rgb_bands=plan.bands,
            nodata=dataset.nodata,
            mask_kind=plan.mask,
            stretch_low=plan.stretch.low if plan.stretch else None,
            stretch_high=plan.stretch.high if plan.stretch else None,
            crs=crs,
            crs_wkt=CRS.from_user_input(crs).to_wkt(),
            transform=transform,
            footprint=outline,
            licence=(entry.licence if entry else None) or settings.licence,
            file_fingerprint=fingerprint,
            notes=(*plan.notes, *_geometry_notes(transform, gsd_x_m, gsd_y_m)),
        )


def _locate(raster: Raster, settings: CatalogSettings) -> tuple[Affine6, str, tuple[float, float], BaseGeometry]:
    transform, crs = raster.georeference
    try:
        size = pixel_size_m(transform, raster.width, raster.height, crs)
        outline = footprint(transform, raster.width, raster.height, crs)
    except (ProjError, ValueError) as error:
        raise DataError(
            f"its place on Earth cannot be computed ({error})",
            where=str(raster.path),
            remedy="check its coordinate system and geotransform, or reproject it: gdalwarp -t_srs EPSG:CODE IN OUT.tif",
        ) from error
    gsd_m = math.sqrt(size[0] * size[1])
    if not settings.gsd_min_m <= gsd_m <= settings.gsd_max_m:
        raise DataError(
            f"its ground sample distance is {_rounded(gsd_m)} m, outside {settings.gsd_min_m:g} to {settings.gsd_max_m:g} m",
            where=str(raster.path),
            remedy="set catalog.gsd_min_m or catalog.gsd_max_m if it belongs to the archive",
        )
    return transform, crs, size, outline


def _rounded(metres: float) -> str:
    return f"{metres:.0f}" if metres >= 1000 else f"{metres:.4g}"


def _band_names(raster: Raster) -> tuple[str, ...]:
    dataset = raster.dataset
    return tuple(text or kind.name for text, kind in zip(dataset.descriptions, dataset.colorinterp, strict=True))


def _geometry_notes(transform: Affine6, gsd_x_m: float, gsd_y_m: float) -> tuple[str, ...]:
    notes = []
    if abs(gsd_x_m / gsd_y_m - 1) > 0.01:
        notes.append(f"its pixels are not square ({gsd_x_m:.4g} x {gsd_y_m:.4g} m); they are resampled when read")
    if transform[1] or transform[3]:
        notes.append("its rows do not run west to east; it is turned when read")
    elif transform[0] < 0 or transform[4] > 0:
        notes.append("it is not stored north up; it is turned when read")
    return tuple(notes)
