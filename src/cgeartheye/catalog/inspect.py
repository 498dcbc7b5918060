"""One file -> a scene, or all its faults at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from pyproj import CRS
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp
from shapely.geometry.base import BaseGeometry

from cgeartheye.catalog.acquisitions import Sketch, acquisition_of, sketch
from cgeartheye.catalog.dates import Clues, find_date
from cgeartheye.catalog.metadata import Meta, read_meta
from cgeartheye.catalog.pairs import Candidate
from cgeartheye.catalog.products import Product
from cgeartheye.catalog.search import Found
from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import Affine6, footprint, pixel_size_m
from cgeartheye.rasters.colours import Bands
from cgeartheye.rasters.integrity import check_whole
from cgeartheye.rasters.opening import is_remote
from cgeartheye.rasters.reader import Raster, open_raster
from cgeartheye.rasters.rectify import rectify_command
from cgeartheye.rasters.scenes import Scene
from cgeartheye.rasters.sharpen import sharpen_files
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


def look(candidate: Candidate, settings: CatalogSettings, cache: Path) -> tuple[Scene, Sketch | None]:
    """Read a file's header and a few of its pixels; a PAN + MSS pair is sharpened first, unless ``cache`` holds it.

    Args:
        candidate: the file, or pair of files.
        settings: of the stage.
        cache: folder of sharpened files.

    Returns: the scene, whose ``id`` is the STAC item's or the file's stem with other characters than ``[A-Za-z0-9._-]``
        replaced; and the distribution of its values if it is a tile of 16 bits.

    Raises:
        DataError: naming all faults of the file.
        ResourceError: if the disk is full.
    """
    found, product = candidate.found, candidate.product
    name = scene_id(found, candidate.pan)
    sharp = _sharpened(candidate, cache, name) if candidate.pan is not None else None
    path = found.path if sharp is None else sharp
    meta = Meta() if is_remote(found.path) else read_meta(found.path, settings.meta)
    rgb = settings.rgb_bands or meta.rgb_bands
    rgb, notes = (rgb, ()) if rgb or sharp or product is None else _bands_of(path, product)
    with open_raster(path, rgb_bands=rgb, network=is_remote(path)) as raster:
        seen = _Seen(candidate, meta, (*notes, *_sharp_notes(candidate)), name)
        scene = _scene(raster, seen, settings)
        tile = acquisition_of(found, product, re.compile(settings.tile_pattern))
        drawn = sketch(raster) if tile is not None and scene.dtype == "uint16" else None
    return replace(scene, acquisition=tile or ""), drawn


def scene_id(found: Found, pan: Path | None = None) -> str:
    """Return the id of a file's scene: its STAC item's or its own name, with characters that any file system takes."""
    stem = found.told.id or found.named.stem
    if pan is not None:
        stem = re.sub(r"_MSS(?![A-Za-z])", "_SHARP", stem)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", stem).strip("._-") or "scene"


@dataclass(frozen=True, slots=True)
class _Seen:
    """What is known of a file before its header is read."""

    candidate: Candidate
    meta: Meta
    notes: tuple[str, ...]
    name: str

    def clues(self, tag: str | None) -> Clues:
        told, product = self.candidate.found.told, self.candidate.product
        return Clues(self.candidate.entry, told.moment, self.meta.moment, product.moment if product else None, tag)

    @property
    def licence(self) -> str | None:
        entry = self.candidate.entry
        return (entry.licence if entry else None) or self.candidate.found.told.licence


def _sharp_notes(candidate: Candidate) -> tuple[str, ...]:
    return () if candidate.pan is None else (f"pan-sharpened from {candidate.pan.name} and {candidate.found.path.name}",)


def _sharpened(candidate: Candidate, cache: Path, name: str) -> Path:
    """Return the sharpened file of a pair; it is made if the cache lacks it, and known by the pair's fingerprint."""
    out = cache / f"{name}-{candidate.fingerprint.split()[-1][:12]}.tif"
    if candidate.pan is not None and not out.exists():
        faults = Faults(candidate.pan)
        for path in (candidate.pan, candidate.found.path):
            faults.attempt(lambda path=path: _refuse_unprojected(path))  # type: ignore[misc]  # mypy knows no default in a lambda
        faults.raise_if_any()
        rgb = candidate.product.rgb_of_four if candidate.product else None
        cache.mkdir(parents=True, exist_ok=True)
        sharpen_files(candidate.pan, candidate.found.path, out, rgb=rgb or (1, 2, 3))
    return out


def _refuse_unprojected(path: Path) -> None:
    """Raise with the command that orthorectifies it if a file has a sensor model."""
    with open_raster(path) as raster:
        _refuse_sensor_model(raster)
        raster.georeference  # noqa: B018 - raises with its own remedy


def _refuse_sensor_model(raster: Raster) -> None:
    if raster.dataset.rpcs:
        raise DataError(
            "is not orthorectified: its place is told by a sensor model (RPC)",
            where=str(raster.path),
            remedy=f"orthorectify it first: {rectify_command(raster.dataset.rpcs, raster.path)}",
        )


def _bands_of(path: Path, product: Product) -> tuple[Bands | None, tuple[str, ...]]:
    """Return the maker's order of bands for a file of four that does not say its own."""
    if product.rgb_of_four is None:
        return None, ()
    with open_raster(path, network=is_remote(path)) as raster:
        dataset = raster.dataset
        named = {(text or "").strip().lower() for text in dataset.descriptions}
        silent = ColorInterp.red not in dataset.colorinterp and "red" not in named
    if dataset.count != 4 or not silent:
        return None, ()
    red, green, blue = product.rgb_of_four
    return product.rgb_of_four, (f"bands {red}, {green}, {blue} are taken for red, green, blue, the order of {product.maker}",)


def _scene(raster: Raster, seen: _Seen, settings: CatalogSettings) -> Scene:
    dataset, faults, found = raster.dataset, Faults(raster.path), seen.candidate.found
    tag = dataset.tags().get("TIFFTAG_DATETIME")
    date = faults.attempt(lambda: find_date(found, seen.clues(tag), settings))
    jilin1 = seen.candidate.product is not None and seen.candidate.product.maker == "Jilin-1"
    located = faults.attempt(lambda: _locate(raster, settings, jilin1=jilin1))
    plan = faults.attempt(lambda: raster.plan)
    if settings.check_pixels and plan is not None:
        faults.attempt(lambda: check_whole(raster))
    faults.raise_if_any()
    if date is None or located is None or plan is None:
        raise DataError("could not be looked at", where=str(raster.path))
    transform, crs, (gsd_x_m, gsd_y_m), outline = located
    return Scene(
        id=seen.name,
        path=raster.path if is_remote(raster.path) else raster.path.absolute(),
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
        crs_wkt=_wkt(crs),
        transform=transform,
        footprint=outline,
        licence=seen.licence or settings.licence,
        file_fingerprint=seen.candidate.fingerprint,
        notes=(*seen.notes, *plan.notes, *date[2], *_geometry_notes(transform, gsd_x_m, gsd_y_m)),
        cloud_share=seen.meta.cloud_share if seen.meta.cloud_share is not None else found.told.cloud_share,
    )


@lru_cache(maxsize=1024)
def _wkt(crs: str) -> str:
    return CRS.from_user_input(crs).to_wkt()


def _locate(raster: Raster, settings: CatalogSettings, *, jilin1: bool) -> tuple[Affine6, str, tuple[float, float], BaseGeometry]:
    transform, crs = raster.georeference
    if jilin1:
        _refuse_sensor_model(raster)
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
