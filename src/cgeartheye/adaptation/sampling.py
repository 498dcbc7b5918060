"""Which windows of the labelled pictures are used, and which of them validate.

Windows lie side by side from the first pixel of each picture and never overlap. What is split is ground, never windows:
groups are whole pictures or blocks of ground, and several dates of one ground belong to one group.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgeartheye.adaptation.legend import IGNORED, Legend
from cgeartheye.adaptation.pictures import Picture, opened, read_labels
from cgeartheye.geometry.windows import Window
from cgeartheye.seeding import stream
from cgeartheye.settings.adapt import AdaptSettings

TRIALS = 32
"""Splits that are drawn; the one whose validation shares of classes are closest to all is taken."""


@dataclass(frozen=True)
class Candidate:
    """A window with labels.

    Attributes:
        picture: index of its picture.
        window: its pixels; may reach outside the picture.
        counts: (C,) labelled pixels by class.
        group: name of its group.
        around: groups of the eight windows around it.
    """

    picture: int
    window: Window
    counts: NDArray[np.int64]
    group: str
    around: frozenset[str]


@dataclass(frozen=True)
class Split:
    """Windows by their use."""

    train: list[Candidate]
    validation: list[Candidate]


def candidates(picture: Picture, index: int, legend: Legend, grouping: Grouping, unknown: Counter[str]) -> Iterator[Candidate]:
    """Yield the windows of a picture in which anything is labelled; unknown mask values are counted in ``unknown``."""
    side, classes = grouping.window_px, len(legend.classes)
    with opened(picture) as (_, mask):
        for row in range(0, picture.height, side):
            for col in range(0, picture.width, side):
                window = Window(row, col, side, side)
                labels = read_labels(mask, window, legend, unknown)
                counts = np.bincount(labels[labels != IGNORED], minlength=classes)
                if counts.any():
                    group, around = grouping.of(picture, index, window)
                    yield Candidate(index, window, counts, group, around)


@dataclass(frozen=True)
class Grouping:
    """How windows fall into groups.

    Attributes:
        by: "picture" or "block".
        window_px: side of a window.
        block_windows: side of a block in windows.
    """

    by: str
    window_px: int
    block_windows: int

    @classmethod
    def choose(cls, pictures: Sequence[Picture], settings: AdaptSettings, window_px: int) -> Grouping:
        """Resolve ``auto``: blocks of ground where pictures are georeferenced or few, else pictures."""
        by = settings.group
        if by == "auto":
            by = "block" if len(pictures) < 10 or any(p.place for p in pictures) else "picture"
        return cls(by, window_px, settings.block_windows)

    def of(self, picture: Picture, index: int, window: Window) -> tuple[str, frozenset[str]]:
        """Return the group of a window, and those of the eight windows around it."""
        if self.by == "picture":
            return str(index), frozenset()
        centre_row, centre_col = window.row + window.height / 2, window.col + window.width / 2
        steps = [(dr, dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1) if dr or dc]
        side = self.window_px
        around = frozenset(self._block(picture, index, centre_row + dr * side, centre_col + dc * side) for dr, dc in steps)
        return self._block(picture, index, centre_row, centre_col), around

    def _block(self, picture: Picture, index: int, row: float, col: float) -> str:
        side = self.window_px * self.block_windows
        ground = picture.ground(row, col)
        if ground is None or picture.place is None:
            return f"{index} {math.floor(row / side)} {math.floor(col / side)}"
        crs, transform = picture.place
        side_ground = side * abs(transform[0])
        return f"{crs} {math.floor(ground[1] / side_ground)} {math.floor(ground[0] / side_ground)}"


def split(found: Sequence[Candidate], settings: AdaptSettings) -> Split:
    """Split the groups into training and validation, leave a gap of one window between them, and draw the windows.

    Returns: at most ``settings.windows`` windows in order of pictures. Training windows are drawn with odds that grow with
        rare classes, validation windows with equal odds, because they are to estimate. With one group nothing validates.
    """
    held = _validation_groups(found, settings)
    validation = [c for c in found if c.group in held]
    train = [c for c in found if c.group not in held and not (c.around & held)]
    n_validation = min(len(validation), max(1, round(settings.windows * settings.validation_share)))
    n_train = min(len(train), settings.windows - n_validation) if validation else min(len(train), settings.windows)
    even = np.ones(len(validation))
    return Split(
        train=_draw(train, _odds(train), n_train, settings.seed, "training windows"),
        validation=_draw(validation, even, n_validation, settings.seed, "validation windows"),
    )


def _validation_groups(found: Sequence[Candidate], settings: AdaptSettings) -> frozenset[str]:
    groups = sorted({c.group for c in found})
    if len(groups) < 2:
        return frozenset()
    by_group = {group: np.zeros(len(found[0].counts), np.int64) for group in groups}
    for candidate in found:
        by_group[candidate.group] += candidate.counts
    counts = np.stack([by_group[group] for group in groups])  # (groups, C)
    size = min(len(groups) - 1, max(1, round(settings.validation_share * len(groups))))
    trials = [stream(settings.seed, "validation groups", t).permutation(len(groups))[:size] for t in range(TRIALS)]
    best = min(trials, key=lambda chosen: _mismatch(counts, chosen))
    return frozenset(groups[k] for k in best)


def _mismatch(counts: NDArray[np.int64], chosen: NDArray[np.int64]) -> float:
    """How far the classes of the chosen groups are from all; a class that only the chosen ones have weighs most."""
    held, every = counts[chosen].sum(0), counts.sum(0)
    gone = np.count_nonzero((every > 0) & (held == every))
    unseen = np.count_nonzero((every > 0) & (held == 0))
    return 100 * gone + unseen + float(np.abs(held / max(held.sum(), 1) - every / every.sum()).sum())


def _odds(windows: Iterable[Candidate]) -> NDArray[np.float64]:
    """Odds of windows: their pixels, each weighted by one over the root of its class's share."""
    counts = np.array([c.counts for c in windows], np.float64)
    if not len(counts):
        return np.zeros(0)
    share = counts.sum(0) / counts.sum()
    weight = np.divide(1, np.sqrt(share), out=np.zeros_like(share), where=share > 0)
    odds: NDArray[np.float64] = counts @ weight
    return odds


def _draw(windows: Sequence[Candidate], odds: NDArray[np.float64], size: int, seed: int, name: str) -> list[Candidate]:
    """Draw without replacement (Efraimidis and Spirakis 2006: the largest u^(1/odds)), kept in order."""
    u = stream(seed, name).random(len(windows))
    keys = np.log(u) / np.maximum(odds, 1e-12)
    return [windows[k] for k in sorted(np.argsort(-keys, kind="stable")[:size].tolist())]
