"""All sources of a catalogue as one listing: folders, files, buckets, STAC catalogues and a STAC API."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cgeartheye.catalog.buckets import list_bucket
from cgeartheye.catalog.search import Listing, search
from cgeartheye.catalog.stac import NO_NETWORK, search_api, walk_static
from cgeartheye.errors import InputError
from cgeartheye.settings.catalog import CatalogSettings

_STAC = ".json"


def gather(settings: CatalogSettings, out: Path, cache: Path, *, say: Callable[[str], None]) -> Listing:
    """List the files of every source, each file once, in the order of the sources.

    Args:
        settings: of the stage.
        out: the stage's own folder, passed over.
        cache: folder of sharpened scenes, passed over.
        say: told what a STAC API found.

    Raises:
        InputError: if a source is not there or not known, or is on the network and ``settings.network`` is off.
        ResourceError: if the network fails.
    """
    whole = Listing()
    for source in settings.scenes:
        listing = Listing()
        if str(source).lower().endswith(_STAC):
            if isinstance(source, str):
                _ask(source, settings)
            walk_static(str(source), settings, listing)
        elif isinstance(source, str) and "://" in source:
            _ask(source, settings)
            list_bucket(source, settings.extensions, listing)
        else:
            listing = search([Path(source)], settings.extensions, out=out, cache=cache)
        _add(whole, listing)
    if settings.stac_api.url is not None:
        _ask(settings.stac_api.url, settings)
        listing = Listing()
        search_api(settings, listing, say=say)
        _add(whole, listing)
    return whole


def _ask(address: str, settings: CatalogSettings) -> None:
    if not settings.network:
        raise InputError("is on the network", where=address, remedy=NO_NETWORK)


def _add(whole: Listing, more: Listing) -> None:
    known = {found.path for found in whole.files}
    whole.files.extend(found for found in more.files if found.path not in known)
    whole.left_out.extend(more.left_out)
    whole.ignored += more.ignored
