"""Labelled pictures in class folders, split into a bank and a test part before anything is trained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cgeartheye.errors import DataError, InputError
from cgeartheye.seeding import hash_share

SUFFIXES: Final = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}
_FORMATS: Final = ("JPEG", "PNG", "TIFF")
_DEEP_MODES: Final = ("I", "F", "I;16")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One labelled picture."""

    name: str
    """``<class>/<file name>``."""
    path: Path
    """Where it lies."""
    label: int
    """Place of its class in the alphabetical order."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A picture that is not used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class LabelledPictures:
    """A data set with its split."""

    classes: tuple[str, ...]
    """Class names in alphabetical order."""
    train: tuple[ImageRecord, ...]
    """The bank: what probes may learn from."""
    test: tuple[ImageRecord, ...]
    """What figures are measured on."""
    left_out: tuple[LeftOut, ...]
    """Pictures that cannot be read."""
    duplicates: int
    """Pictures dropped from the bank because the test part has the same pixels."""


def read_class_folder(
    root: Path, *, split: Literal["folders", "hash"], test_share: float = 0.3, salt: str = ""
) -> LabelledPictures:
    """List the pictures below ``root``, check that each can be read, and split them.

    ``hash``: ``root/<class>/*``; a picture is in the test part if the hash of ``<class>/<file name>`` is below ``test_share``,
    so that the split never depends on what else is there. ``folders``: ``root/{train,test}/<class>/*``.

    Args:
        root: the data set's folder.
        split: kind of split.
        test_share: share of test pictures, in (0, 1), for ``hash``.
        salt: another salt gives another split, for ``hash``.

    Raises:
        InputError: if the folder is absent or has another layout.
        DataError: if no picture remains in a part, or fewer than two classes.
    """
    if not root.is_dir():
        raise InputError("there is no such folder", where=str(root))
    if split == "folders":
        parts = {part: _part(root / part) for part in ("train", "test")}
    else:
        found = list_class_folder(root)
        tested = {entry: hash_share(entry[0], salt) < test_share for entry in found}
        parts = {"train": [e for e in found if not tested[e]], "test": [e for e in found if tested[e]]}
    classes = tuple(sorted({name.split("/")[0] for entries in parts.values() for name, _ in entries}))
    left_out: list[LeftOut] = []
    test = dict(_readable(parts["test"], classes, left_out))
    bank = dict(_readable(parts["train"], classes, left_out))
    in_test = set(test.values())
    train = tuple(record for record, digest in bank.items() if digest not in in_test)
    pictures = LabelledPictures(classes, train, tuple(test), tuple(left_out), len(bank) - len(train))
    _check(pictures, root)
    return pictures


def list_class_folder(root: Path) -> list[tuple[str, Path]]:
    """Return name ``<class>/<file name>`` and path of every picture in the class folders of ``root``, in order of name.

    Raises:
        InputError: if there is no such folder.
    """
    if not root.is_dir():
        raise InputError("there is no such folder", where=str(root))
    classes = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [
        (f"{c.name}/{p.name}", p)
        for c in classes
        for p in sorted(c.iterdir())
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file()
    ]


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Return a picture as (H, W, 3) uint8 RGB; grey and palettes are converted, alpha is dropped,
    and a picture that says it lies on its side is turned.

    Raises:
        DataError: if it cannot be decoded whole, is no JPEG, PNG or TIFF, has more than 8 bits, or too many pixels.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.mode.startswith(_DEEP_MODES):
                raise DataError(
                    f"has more than 8 bits a channel (mode {image.mode})", where=str(path), remedy="stretch it to 8 bits"
                )
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot be read as a picture ({error})", where=str(path)) from error


def read_pictures(records: Iterable[ImageRecord]) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures of ``records`` in order, each (H, W, 3) uint8 RGB, one in memory at a time."""
    return (read_picture(record.path) for record in records)


def _part(folder: Path) -> list[tuple[str, Path]]:
    if not folder.is_dir():
        raise InputError("there is no such folder", where=str(folder), remedy="the split 'folders' wants train/ and test/ inside")
    return list_class_folder(folder)


def _readable(
    entries: Sequence[tuple[str, Path]], classes: tuple[str, ...], left_out: list[LeftOut]
) -> Iterator[tuple[ImageRecord, str]]:
    label = {name: number for number, name in enumerate(classes)}
    for name, path in entries:
        try:
            pixels = read_picture(path)
        except DataError as error:
            left_out.append(LeftOut(name, error.what))
            continue
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        yield ImageRecord(name, path, label[name.split("/")[0]]), digest


def _check(pictures: LabelledPictures, root: Path) -> None:
    remedy = "it must be root/<class>/*.jpg|png|tif, or root/train/<class>/... and root/test/<class>/... with split: folders"
    if len({record.label for record in pictures.train}) < 2:
        why = f"; {len(pictures.left_out)} pictures cannot be read" if pictures.left_out else ""
        raise DataError(f"has fewer than two classes to learn from{why}", where=str(root), remedy=remedy)
    if not pictures.test:
        raise DataError("has no test picture", where=str(root), remedy=remedy)
    learned = {record.label for record in pictures.train}
    lost = sorted({pictures.classes[r.label] for r in pictures.test if r.label not in learned})
    if lost:
        raise DataError(f"has test pictures of classes without any to learn from: {', '.join(lost)}", where=str(root))
