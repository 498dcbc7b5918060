"""Which bands of a raster are its red, green and blue, where it holds data, and how its values become 8 bits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from cgeartheye.errors import DataError
from cgeartheye.rasters.stretch import Stretch, measure_stretch

MaskKind = Literal["none", "nodata", "alpha", "mask"]
"""Where a raster says which of its pixels hold data: nowhere, a value, an opacity band, a mask band."""
Bands = tuple[int, int, int]
SAMPLE_PX: Final = 2048
"""Longer side of the picture that the stretch is measured on [ours]."""
_WHOLE_READ_PX: Final = 2**26
_LATTICE: Final = 8
_LATTICE_PX: Final = 256
_OPAQUE_SHARE: Final = 0.95


@dataclass(frozen=True, slots=True)
class ColourPlan:
    """How a raster's values become (H, W, 3) uint8 and a valid mask: the same plan for every window of a scene.

    Args:
        bands: indexes (from 1) of red, green and blue; equal for grey pictures.
        mask: where the valid pixels are told.
        stretch: of 16-bit pictures, else None.
        notes: what was assumed, in sentences for the user.
    """

    bands: Bands
    mask: MaskKind
    stretch: Stretch | None = None
    notes: tuple[str, ...] = ()


def plan_colours(dataset: rasterio.DatasetReader, path: Path, *, rgb: Bands | None = None) -> ColourPlan:
    """Look at a raster's header, and at a sample of its pixels where that is not enough.

    Args:
        dataset: an open raster.
        path: its file, for messages.
        rgb: bands the user named; default: by colour interpretation.

    Raises:
        DataError: if the raster is no picture, its bands are unknown, or 16-bit values have no range.
    """
    dtype = dataset.dtypes[0]
    if dtype not in {"uint8", "uint16"}:
        raise DataError(
            f"its values are {dtype}, not 8- or 16-bit unsigned",
            where=str(path),
            remedy="scale it to bytes: gdal_translate -ot Byte -scale LOW HIGH 0 255 IN OUT.tif",
        )
    mask, notes = _mask_kind(dataset)
    if rgb is None:
        bands, band_notes = _choose_bands(dataset, path)
        notes += band_notes
    elif max(rgb) > dataset.count or min(rgb) < 1:
        raise DataError(f"has {dataset.count} bands, not the bands {rgb} that were asked for", where=str(path))
    else:
        bands = rgb
    stretch = None if dtype == "uint8" else _stretch(dataset, path, bands, mask)
    return ColourPlan(bands, mask, stretch, notes)


def read_mask(
    dataset: rasterio.DatasetReader, mask: MaskKind, window: Window | None, shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Return where a window holds data, ``shape`` bool; with a no-data value, a pixel is empty if all its bands have it."""
    if mask == "none":
        return np.ones(shape, dtype=bool)
    if mask == "alpha":
        index = _alpha_band(dataset)
        alpha = dataset.read(index, window=window, out_shape=shape)
        valid: NDArray[np.bool_] = alpha > np.iinfo(alpha.dtype).max // 2
        return valid
    told: NDArray[np.bool_] = dataset.dataset_mask(window=window, out_shape=shape) > 0
    return told


def sample(
    dataset: rasterio.DatasetReader, bands: tuple[int, ...], mask: MaskKind, *, longest_px: int = SAMPLE_PX
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return a sample of a raster's pixels, (bands, n) of its own type, and which of them are valid, (n,) bool.

    From an overview or the decimated picture; for a large picture without overviews, from 64 windows on a lattice.
    """
    width, height = dataset.width, dataset.height
    if dataset.overviews(1) or width * height <= _WHOLE_READ_PX:
        shrink = max(1.0, max(width, height) / longest_px)
        shape = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        values = dataset.read(bands, out_shape=(len(bands), *shape))
        return values.reshape(len(bands), -1), read_mask(dataset, mask, None, shape).ravel()
    parts, valid = [], []
    for row in np.linspace(0, height - _LATTICE_PX, _LATTICE).astype(int):
        for column in np.linspace(0, width - _LATTICE_PX, _LATTICE).astype(int):
            window = Window(max(0, column), max(0, row), min(_LATTICE_PX, width), min(_LATTICE_PX, height))
            parts.append(dataset.read(bands, window=window).reshape(len(bands), -1))
            valid.append(read_mask(dataset, mask, window, (window.height, window.width)).ravel())
    return np.concatenate(parts, axis=1), np.concatenate(valid)


def _stretch(dataset: rasterio.DatasetReader, path: Path, bands: Bands, mask: MaskKind) -> Stretch:
    values, valid = sample(dataset, tuple(sorted(set(bands))), mask)
    if mask == "none":
        valid = valid & values.any(axis=0)  # black borders that the file does not declare would hold the low end at 0
    stretch = measure_stretch(values[:, valid].ravel())
    if stretch is None:
        what = "all its valid 16-bit values are equal" if valid.any() else "it holds no valid pixel"
        raise DataError(
            f"no range for 8 bits can be found: {what}", where=str(path), remedy="check the file in a viewer, or leave it out"
        )
    return stretch


def _alpha_band(dataset: rasterio.DatasetReader) -> int:
    return int(dataset.colorinterp.index(ColorInterp.alpha)) + 1


def _mask_kind(dataset: rasterio.DatasetReader) -> tuple[MaskKind, tuple[str, ...]]:
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.nodata in flags:
        return "nodata", ()
    if MaskFlags.alpha in flags:
        return _alpha_or_spectral(dataset)
    if MaskFlags.per_dataset in flags:
        return "mask", ()
    return "none", ()


def _alpha_or_spectral(dataset: rasterio.DatasetReader) -> tuple[MaskKind, tuple[str, ...]]:
    """Tell opacity from near infrared: many writers mark any fourth band as alpha, but opacity is nearly always 0 or full."""
    values, _ = sample(dataset, (_alpha_band(dataset),), "none", longest_px=512)
    full = np.iinfo(values.dtype).max
    if np.mean((values == 0) | (values == full)) >= _OPAQUE_SHARE:
        return "alpha", ()
    return "none", (f"band {_alpha_band(dataset)} is marked as alpha but holds a picture; it is taken for near infrared",)


def _choose_bands(dataset: rasterio.DatasetReader, path: Path) -> tuple[Bands, tuple[str, ...]]:
    kinds = dataset.colorinterp
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(kind in kinds for kind in wanted):
        red, green, blue = (kinds.index(kind) + 1 for kind in wanted)
        return (red, green, blue), ()
    if ColorInterp.palette in kinds:
        raise DataError(
            "is a map with a colour table, not a picture",
            where=str(path),
            remedy="if it is a picture, write its colours out: gdal_translate -expand rgb IN OUT.tif",
        )
    named = [(text or "").strip().lower() for text in dataset.descriptions]
    if all(name in named for name in ("red", "green", "blue")):
        red, green, blue = (named.index(name) + 1 for name in ("red", "green", "blue"))
        return (red, green, blue), ()
    return _without_names([index + 1 for index, kind in enumerate(kinds) if kind != ColorInterp.alpha], path)


def _without_names(spectral: list[int], path: Path) -> tuple[Bands, tuple[str, ...]]:
    if len(spectral) == 1:
        return (spectral[0],) * 3, ("one grey band is repeated as red, green and blue",)
    if len(spectral) in {3, 4}:
        return (spectral[0], spectral[1], spectral[2]), (
            "no band says its colour; the first three are taken for red, green and blue",
        )
    raise DataError(
        f"has {len(spectral)} bands and does not say which are red, green and blue",
        where=str(path),
        remedy="name them, for example catalog.rgb_bands: [5, 3, 2], or write their colour interpretation into the file",
    )
