"""Writing rasters: tiled GeoTIFF by windows, and cloud-optimised GeoTIFF from it. Equal input gives equal bytes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # what copying raises; there is no public name
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.transform import Affine

from cgeartheye.errors import DataError, ResourceError, ShapeError
from cgeartheye.files import atomic_path
from cgeartheye.geometry.crs import Affine6
from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.integrity import check_blocks
from cgeartheye.rasters.opening import gdal_env, open_dataset

BLOCK_PX: Final = 448
"""Side of a block: 32 patches of 14 px and 28 of 16, and a multiple of 16, which TIFF tiles need [ours]."""
ColourTable = Mapping[int, tuple[int, int, int]]
"""Class value -> red, green, blue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterSpec:
    """What a raster to be written is.

    Args:
        crs: "EPSG:n" or WKT; None for a picture without place.
        transform: affine transform (a, b, c, d, e, f); None with ``crs`` None.
        width: columns.
        height: rows.
        count: bands.
        dtype: of all bands.
        nodata: value of empty pixels.
        colour_table: of one uint8 band of classes.
        block_px: side of the tiles, a multiple of 16.
        band_names: descriptions of the bands.
    """

    crs: str | None
    transform: Affine6 | None
    width: int
    height: int
    count: int = 1
    dtype: str = "uint8"
    nodata: float | None = None
    colour_table: ColourTable | None = None
    block_px: int = BLOCK_PX
    band_names: tuple[str, ...] = ()

    @classmethod
    def on(cls, grid: Grid, **others: Any) -> RasterSpec:  # noqa: ANN401 - the other fields, each of its own type
        """Return the spec of a raster on a grid."""
        return cls(crs=grid.crs, transform=grid.transform, width=grid.width, height=grid.height, **others)


@contextmanager
def create_geotiff(path: Path, spec: RasterSpec, *, tags: Mapping[str, str] | None = None) -> Iterator[rasterio.io.DatasetWriter]:
    """Open a tiled GeoTIFF for writing by windows; it appears under its name when the block ends without an error.

    Blocks that are never written take no space and read as no-data (0 without one).

    Raises:
        ResourceError: if the disk is full or the folder may not be written.
    """
    with atomic_path(path) as temporary, gdal_env(), _writing(path):
        with rasterio.open(temporary, "w", **_profile(spec)) as dataset:
            _describe(dataset, spec, tags or {})
            yield dataset
        _verify(path, temporary)


def _describe(dataset: rasterio.io.DatasetWriter, spec: RasterSpec, tags: Mapping[str, str]) -> None:
    if spec.count in {3, 4} and spec.dtype == "uint8":
        last = (ColorInterp.undefined,) if spec.count == 4 else ()
        dataset.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, *last)
    for index, name in enumerate(spec.band_names, 1):
        dataset.set_band_description(index, name)
    if spec.colour_table is not None:
        dataset.write_colormap(1, {value: (*rgb, 255) for value, rgb in spec.colour_table.items()})
    dataset.update_tags(**tags)


def _verify(path: Path, temporary: Path) -> None:
    """Raise if a block of the file that was just closed lies beyond its end."""
    try:
        with open_dataset(temporary) as dataset:
            check_blocks(dataset, temporary)
    except DataError as error:
        raise _disk_full(path, error.what) from error


def write_geotiff(path: Path, array: NDArray[Any], spec: RasterSpec, *, tags: Mapping[str, str] | None = None) -> None:
    """Write a whole array as a tiled GeoTIFF, atomically.

    Args:
        path: the file.
        array: (H, W), (H, W, 3) RGB or (bands, H, W).
        spec: what it is; its size and type must be the array's.
        tags: further TIFF tags, for example ``TIFFTAG_DATETIME``.

    Raises:
        ShapeError: if array and spec do not fit.
        ResourceError: if the disk is full or the folder may not be written.
    """
    bands = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0) if array.shape[-1] == 3 != array.shape[0] else array
    if bands.shape != (spec.count, spec.height, spec.width) or bands.dtype != np.dtype(spec.dtype):
        raise ShapeError(f"an array {array.shape} {array.dtype} is no {spec.count} x {spec.height} x {spec.width} {spec.dtype}")
    with create_geotiff(path, spec, tags=tags) as dataset:
        dataset.write(bands)


def write_cog(
    path: Path, source: Path | NDArray[Any], *, spec: RasterSpec | None = None, categorical: bool, block_px: int = BLOCK_PX
) -> None:
    """Write a cloud-optimised GeoTIFF with overviews, atomically.

    Args:
        path: the file.
        source: a tiled GeoTIFF, or an array (H, W), (H, W, 3) RGB or (bands, H, W).
        spec: needed with an array.
        categorical: values are classes: overviews take the most frequent one, else the average.
        block_px: side of the blocks, a multiple of 16.

    Raises:
        ShapeError: if array and spec do not fit.
        DataError: if the source cannot be read.
        ResourceError: if the disk is full or the folder may not be written.
    """
    if isinstance(source, Path):
        _copy_to_cog(path, source, categorical=categorical, block_px=block_px)
        return
    if spec is None:
        raise ShapeError("an array needs the spec of the raster it becomes")
    scratch = path.with_name(f".{path.stem}.scratch.tif")
    try:
        write_geotiff(scratch, source, spec)
        _copy_to_cog(path, scratch, categorical=categorical, block_px=block_px)
    finally:
        scratch.unlink(missing_ok=True)


def _copy_to_cog(path: Path, source: Path, *, categorical: bool, block_px: int) -> None:
    with atomic_path(path) as temporary, gdal_env(), open_dataset(source) as dataset, _writing(path):
        rasterio.shutil.copy(
            dataset,
            temporary,
            driver="COG",
            BLOCKSIZE=block_px,
            COMPRESS="DEFLATE",
            PREDICTOR="STANDARD" if not categorical else "NO",
            OVERVIEW_RESAMPLING="MODE" if categorical else "AVERAGE",
            SPARSE_OK="YES",
            BIGTIFF="IF_SAFER",
            NUM_THREADS="1",
        )
        _verify(path, temporary)


def _profile(spec: RasterSpec) -> dict[str, Any]:
    return {
        "driver": "GTiff",
        "width": spec.width,
        "height": spec.height,
        "count": spec.count,
        "dtype": spec.dtype,
        "crs": spec.crs,
        "transform": None if spec.transform is None else Affine(*spec.transform),
        "nodata": spec.nodata,
        "tiled": True,
        "blockxsize": spec.block_px,
        "blockysize": spec.block_px,
        "compress": "DEFLATE",
        "zlevel": 1,
        "interleave": "pixel",
        "sparse_ok": True,
        "bigtiff": "IF_SAFER",
        "alpha": "UNSPECIFIED",
    }


class _WriteErrors(logging.Handler):
    """Keeps what GDAL says about failed writes of this thread; on closing a file it says so nowhere else."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []
        self._ident = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.thread == self._ident and "signalled an error" in text and "writ" in text.lower():
            self.texts.append(text)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    logger, heard = logging.getLogger("rasterio._env"), _WriteErrors()
    level = logger.level
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)  # failures are logged there as information
    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        text = "; ".join(dict.fromkeys(str(cause) for cause in (error, error.__cause__) if cause))
        if any(word in text.lower() for word in ("write", "writing", "no space", "disk")):
            raise _disk_full(path, text) from error
        raise DataError(f"cannot be written ({text})", where=str(path)) from error
    finally:
        logger.setLevel(level)
        logger.removeHandler(heard)
    if heard.texts:
        raise _disk_full(path, heard.texts[0])


def _disk_full(path: Path, text: str) -> ResourceError:
    return ResourceError(
        f"cannot be written, the disk is full or failing ({text})",
        where=str(path),
        remedy="free some space and repeat the command; finished pieces are kept",
    )
