"""A panchromatic and a multispectral file of one moment -> one file of sharp colours, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import same_crs
from cgeartheye.rasters.colours import Bands, MaskKind, read_mask
from cgeartheye.rasters.reader import Raster, open_raster
from cgeartheye.rasters.writer import RasterSpec, create_geotiff, write_cog
from cgeartheye.transforms.pansharpen import HALO, Placement, pansharpen

BLOCK_PX: Final = 1792
"""Side of a block in panchromatic pixels, four blocks of the file it is written to; about 150 MB of memory [ours]."""


def sharpen_files(pan: Path, multi: Path, out: Path, *, rgb: Bands) -> None:
    """Write the bands of ``multi`` at the resolution of ``pan`` as COG: red, green, blue, then the other bands in their order.

    The values keep the type of ``multi``; no-data is 0, where either file holds none, and valid values are at least 1.

    Args:
        pan: one band.
        multi: three bands or more, in the same system, coarser by up to a factor of 16.
        out: the file; the same input gives the same bytes.
        rgb: bands of ``multi`` (from 1) that are red, green and blue.

    Raises:
        DataError: if one of them cannot be read, their systems or places do not fit, or they are stored turned.
        ResourceError: if the disk is full.
    """
    scratch = out.with_name(f".{out.stem}.bands.tif")
    try:
        with open_raster(pan) as fine, open_raster(multi, rgb_bands=rgb) as coarse:
            order = (*rgb, *(band for band in range(1, coarse.dataset.count + 1) if band not in rgb))
            placement = _placement(fine, coarse)
            masks = (fine.plan.mask, coarse.plan.mask)
            names = ("red", "green", "blue", *(coarse.dataset.descriptions[band - 1] or f"band {band}" for band in order[3:]))
            transform, crs = fine.georeference
            dtype = coarse.dataset.dtypes[0]
            spec = RasterSpec(
                crs=crs,
                transform=transform,
                width=fine.width,
                height=fine.height,
                count=len(order),
                dtype=dtype,
                nodata=0,
                band_names=names,
            )
            with create_geotiff(scratch, spec) as target:
                for window in _blocks(fine.width, fine.height):
                    target.write(_sharp(fine, coarse, window, (placement, order, masks)), window=window)
        write_cog(out, scratch, categorical=False)
    finally:
        scratch.unlink(missing_ok=True)


def _placement(fine: Raster, coarse: Raster) -> Placement:
    (a, b, c, d, e, f), crs = fine.georeference
    (ca, cb, cc, cd, ce, cf), coarse_crs = coarse.georeference
    if not same_crs(crs, coarse_crs):
        raise DataError(
            f"is in {crs}, its partner {coarse.path.name} in {coarse_crs}",
            where=str(fine.path),
            remedy="bring both into one system: gdalwarp -t_srs",
        )
    placement = Placement(a / ca, (c - cc) / ca, e / ce, (f - cf) / ce)
    if any((b, d, cb, cd)) or not (1 / 16 <= placement.sx <= 1 and 1 / 16 <= placement.sy <= 1):
        raise DataError(
            f"its pixels and those of {coarse.path.name} are turned, or not 1 to 16 times finer",
            where=str(fine.path),
            remedy="check that both are orthorectified north up",
        )
    right, bottom = placement.ox + placement.sx * fine.width, placement.oy + placement.sy * fine.height
    if right <= 0 or bottom <= 0 or placement.ox >= coarse.width or placement.oy >= coarse.height:
        raise DataError(
            f"does not lie where {coarse.path.name} lies", where=str(fine.path), remedy="check that both are one product's"
        )
    return placement


def _blocks(width: int, height: int) -> Iterator[Window]:
    for top in range(0, height, BLOCK_PX):
        for left in range(0, width, BLOCK_PX):
            yield Window(left, top, min(BLOCK_PX, width - left), min(BLOCK_PX, height - top))


def _sharp(
    fine: Raster, coarse: Raster, window: Window, how: tuple[Placement, tuple[int, ...], tuple[MaskKind, MaskKind]]
) -> NDArray[Any]:
    """Return the (bands, H, W) sharp values of a window of the panchromatic raster."""
    whole, order, masks = how
    rows = _extent(window.row_off, window.height, fine.height, (whole.sy, whole.oy, coarse.height))
    columns = _extent(window.col_off, window.width, fine.width, (whole.sx, whole.ox, coarse.width))
    dtype = np.dtype(coarse.dataset.dtypes[0])
    if rows is None or columns is None:
        return np.zeros((len(order), window.height, window.width), dtype)
    (top, bottom, low_top, low_bottom), (left, right, low_left, low_right) = rows, columns
    around = Window(left, top, right - left, bottom - top)
    below = Window(low_left, low_top, low_right - low_left, low_bottom - low_top)
    placement = Placement(whole.sx, whole.ox + whole.sx * left - low_left, whole.sy, whole.oy + whole.sy * top - low_top)
    values, valid = pansharpen(
        fine.dataset.read(1, window=around).astype(np.float32),
        coarse.dataset.read(order, window=below),
        placement,
        pan_valid=read_mask(fine.dataset, masks[0], around, (around.height, around.width)),
        bands_valid=read_mask(coarse.dataset, masks[1], below, (below.height, below.width)),
    )
    at = np.s_[window.row_off - top :, window.col_off - left :]
    sharp, known = values[(slice(None), *at)], valid[at]
    sharp, known = sharp[:, : window.height, : window.width], known[: window.height, : window.width]
    done: NDArray[Any] = np.where(known, np.clip(np.rint(sharp), 1, np.iinfo(dtype).max), 0).astype(dtype)
    return done


def _extent(start: int, length: int, limit: int, axis: tuple[float, float, int]) -> tuple[int, int, int, int] | None:
    """Return the fine and the coarse range that decide some pixels of one axis, or None where no coarse pixel is near."""
    scale, offset, n_low = axis
    low_first = max(0, math.floor(start * scale + offset) - HALO)
    low_last = min(n_low, math.ceil((start + length) * scale + offset) + HALO)
    if low_first >= low_last:
        return None
    first = max(0, min(start, math.floor((low_first - offset) / scale)))
    last = min(limit, max(start + length, math.ceil((low_last - offset) / scale)))
    return first, last, low_first, low_last
