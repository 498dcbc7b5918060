"""Pictures and masks that belong together."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from cgeartheye.errors import DataError, InputError
from cgeartheye.settings.adapt import Pair

LOG = logging.getLogger(__name__)
PICTURES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
MASKS: Final = (".png", ".tif", ".tiff")
"""Kinds of files; a JPEG cannot hold a mask, because its compression changes values."""


@dataclass(frozen=True)
class Labelled:
    """A picture and its mask."""

    name: str
    """Unique among all pairs."""
    image: Path
    mask: Path
    gsd_m: float | None


@dataclass(frozen=True)
class LeftOut:
    """A file that was not used, why, and what mends it."""

    path: str
    reason: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        """Return the fields as JSON values."""
        return asdict(self)


def find_pairs(pairs: Iterable[Pair]) -> tuple[list[Labelled], list[LeftOut]]:
    """Pair files by their stem.

    Returns: the pairs in order of the settings and of names, and the files without a partner.

    Raises:
        InputError: if a path does not exist.
        DataError: if nothing pairs at all.
    """
    found: list[Labelled] = []
    left_out: list[LeftOut] = []
    for number, pair in enumerate(pairs):
        if pair.images.is_file() and pair.masks.is_file():
            found.append(Labelled(f"{number}/{pair.images.stem}", pair.images, pair.masks, pair.gsd_m))
            continue
        images, masks = _by_stem(pair.images, PICTURES), _by_stem(pair.masks, MASKS)
        both = sorted(images.keys() & masks.keys())
        found += [Labelled(f"{number}/{stem}", images[stem], masks[stem], pair.gsd_m) for stem in both]
        left_out += _alone(images, masks, pair.masks, "mask") + _alone(masks, images, pair.images, "picture")
    for item in left_out:
        LOG.warning("%s: %s", item.path, item.reason)
    if not found:
        raise DataError(
            "no picture has a mask of the same name",
            where=", ".join(sorted({item.path for item in left_out})[:3]) or None,
            remedy="name a mask like its picture, apart from the suffix (masks: png or tif)",
        )
    return found, left_out


def _by_stem(path: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if path.is_file():
        return {path.stem: path}
    if not path.is_dir():
        raise InputError("there is no such file or folder", where=str(path))
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    return {p.stem: p for p in files}


def _alone(own: dict[str, Path], others: dict[str, Path], place: Path, kind: str) -> list[LeftOut]:
    return [
        LeftOut(str(own[stem]), f"there is no {kind} {stem}.* in {place}", "add it, or take this file away")
        for stem in sorted(own.keys() - others.keys())
    ]
