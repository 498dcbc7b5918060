"""The one door to GDAL: which drivers may open a file, with which limits, and what is refused before a pixel is read.

Files on the network are opened only where the caller asks for it, by the paths that :func:`gdal_path` makes, with the same
drivers and limits, and nothing but that file: no sidecars.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import numpy as np
import rasterio
from rasterio.errors import RasterioError

from cgeartheye.errors import DataError

DRIVERS: Final = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
    b"\xff\x4f\xff\x51": "JP2OpenJPEG",
}
"""First bytes -> the one driver that may open the file. GeoTIFF (COG included) and JPEG 2000 hold their pixels themselves,
unlike VRT, GTI or WMS, which can point at any file or address."""
PICTURE_DRIVERS: Final = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"}
"""Pictures without georeference, opened only where asked for."""
CACHE_BYTES: Final = 64 * 2**20
"""GDAL's block cache. rasterio takes bytes: 64 would mean 64 bytes and decode every block again."""
MAX_PIXELS: Final = 10**11
"""Larger pictures than 316,000 x 316,000 are taken for damage or malice [ours]."""
MAX_BLOCK_BYTES: Final = 2**29
"""Largest block that is decoded; a picture stored as one strip would need all its memory at once [ours]."""
COPY_AGAIN: Final = "the file is cut short or damaged: copy or download it again, or leave it out"
SCHEMES: Final = {"s3": "/vsis3/", "gs": "/vsigs/", "gcs": "/vsigs/", "az": "/vsiaz/", "abfs": "/vsiaz/"}
"""Schemes of buckets -> GDAL's virtual paths of them."""
_WEB: Final = "/vsicurl/"
_NETWORK_DRIVERS: Final = ("GTiff", "JP2OpenJPEG")
_SIDECARS: Final = (".ovr", ".msk", ".msk.ovr")


@contextmanager
def gdal_env() -> Iterator[None]:
    """Hold GDAL's options for this thread: one thread, a small cache, no folder listings, no network."""
    with rasterio.Env(
        GDAL_CACHEMAX=CACHE_BYTES,
        GDAL_NUM_THREADS="1",
        GDAL_DISABLE_READDIR_ON_OPEN="TRUE",  # sidecars are still found by name, folders of 10,000 files are not listed
        CPL_VSIL_CURL_ALLOWED_EXTENSIONS=".none",
        GDAL_HTTP_MAX_RETRY="3",
        GDAL_HTTP_TIMEOUT="60",
    ):
        yield


def gdal_path(address: str) -> Path:
    """Return the path of a file on the network: GDAL's own of a bucket, a quoted one of a web server, as no path holds "//".

    Raises:
        DataError: if the address is of another kind than s3, gs, az, http and https.
    """
    scheme, _, rest = address.partition("://")
    if scheme in {"http", "https"}:
        return Path(_WEB + quote(address, safe=""))
    if scheme not in SCHEMES:
        raise DataError(
            f"its address is of the kind {scheme}, not {', '.join((*SCHEMES, 'http', 'https'))}",
            where=address,
            remedy="copy it to this machine",
        )
    return Path(SCHEMES[scheme] + rest)


def address_of(path: Path) -> str:
    """Return the address that :func:`gdal_path` was given, or a local path as it is."""
    text = str(path)
    if text.startswith(_WEB):
        return unquote(text.removeprefix(_WEB))
    for scheme, prefix in SCHEMES.items():
        if text.startswith(prefix):
            return f"{scheme}://{text.removeprefix(prefix)}"
    return text


def is_remote(path: Path) -> bool:
    """Tell whether a path is one of those that :func:`gdal_path` makes."""
    return str(path).startswith((_WEB, *SCHEMES.values()))


def open_dataset(
    path: Path, *, plain: bool = False, overview: int | None = None, network: bool = False
) -> rasterio.DatasetReader:
    """Open a raster for reading; call it inside :func:`gdal_env`.

    Args:
        path: the file; a virtual path of GDAL's only with ``network``.
        plain: allow PNG and JPEG, too.
        overview: open this overview (0 is the finest) as if it were the picture.
        network: allow what :func:`gdal_path` makes.

    Raises:
        DataError: if there is no such file, no allowed driver knows it, its header is broken or its size is beyond limits.
    """
    if network and is_remote(path):
        return _open_remote(path, overview)
    absolute = os.path.abspath(path)  # noqa: PTH100 - a name, not a file: symbolic links stay as the user wrote them
    if "://" in str(path) or str(path).startswith(("http:", "https:", "s3:")) or absolute.startswith("/vsi"):
        raise DataError(
            "is not a file on this machine",
            where=str(path),
            remedy="download the picture first; only scenes of a catalogue made with catalog.network are read over the network",
        )
    try:
        driver = _driver(path, plain=plain)
        _refuse_foreign_sidecars(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    options = {} if overview is None else {"overview_level": overview}
    try:
        dataset = rasterio.open(absolute, driver=driver, sharing=False, **options)
    except RasterioError as error:
        raise DataError(f"its header is damaged ({error})", where=str(path), remedy=COPY_AGAIN) from error
    try:
        _refuse_bombs(path, dataset)
    except DataError:
        dataset.close()
        raise
    return dataset


def _open_remote(path: Path, overview: int | None) -> rasterio.DatasetReader:
    options = {} if overview is None else {"overview_level": overview}
    text = str(path)
    name = f"/vsicurl/{address_of(path)}" if text.startswith(_WEB) else text
    fault: RasterioError | None = None
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", CPL_VSIL_CURL_ALLOWED_FILENAME=name):
        for driver in _NETWORK_DRIVERS:
            try:
                dataset = rasterio.open(name, driver=driver, sharing=False, **options)
            except RasterioError as error:
                fault = fault or error
                continue
            try:
                _refuse_bombs(path, dataset)
            except DataError:
                dataset.close()
                raise
            return dataset
    raise DataError(
        f"cannot be opened over the network as GeoTIFF, COG or JPEG 2000 ({fault})",
        where=address_of(path),
        remedy="check the address and the access rights (GDAL's usual variables, for example AWS_ACCESS_KEY_ID), or copy it here",
    ) from fault


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, PermissionError):
        return DataError("may not be read", where=str(path), remedy="change its rights (chmod u+r) and try again")
    if isinstance(error, FileNotFoundError | IsADirectoryError):
        return DataError("there is no such file", where=str(path), remedy="check the path")
    return DataError(f"cannot be opened ({error.strerror})", where=str(path), remedy=COPY_AGAIN)


def _driver(path: Path, *, plain: bool) -> str:
    with path.open("rb") as handle:
        head = handle.read(64)
    for magic, driver in (DRIVERS | PICTURE_DRIVERS if plain else DRIVERS).items():
        if head.startswith(magic):
            return driver
    if not head:
        raise DataError("is empty", where=str(path), remedy=COPY_AGAIN)
    if b"<VRT" in head or b"<GDAL" in head:
        raise DataError(
            "is a virtual raster (XML that points at other files), not a picture",
            where=str(path),
            remedy="give the files it is made of, or write it out: gdal_translate -of COG IN OUT.tif",
        )
    raise DataError("is no GeoTIFF, COG or JPEG 2000", where=str(path), remedy="convert it: gdal_translate -of COG IN OUT.tif")


def _refuse_foreign_sidecars(path: Path) -> None:
    """GDAL opens overviews and masks beside a file with any driver; only TIFF ones cannot point elsewhere."""
    for suffix in _SIDECARS:
        sidecar = path.with_name(path.name + suffix)
        if sidecar.is_file():
            with sidecar.open("rb") as handle:
                known = DRIVERS.get(handle.read(4)) == "GTiff"
            if not known:
                raise DataError(f"its sidecar {sidecar.name} is no TIFF", where=str(path), remedy="remove the sidecar")
    companion = path.with_name(path.name + ".aux.xml")
    if companion.is_file() and b"OVERVIEW_FILE" in companion.read_bytes():
        raise DataError(f"its sidecar {companion.name} points at another file", where=str(path), remedy="remove the sidecar")


def _refuse_bombs(path: Path, dataset: rasterio.DatasetReader) -> None:
    if not dataset.count:
        raise DataError("holds no raster band", where=str(path), remedy="give the sub-dataset as a file of its own")
    pixels = dataset.width * dataset.height
    if pixels > MAX_PIXELS:
        raise DataError(
            f"declares {dataset.width} x {dataset.height} pixels, more than {MAX_PIXELS:.0e}",
            where=str(path),
            remedy="check the file; a mosaic of this size must be given as its parts",
        )
    height, width = dataset.block_shapes[0]
    bands = dataset.count if dataset.interleaving and dataset.interleaving.name == "pixel" else 1
    block = height * width * bands * np.dtype(dataset.dtypes[0]).itemsize
    if block > MAX_BLOCK_BYTES:
        raise DataError(
            f"is stored in blocks of {width} x {height} pixels, {block / 1e6:.0f} MB each",
            where=str(path),
            remedy="store it in tiles: gdal_translate -of COG IN OUT.tif",
        )
