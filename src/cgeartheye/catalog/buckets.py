"""Scenes in buckets and on web servers: listed by fsspec, read by GDAL where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import fsspec

from cgeartheye.catalog.search import Found, LeftOut, Listing, Told
from cgeartheye.errors import DataError, InputError, ResourceError
from cgeartheye.rasters.opening import SCHEMES, gdal_path

_EXTRAS: Final = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
}


def list_bucket(address: str, extensions: Sequence[str], listing: Listing) -> None:
    """Add the files below an address to a listing, in order of their names; hidden ones are passed over.

    Args:
        address: s3://bucket/folder, gs://, az://, or https://host/folder/ of a server that lists its folders; or one file.
        extensions: endings in lower case, with their dots.
        listing: what was found before.

    Raises:
        InputError: if the address is of an unknown kind, or there is nothing.
        ResourceError: if the library for this kind of bucket is missing, or the network fails.
    """
    scheme = address.partition("://")[0]
    if scheme not in {*SCHEMES, "http", "https"}:
        kinds = ", ".join((*SCHEMES, "http", "https"))
        raise InputError(
            f"addresses of the kind {scheme} are not known; {kinds} are", where=address, remedy="check catalog.scenes"
        )
    if PurePosixPath(address).suffix.lower() in extensions:
        listing.files.append(Found(gdal_path(address), PurePosixPath(address).name, Told(fingerprint=f"address {address}")))
        return
    entries = _entries(address, scheme)
    if not entries:
        raise InputError("there is nothing at this address", where=address, remedy="check catalog.scenes and your access rights")
    for name, url, info in entries:
        if any(part.startswith(".") for part in PurePosixPath(name).parts):
            continue
        if PurePosixPath(name).suffix.lower() not in extensions:
            listing.ignored += 1
            continue
        try:
            listing.files.append(Found(gdal_path(url), name, Told(fingerprint=_fingerprint(url, info))))
        except DataError as error:
            listing.left_out.append(LeftOut.by(url, error))


def _entries(address: str, scheme: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (name below the address, address, what the listing tells) of all files, sorted by name."""
    try:
        system, root = fsspec.core.url_to_fs(address)
        found: dict[str, dict[str, Any]] = system.find(root, detail=True)
    except ImportError as error:
        raise ResourceError(
            f"listing {scheme}:// needs {_EXTRAS[scheme]}", where=address, remedy=f"pip install {_EXTRAS[scheme]}"
        ) from error
    except FileNotFoundError:
        return []
    except Exception as error:
        raise ResourceError(
            f"cannot be listed ({type(error).__name__}: {error})",
            where=address,
            remedy="check the address, the network and your access rights",
        ) from error
    base = root.rstrip("/") + "/"
    return sorted((path.removeprefix(base), system.unstrip_protocol(path), info) for path, info in found.items())


def _fingerprint(url: str, info: dict[str, Any]) -> str:
    told = {key: info[key] for key in ("ETag", "etag", "size", "LastModified", "mtime", "updated") if info.get(key) is not None}
    return " ".join([f"address {url}", *(f"{key} {value}" for key, value in sorted(told.items()))])
