"""Scenes of STAC catalogues: static ones, walked from their root, and APIs, searched page by page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import pystac
import requests
from pystac.link import Link
from pystac.stac_io import DefaultStacIO
from pystac_client import Client
from pystac_client.exceptions import APIError

from cgeartheye.catalog.search import Found, LeftOut, Listing, Told
from cgeartheye.errors import DataError, InputError, ResourceError
from cgeartheye.rasters.opening import gdal_path
from cgeartheye.settings.catalog import CatalogSettings

MAX_BYTES: Final = 256 * 2**20
"""Larger JSON files are refused [ours]."""
TIMEOUT_S: Final = 60
"""Seconds a server may stay silent [ours]."""
NO_NETWORK: Final = "set catalog.network: true if it may be read from the network"
_RASTERS: Final = ("tiff", "geotiff", "jp2")
_BROKEN: Final = (OSError, ValueError, KeyError, TypeError, AttributeError, pystac.STACError, pystac.STACTypeError)


class _Reader(DefaultStacIO):
    """Reads local files, and addresses only where the network is allowed; nothing but http and https."""

    def __init__(self, *, network: bool) -> None:
        super().__init__()
        self._network = network

    def read_text_from_href(self, href: str) -> str:
        if "://" not in href:
            path = Path(href)
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"{href} is larger than {MAX_BYTES >> 20} MiB")
            return path.read_text(encoding="utf-8")
        if not self._network:
            raise PermissionError(NO_NETWORK)
        if urlsplit(href).scheme not in {"http", "https"}:
            raise ValueError(f"{href} is no web address")
        with urlopen(Request(href), timeout=TIMEOUT_S) as answer:  # noqa: S310 - the scheme was checked
            data: bytes = answer.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError(f"{href} is larger than {MAX_BYTES >> 20} MiB")
        return data.decode()


def walk_static(root: str, settings: CatalogSettings, listing: Listing) -> None:
    """Add the pictures of a static catalogue, collection or item to a listing; a broken part costs only itself.

    Args:
        root: path or URL of the JSON file.
        settings: of the stage.
        listing: what was found before.

    Raises:
        InputError: if the root cannot be read as STAC.
    """
    reader = _Reader(network=settings.network)
    try:
        first = reader.read_stac_object(root)
    except (*_BROKEN, URLError, RecursionError) as error:
        raise InputError(f"cannot be read as STAC ({error})", where=root, remedy="check catalog.scenes; " + NO_NETWORK) from error
    for item, licence in _items(first, reader, listing):
        _add(item, licence, settings, listing)


def _items(first: pystac.STACObject, reader: _Reader, listing: Listing) -> Iterator[tuple[pystac.Item, str | None]]:
    """Yield items and their collection's licence, in the order of the links, no file twice."""
    waiting: list[tuple[pystac.STACObject, str | None]] = [(first, None)]
    seen = {first.get_self_href()}
    while waiting:
        found, licence = waiting.pop()
        if isinstance(found, pystac.Item):
            yield found, licence
            continue
        own = found.license if isinstance(found, pystac.Collection) else None
        below: list[tuple[pystac.STACObject, str | None]] = []
        for link in found.get_links("child") + found.get_links("item"):
            part = _resolve(link, reader, seen, listing)
            if part is not None:
                below.append((part, own or licence))
        waiting.extend(reversed(below))


def _resolve(link: Link, reader: _Reader, seen: set[str | None], listing: Listing) -> pystac.STACObject | None:
    href = link.get_absolute_href() or link.href
    if href in seen:
        return None
    seen.add(href)
    try:
        return reader.read_stac_object(href)
    except (*_BROKEN, URLError, RecursionError) as error:
        remedy = NO_NETWORK if isinstance(error, PermissionError) else "mend or remove it"
        listing.left_out.append(LeftOut(href, f"cannot be read as STAC ({error})", remedy))
        return None


def search_api(settings: CatalogSettings, listing: Listing, *, say: Callable[[str], None]) -> None:
    """Add the pictures that a STAC API finds to a listing, in order of item ids.

    Args:
        settings: of the stage, with ``stac_api.url``.
        listing: what was found before.
        say: told how many items there are.

    Raises:
        InputError: if the address is no STAC API, or the search is wrong.
        ResourceError: if the network or the server fails.
    """
    api = settings.stac_api
    if api.url is None:
        return
    try:
        client = Client.open(api.url, timeout=TIMEOUT_S)
        licences = {entry.id: entry.license for entry in client.get_collections()}
        query = client.search(
            max_items=api.max_items, collections=list(api.collections) or None, bbox=api.bbox_deg, datetime=api.period, limit=200
        )
        items = {
            f"{item['collection']}/{item['id']}" if item.get("collection") else item["id"]: item
            for item in query.items_as_dicts()
        }
    except (APIError, requests.RequestException) as error:
        raise ResourceError(
            f"the API does not answer ({_short(error)})", where=api.url, remedy="try again later, or check its address"
        ) from error
    except (*_BROKEN, NotImplementedError, RecursionError) as error:
        raise InputError(
            f"cannot be searched as a STAC API ({_short(error)})", where=api.url, remedy="check catalog.stac_api"
        ) from error
    say(f"{len(items)} items of {api.url}")
    for key, body in sorted(items.items()):
        try:
            item = pystac.Item.from_dict(body, preserve_dict=False)
        except (*_BROKEN, RecursionError) as error:
            listing.left_out.append(LeftOut(f"{api.url}/{key}", f"is no STAC item ({error})", "tell its maker"))
            continue
        _add(item, licences.get(item.collection_id or ""), settings, listing)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _add(item: pystac.Item, licence: str | None, settings: CatalogSettings, listing: Listing) -> None:
    where = item.get_self_href() or item.id
    try:
        href = _picture(item, settings.stac_assets)
        told = Told(item.id, _moment(item), item.properties.get("license") or licence, _clouds(item), _fingerprint(item, href))
        listing.files.append(_file(href, item.id, told, network=settings.network))
    except DataError as error:
        listing.left_out.append(LeftOut.by(where, error))


def _picture(item: pystac.Item, names: Sequence[str]) -> str:
    """Return the address of an item's picture."""
    assets = item.get_assets()
    rasters = [name for name, asset in assets.items() if _is_raster(asset)]
    chosen = next((name for name in names if name in assets), None)
    if chosen is None:
        data = [name for name in rasters if "data" in (assets[name].roles or ())] or rasters
        chosen = data[0] if len(data) == 1 else None
    href = assets[chosen].get_absolute_href() if chosen is not None else None
    if href is None:
        raise DataError(
            f"its picture is none of {', '.join(names)}; its assets are {', '.join(assets) or 'none'}",
            where=item.id,
            remedy="name the right one: catalog.stac_assets",
        )
    return href


def _is_raster(asset: pystac.Asset) -> bool:
    media, ending = (asset.media_type or "").lower(), PurePosixPath(urlsplit(asset.href).path).suffix.lower()
    return any(word in media for word in _RASTERS) or (not media and ending in {".tif", ".tiff", ".jp2"})


def _file(href: str, name: str, told: Told, *, network: bool) -> Found:
    scheme = urlsplit(href).scheme
    if scheme in {"", "file"}:
        path = Path(unquote(urlsplit(href).path)) if scheme else Path(href)
        return Found(path, path.name, Told(told.id, told.moment, told.licence, told.cloud_share))
    if not network:
        raise DataError(f"lies on the network ({href})", where=name, remedy=NO_NETWORK)
    return Found(gdal_path(href), PurePosixPath(urlsplit(href).path).name, told)


def _moment(item: pystac.Item) -> Any:  # noqa: ANN401 - a datetime in UTC or None; pystac is untyped here
    start, end = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    return item.datetime or (start + (end - start) / 2 if start and end else start)


def _clouds(item: pystac.Item) -> float | None:
    value = item.properties.get("eo:cloud_cover")
    return float(value) / 100 if isinstance(value, int | float) and 0 <= value <= 100 else None


def _fingerprint(item: pystac.Item, href: str) -> str:
    told: Iterable[tuple[str, Any]] = (
        (key, item.properties.get(key)) for key in ("updated", "created", "version") if item.properties.get(key)
    )
    return json.dumps(["address", href, *told], ensure_ascii=False)
