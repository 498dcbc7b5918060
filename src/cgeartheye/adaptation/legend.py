"""From the values or colours of a mask to class numbers; nothing is guessed.

A mask with one band is read by value, an RGB one by colour; a palette is read by colour if every class has one, else by
index. What is neither a class nor to be ignored is reported, because background and "not labelled" are not the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.settings.adapt import ClassSpec
from cgeartheye.tasks.segmentation import TaskClass

IGNORED: Final = 255
"""Number of pixels that are not labelled."""
_UNKNOWN: Final = 254
_PALETTE: Final = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#BBBBBB", "#EE8866", "#44BB99", "#AAAA00")
"""Colours told apart by colour-blind readers (Tol 2021, "bright" and "light")."""


@dataclass(frozen=True)
class Mask:
    """A mask as its file holds it: (H, W) uint8 values, or (H, W, 3) uint8 colours."""

    pixels: NDArray[np.uint8]
    path: Path


class Legend:
    """How masks mark the classes."""

    def __init__(self, classes: Sequence[ClassSpec], ignore: Iterable[int | str]) -> None:
        self.classes = tuple(classes)
        self.by_colour = all(spec.colour is not None for spec in classes)
        self._values = {spec.value: k for k, spec in enumerate(classes) if spec.value is not None}
        self._colours = {_packed(spec.colour): k for k, spec in enumerate(classes) if spec.colour is not None}
        for entry in ignore:
            if isinstance(entry, str):
                self._colours.setdefault(_packed(entry), IGNORED)
            else:
                self._values.setdefault(entry, IGNORED)

    def decode(self, mask: Mask, unknown: Counter[str]) -> NDArray[np.uint8]:
        """Return the (H, W) uint8 class numbers, :data:`IGNORED` where not labelled.

        What the legend does not list is counted in ``unknown`` and becomes :data:`IGNORED`.

        Raises:
            DataError: if the mask has values and the classes only colours, or the other way round.
        """
        coloured = mask.pixels.ndim == 3
        known = self._colours if coloured else self._values
        if len({k for k in known.values() if k != IGNORED}) < len(self.classes):
            has, wants = ("colours", "value") if coloured else ("single values", "colour")
            lacking = [c.name for c in self.classes if (c.colour if coloured else c.value) is None]
            raise DataError(
                f"holds {has}, but classes are marked by {wants}: {', '.join(lacking)}",
                where=str(mask.path),
                remedy=f"give these classes a {'colour' if coloured else 'value'} as well",
            )
        return _coloured(mask.pixels, known, unknown) if coloured else _valued(mask.pixels, known, unknown)

    def task_classes(self) -> tuple[TaskClass, ...]:
        """Return the classes with their values and colours in maps; free values and colours are given in order."""
        taken = {spec.value for spec in self.classes if spec.value is not None}
        free = (value for value in range(255) if value not in taken)
        return tuple(
            TaskClass(
                name=spec.name,
                value=next(free) if spec.value is None else spec.value,
                colour=(spec.display or spec.colour or _PALETTE[k % len(_PALETTE)]).upper(),
            )
            for k, spec in enumerate(self.classes)
        )


def refuse_unknown(unknown: Counter[str], example: str) -> None:
    """Raise DataError that lists every value or colour the legend does not know, with its number of pixels."""
    if not unknown:
        return
    shown = ", ".join(f"{name} ({count:,} px)" for name, count in unknown.most_common(12))
    more = f" and {len(unknown) - 12} more" if len(unknown) > 12 else ""
    raise DataError(
        f"the masks hold what no class and no `ignore` lists: {shown}{more}",
        where=example,
        remedy="add each to `classes`, or to `ignore` if it means not labelled",
    )


def _packed(colour: str | None) -> int:
    return int(str(colour).lstrip("#"), 16)


def _coloured(pixels: NDArray[np.uint8], known: dict[int, int], unknown: Counter[str]) -> NDArray[np.uint8]:
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    present, inverse, counts = np.unique(packed, return_inverse=True, return_counts=True)
    numbers = np.array([known.get(int(colour), _UNKNOWN) for colour in present], np.uint8)
    for colour, number, count in zip(present, numbers, counts, strict=True):
        if number == _UNKNOWN:
            unknown[f"#{int(colour):06X}"] += int(count)
    numbers[numbers == _UNKNOWN] = IGNORED
    return numbers[inverse.reshape(packed.shape)]


def _valued(pixels: NDArray[np.uint8], known: dict[int, int], unknown: Counter[str]) -> NDArray[np.uint8]:
    counts = np.bincount(pixels.ravel(), minlength=256)
    table = np.full(256, IGNORED, np.uint8)
    for value, number in known.items():
        table[value] = number
    for found in np.flatnonzero(counts).tolist():
        if found not in known:
            unknown[str(found)] += int(counts[found])
    return table[pixels]
