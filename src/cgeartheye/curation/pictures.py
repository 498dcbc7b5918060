"""`source: images`: plain pictures in class folders or flat become places with one undated chip each."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cgeartheye.curation.filtering import encode_jpeg, fault_of, kind_of, quality_columns
from cgeartheye.curation.parts import cut_list
from cgeartheye.curation.pieces import Piece
from cgeartheye.errors import DataError
from cgeartheye.metrics.quality import measure_quality
from cgeartheye.seeding import derive, hash_share
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import Chip, Place

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP")
PICTURES_PER_PLACE: Final = 8
"""Plain pictures that make about as much work as one place of an archive with its dates."""
_MODES: Final = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Eight-bit modes of Pillow; others need a stretch that plain pictures do not name."""
_LEAST_PX: Final = 32


@dataclass(frozen=True)
class PictureTask:
    """A block of pictures: paths relative to the root, POSIX form."""

    names: tuple[str, ...]
    settings: CurateSettings


@dataclass(frozen=True)
class Found:
    """The pictures of a folder: those of the wanted part, and how many there are in all."""

    tasks: list[PictureTask]
    n_found: int
    n_part: int


def find_pictures(root: Path, settings: CurateSettings) -> Found:
    """List the pictures below ``root`` in order of name and keep the wanted part of the split.

    Raises:
        DataError: if there is none, or a folder cannot be listed.
    """
    names = sorted(name for name in _walk(root) if _included(name, settings.include))
    if not names:
        among = f" that matches {', '.join(settings.include)}" if settings.include else ""
        raise DataError(f"there is no picture here{among}", where=str(root), remedy=f"pictures end in {', '.join(SUFFIXES)}")
    part = [name for name in names if in_part(name, settings)]
    if not part:
        raise DataError(
            f"none of {len(names)} pictures is in the part {settings.split.part!r}", where=str(root), remedy="change curate.split"
        )
    blocks = cut_list(part, settings.work.piece_places * PICTURES_PER_PLACE, lambda name: derive(0, "end of a piece", name))
    return Found([PictureTask(tuple(block), settings) for block in blocks], len(names), len(part))


def in_part(name: str, settings: CurateSettings) -> bool:
    """Tell whether the picture ``name`` (relative path) is in the wanted part; its class and file name alone decide."""
    split = settings.split
    test = hash_share("/".join(Path(name).parts[-2:]), split.salt) < split.test_share
    return split.part == "all" or (split.part == "test") == test


def _included(name: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _walk(root: Path) -> list[str]:
    def fail(error: OSError) -> None:
        raise DataError(f"cannot be listed ({error.strerror})", where=str(error.filename), remedy="change its rights") from error

    found = []
    for base, folders, files in os.walk(root, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(base).relative_to(root)
        found += [(inside / n).as_posix() for n in files if n.lower().endswith(SUFFIXES) and not n.startswith(".")]
    return found


def cut_pictures(task: PictureTask) -> Piece:
    """Read a block of pictures; those that cannot be read, or are certainly bad, are left out with the reason."""
    places: list[Place] = []
    rejected: list[dict[str, Any]] = []
    counts = {"read": 0}
    for name in task.names:
        try:
            made = _read_picture(name, task.settings)
            counts["read"] += 1
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            made = [f"cannot be read: {error}"]
            counts["unreadable"] = counts.get("unreadable", 0) + 1
        places += [place for place in made if isinstance(place, Place)]
        for reason in (reason for reason in made if isinstance(reason, str)):
            rejected.append({"place": place_name(name), "scene": name, "date": None, "reason": reason})
            if not reason.startswith("cannot be read"):
                counts[kind_of(reason)] = counts.get(kind_of(reason), 0) + 1
    return Piece(tuple(places), tuple(rejected), {**counts, "chips": len(places)})


def _read_picture(name: str, settings: CurateSettings) -> list[Place | str]:
    """Return the places of a picture, one or one a square of it, and the reason in place of each that is certainly bad."""
    if settings.images is None:
        raise ValueError("the folder of pictures is not set")
    data = (settings.images / name).read_bytes()
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        if opened.mode not in _MODES:
            raise ValueError(f"its pixels are of the kind {opened.mode}, not 8-bit; convert it first")
        if min(opened.size) < _LEAST_PX:
            raise ValueError(f"it has {opened.width} x {opened.height} pixels; at least {_LEAST_PX} a side are needed")
        if settings.cut_px is not None and min(opened.size) > settings.cut_px:
            return _squares(name, *_to_rgb(opened, max(opened.size)), settings)
        as_stored = opened.format == "JPEG" and opened.mode == "RGB" and max(opened.size) <= settings.max_px
        as_stored = as_stored and opened.getexif().get(_ORIENTATION, 1) == 1
        image, valid = _to_rgb(opened, settings.max_px)
    return [_place(name, image, valid, settings, stored=data if as_stored else None)]


def _squares(name: str, image: NDArray[np.uint8], valid: NDArray[np.bool_], settings: CurateSettings) -> list[Place | str]:
    side = settings.cut_px or 0
    made = []
    for top in range(0, image.shape[0] - side + 1, side):
        for left in range(0, image.shape[1] - side + 1, side):
            part = (slice(top, top + side), slice(left, left + side))
            made.append(_place(name, image[part], valid[part], settings, at=f"_{top}_{left}"))
    return made


def _place(
    name: str,
    image: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    settings: CurateSettings,
    *,
    stored: bytes | None = None,
    at: str = "",
) -> Place | str:
    quality = measure_quality(image, valid)
    fault = fault_of(quality, settings.quality)
    if fault:
        return fault
    height, width = image.shape[:2]
    columns = {"scene": name, "width": width, "height": height, **quality_columns(quality)}
    jpeg = stored or encode_jpeg(image, settings.jpeg_quality)
    path = Path(name)
    return Place(place_name(str(path.with_stem(path.stem + at))), (Chip(jpeg, columns),), {"label": label_of(name)})


_ORIENTATION: Final = 0x0112


def _to_rgb(opened: Image.Image, max_px: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (H, W, 3) uint8 and (H, W) bool of a picture, upright and shrunk to ``max_px``."""
    picture = ImageOps.exif_transpose(opened)
    if "transparency" in picture.info or picture.mode in {"LA", "PA"}:
        picture = picture.convert("RGBA")
    if max(picture.size) > max_px:
        picture = picture.convert("RGBA" if picture.mode == "RGBA" else "RGB")
        picture.thumbnail((max_px, max_px), Image.Resampling.LANCZOS)
    valid = np.ones((picture.height, picture.width), bool)
    if picture.mode == "RGBA":
        valid = np.asarray(picture.getchannel("A")) > 0
    return np.asarray(picture.convert("RGB")), valid


def label_of(name: str) -> str | None:
    """Return the folder a picture lies in, or None for one that lies in the root."""
    parts = Path(name).parts
    return parts[-2] if len(parts) > 1 else None


def place_name(name: str) -> str:
    """Return the place's name for a picture: readable where the path is plain, and unique by a hash of it."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(Path(name).with_suffix("").parts[-2:])).strip("-")
    return f"{readable[:60]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
