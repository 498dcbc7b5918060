"""Describes the pictures of a set by every network and by plain numbers, one feature file a column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.evaluation.networks import Networks
from cgeartheye.evaluation.store import Column, load_array, save_array
from cgeartheye.inference.features import extract, prepare
from cgeartheye.probes.colour import joint_histogram, mean_std
from cgeartheye.probes.retrieval import grey_thumbnail
from cgeartheye.progress import Advance, Progress

Images = Iterable[NDArray[np.uint8]]
"""Pictures, each (H, W, 3) uint8 RGB."""

PLAIN: Final = {"colour_mean_std": mean_std, "joint_histogram": joint_histogram}
"""What needs no network, by the name of its rows."""
PIXELS: Final = Column("pixels", "pixels", 0)
"""Standardised grey pixels."""
_KEPT_BYTES: Final = 256 * 2**20


@dataclass(frozen=True)
class PictureSet:
    """Pictures that every column describes, in one order."""

    name: str
    start: Callable[[], Images]
    """Starts a pass over the pictures."""
    count: int
    size_px: int | None
    """Side that networks get; None: as they are. Plain numbers are taken of the stored picture, where they are best."""
    thumbnail_px: int | None = None
    """Side of the grey pixels, if the set is described by them too."""


@dataclass(frozen=True)
class Described:
    """Feature files of one set."""

    folder: Path

    def path(self, column: Column) -> Path:
        """Return where a column's features lie."""
        return self.folder / f"{column.stem}.npy"

    def features(self, column: Column) -> NDArray[np.float32]:
        """Return (n, d) float32 features, in the order of the set's pictures."""
        return load_array(self.path(column))


@dataclass(frozen=True)
class Describer:
    """Makes the feature files of any set that are missing, one pass over the pictures for each network."""

    networks: Networks
    readouts: tuple[str, ...]
    batch: int
    progress: Progress

    def columns(self, pictures: PictureSet) -> list[Column]:
        """Return all columns of a set, those of networks last."""
        return [column for columns in self._passes(pictures) for column in columns]

    def describe(self, pictures: PictureSet, folder: Path) -> Described:
        """Write the missing feature files of a set into ``folder``."""
        described, passes = Described(folder), self._passes(pictures)
        missing = [columns for columns in passes if not all(described.path(column).exists() for column in columns)]
        done = (len(passes) - len(missing)) * pictures.count
        source = _Source(pictures)
        with self.progress.task(f"{pictures.name}: features", len(passes) * pictures.count, done) as advance:
            for columns in missing:
                images = _counted(source.stored() if columns[0].method in PLAIN else source.sized(), advance)
                for column, values in zip(columns, self._run(columns, images, pictures.thumbnail_px), strict=True):
                    save_array(described.path(column), values)
        return described

    def _passes(self, pictures: PictureSet) -> list[list[Column]]:
        seeds = range(len(self.networks.known))
        learnt = [[Column(m, r, number) for r in self.readouts] for m in self.networks.methods for number in seeds]
        plain = [Column(method, "colour", 0) for method in PLAIN]
        return [[*plain, PIXELS] if pictures.thumbnail_px else plain, *learnt]

    def _run(self, columns: list[Column], images: Images, thumbnail_px: int | None) -> list[NDArray[np.float32]]:
        first = columns[0]
        if first.method in PLAIN:
            return _plain(images, thumbnail_px)
        network = self.networks.open(first.method, first.number)
        readouts = tuple(column.readout for column in columns)
        features = extract(network, images, size_px=None, readouts=readouts, batch=self.batch)
        return [features[readout] for readout in readouts]


class _Source:
    """A set's pictures as stored and brought to the networks' size, decoded once if the latter fit into a little memory."""

    def __init__(self, pictures: PictureSet) -> None:
        self._pictures = pictures
        side = pictures.size_px
        self._keeps = side is not None and 3 * pictures.count * side**2 <= _KEPT_BYTES
        self._kept: list[NDArray[np.uint8]] = []

    def stored(self) -> Images:
        """Yield the pictures as stored, each (H, W, 3) uint8."""
        kept = []
        for image in self._pictures.start():
            if self._keeps:
                kept.append(self._size(image))
            yield image
        self._kept = kept

    def sized(self) -> Images:
        """Yield the pictures at the networks' size, each (H, W, 3) uint8."""
        if self._keeps and not self._kept:
            self._kept = [self._size(image) for image in self._pictures.start()]
        yield from self._kept if self._keeps else map(self._size, self._pictures.start())

    def _size(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        sized = prepare(image, self._pictures.size_px).permute(1, 2, 0).numpy()
        return np.array(sized, order="C")


def _plain(images: Images, thumbnail_px: int | None) -> list[NDArray[np.float32]]:
    rows = []
    for image in images:
        row = [function(image) for function in PLAIN.values()]
        rows.append([*row, grey_thumbnail(image, thumbnail_px)] if thumbnail_px else row)
    return [np.stack(values) for values in zip(*rows, strict=True)]


def _counted(images: Images, advance: Advance) -> Iterator[NDArray[np.uint8]]:
    for image in images:
        yield image
        advance(1)
