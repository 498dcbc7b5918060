"""From settings to the windows a task model learns from, in memory.

n windows, C classes, P side of a window in pixels.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgeartheye.adaptation.legend import IGNORED, Legend, refuse_unknown
from cgeartheye.adaptation.pairs import Labelled, LeftOut, find_pairs
from cgeartheye.adaptation.pictures import Picture, inspect, opened, read_labels, read_pixels
from cgeartheye.adaptation.sampling import Candidate, Grouping, Split, candidates, split
from cgeartheye.errors import DataError
from cgeartheye.inference.windowed import fill_holes
from cgeartheye.progress import Progress
from cgeartheye.settings.adapt import AdaptSettings

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Windows:
    """The windows that are used, training windows first.

    Attributes:
        images: (n, P, P, 3) uint8 RGB.
        labels: (n, P, P) uint8 class numbers, 255 not labelled.
        drawn: where they come from.
        gsd_m: ground sampling distance of the pictures, their median; None if nobody says.
        left_out: files that were not used.
        group_by: "picture" or "block", what was split.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    drawn: Split
    gsd_m: float | None
    left_out: list[LeftOut]
    group_by: str

    @property
    def train(self) -> list[int]:
        """Numbers of the training windows."""
        return list(range(len(self.drawn.train)))

    @property
    def validation(self) -> list[int]:
        """Numbers of the validation windows."""
        return list(range(len(self.drawn.train), len(self.labels)))

    @property
    def groups(self) -> list[str]:
        """Group of each validation window."""
        return [c.group for c in self.drawn.validation]


def load_windows(settings: AdaptSettings, window_px: int, progress: Progress) -> Windows:
    """Find, check, split and read.

    Raises:
        InputError: if a path does not exist.
        DataError: if no pair is usable, masks hold what nobody listed, or a class has no training pixel.
    """
    pairs, left_out = find_pairs(settings.pairs)
    pictures, broken = _usable(pairs)
    legend = Legend(settings.classes, settings.ignore)
    grouping = Grouping.choose(pictures, settings, window_px)
    found, unreadable = _candidates(pictures, legend, grouping, progress)
    drawn = split(found, settings)
    _refuse_missing(drawn, legend, grouping)
    images, labels = _read(pictures, [*drawn.train, *drawn.validation], legend)
    known = [p.gsd_m for p in pictures if p.gsd_m is not None]
    gsd_m = round(float(np.median(known)), 6) if known else None
    return Windows(images, labels, drawn, gsd_m, [*left_out, *broken, *unreadable], grouping.by)


def _usable(pairs: Sequence[Labelled]) -> tuple[list[Picture], list[LeftOut]]:
    pictures, left_out = [], []
    for labelled in pairs:
        try:
            pictures.append(inspect(labelled))
        except DataError as error:
            left_out.append(_because(error, labelled))
    if not pictures:
        raise DataError(
            f"no pair of picture and mask is usable; the first: {left_out[0].reason}",
            where=left_out[0].path,
            remedy=left_out[0].remedy,
        )
    return pictures, left_out


def _because(error: DataError, labelled: Labelled) -> LeftOut:
    LOG.warning("left out: %s", error)
    return LeftOut(error.where or str(labelled.image), error.what, error.remedy or "")


def _candidates(
    pictures: Sequence[Picture], legend: Legend, grouping: Grouping, progress: Progress
) -> tuple[list[Candidate], list[LeftOut]]:
    found: list[Candidate] = []
    left_out: list[LeftOut] = []
    unknown: Counter[str] = Counter()
    example = ""
    for index, picture in enumerate(progress.track(pictures, "masks", len(pictures))):
        before = len(unknown)
        try:
            found += list(candidates(picture, index, legend, grouping, unknown))
        except DataError as error:
            left_out.append(_because(error, picture.labelled))
        if not before and unknown:
            example = str(picture.labelled.mask)
    refuse_unknown(unknown, example)
    if not found:
        reason = left_out[0].reason if left_out else "every pixel is to be ignored"
        raise DataError(
            f"no labelled pixel is left: {reason}",
            where=left_out[0].path if left_out else str(pictures[0].labelled.mask),
            remedy=left_out[0].remedy if left_out else "check `classes` and `ignore`",
        )
    return found, left_out


def _refuse_missing(drawn: Split, legend: Legend, grouping: Grouping) -> None:
    seen = np.sum([c.counts for c in drawn.train], axis=0) if drawn.train else np.zeros(len(legend.classes))
    missing = [spec.name for spec, count in zip(legend.classes, seen, strict=True) if not count]
    if missing:
        raise DataError(
            f"no training window holds the class {', '.join(missing)}",
            where="adapt.classes",
            remedy="label some of it, take the class out, use more `windows`, or set a smaller `block_windows`",
        )
    if not drawn.validation:
        LOG.warning("all labels lie in one %s: nothing is left to validate with, so the last step is taken", grouping.by)
        return
    held = np.sum([c.counts for c in drawn.validation], axis=0)
    unseen = [spec.name for spec, count in zip(legend.classes, held, strict=True) if not count]
    if unseen:
        LOG.warning("the validation windows do not hold the class %s; its score stays empty", ", ".join(unseen))


def _read(
    pictures: Sequence[Picture], windows: Sequence[Candidate], legend: Legend
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    side = windows[0].window.height
    images = np.zeros((len(windows), side, side, 3), np.uint8)
    labels = np.full((len(windows), side, side), IGNORED, np.uint8)
    by_picture: dict[int, list[int]] = {}
    for k, candidate in enumerate(windows):
        by_picture.setdefault(candidate.picture, []).append(k)
    for picture, members in sorted(by_picture.items()):
        with opened(pictures[picture]) as (image, mask):
            for k in members:
                pixels, valid = read_pixels(image, windows[k].window)
                images[k] = fill_holes(pixels, valid)
                labels[k] = np.where(valid, read_labels(mask, windows[k].window, legend, Counter()), IGNORED)
    return images, labels
