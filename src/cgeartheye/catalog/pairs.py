"""Files that belong together before they are opened: PAN and MSS of one product, and files that are no pictures."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cgeartheye.catalog.dates import Entry
from cgeartheye.catalog.products import Product, pair_key, recognise
from cgeartheye.catalog.search import Found, LeftOut
from cgeartheye.rasters.opening import address_of

_NO_PICTURE: Final = {
    "mask": "is a mask of usable pixels, not a picture",
    "invisible": "holds near infrared, red edge and deep blue only",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to look at.

    Args:
        found: the file; of a pair the multispectral one.
        fingerprint: of the file, or of both files of a pair.
        product: what its name tells.
        entry: its row in the CSV file of dates.
        pan: the panchromatic partner.
    """

    found: Found
    fingerprint: str
    product: Product | None = None
    entry: Entry | None = None
    pan: Path | None = None


def pair_up(files: Sequence[tuple[Found, str]], *, jilin1: bool) -> list[Candidate | LeftOut]:
    """Return the candidates among files, and what is left out by its name alone, in the files' order.

    Of a Jilin-1 product, a PSH file (pan-sharpened by its maker) is taken alone; else PAN and MSS are a pair; MSS without PAN is
    a coarse scene; PAN without MSS has no colours.

    Args:
        files: and their fingerprints.
        jilin1: whether names of Jilin-1 are looked for.
    """
    products = [recognise(found.named, jilin1=jilin1) for found, _ in files]
    partners: dict[str, dict[str, tuple[Found, str]]] = defaultdict(dict)
    for (found, known), product in zip(files, products, strict=True):
        key = pair_key(found.named) if product is not None and product.maker == "Jilin-1" else None
        if key is not None and product is not None and product.kind is not None:
            partners[key].setdefault(product.kind, (found, known))
    return [
        _candidate(found, known, product, partners.get(pair_key(found.named) or "", {}))
        for (found, known), product in zip(files, products, strict=True)
    ]


def _candidate(
    found: Found, known: str, product: Product | None, partners: Mapping[str, tuple[Found, str]]
) -> Candidate | LeftOut:
    if product is not None and product.kind in _NO_PICTURE:
        return LeftOut(address_of(found.path), _NO_PICTURE[product.kind], "nothing: it is not needed")
    if product is None or product.maker != "Jilin-1" or product.kind not in {"pan", "multi"}:
        return Candidate(found, known, product)
    return _part(found, known, product, partners)


def _part(found: Found, known: str, product: Product, partners: Mapping[str, tuple[Found, str]]) -> Candidate | LeftOut:
    """Judge a panchromatic or multispectral file by what lies beside it."""
    if "sharpened" in partners:
        used = partners["sharpened"][0].named.name
        return LeftOut(address_of(found.path), f"its product is there pan-sharpened as {used}", "nothing: it is not needed")
    if product.kind == "multi" and "pan" in partners:
        pan, pan_known = partners["pan"]
        both = hashlib.sha256(f"{pan_known}\n{known}".encode()).hexdigest()
        return Candidate(found, f"pair {both}", product, pan=pan.path)
    if product.kind == "pan" and "multi" not in partners:
        wanted = found.named.name.replace("_PAN", "_MSS")
        remedy = "put its multispectral file beside it"
        return LeftOut(address_of(found.path), f"is panchromatic and has no {wanted} beside it", remedy)
    return Candidate(found, known, product)
