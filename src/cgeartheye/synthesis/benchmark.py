"""The class folders cut from the rendered world: chips of one class, for training and for testing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.files import write_json
from cgeartheye.synthesis.holdout import Block, chip_classes, covered
from cgeartheye.synthesis.uses import CLASSES

LARGEST_BAD_SHARE: Final = 0.10
"""Chips with more no-data, cloud or cloud shadow than this are left out."""


@dataclass(frozen=True)
class Chip:
    """One picture of the benchmark: x0, y0 are the upper left corner in local metres, share that of its class."""

    name: str
    part: str
    label: str
    share: float
    x0: float
    y0: float
    quarter: str


@dataclass(frozen=True)
class Place:
    """A chip of the grid that has a class."""

    row: int
    column: int
    part: str
    label: str
    share: float


def list_places(classes: NDArray[np.uint8], blocks: tuple[Block, ...], chip_px: int) -> list[Place]:
    """Return the places of the grid that have a class and lie in a block (test) or at least one chip away (train)."""
    pure, share = chip_classes(classes, chip_px, len(CLASSES))
    side = pure.shape[0]
    test, near = covered(blocks, side), covered(blocks, side, 1)
    places = []
    for row, column in zip(*np.nonzero((pure >= 0) & (test | ~near)), strict=True):
        part = "test" if test[row, column] else "train"
        label = CLASSES[pure[row, column]]
        places.append(Place(int(row), int(column), part, label, float(share[row, column])))
    return places


@dataclass(frozen=True)
class Picture:
    """A quarter's mosaic (H, W, 3) uint8, and where it shows no ground (H, W): no-data, cloud and cloud shadow."""

    quarter: str
    mosaic: NDArray[np.uint8]
    bad: NDArray[np.bool_]


def write_chips(folder: Path, places: list[Place], picture: Picture, *, chip_px: int, gsd_m: float) -> list[Chip]:
    """Write the good chips of one quarter as ``part/class/row_column_quarter.png`` and return them."""
    chips = []
    for place in places:
        top, left = place.row * chip_px, place.column * chip_px
        window = (slice(top, top + chip_px), slice(left, left + chip_px))
        if picture.bad[window].mean() > LARGEST_BAD_SHARE:
            continue
        name = f"{place.row:02d}_{place.column:02d}_{picture.quarter}.png"
        save_png(folder / place.part / place.label / name, picture.mosaic[window])
        chips.append(Chip(name, place.part, place.label, round(place.share, 4), left * gsd_m, top * gsd_m, picture.quarter))
    return chips


def publish(working: Path, folder: Path, chips: list[Chip]) -> None:
    """Write the list of chips and give the finished folder its name."""
    write_json(working / "chips.json", {"schema_version": 1, "chips": [asdict(chip) for chip in chips]})
    working.rename(folder)


def save_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write one picture (H, W, 3) without loss; run lengths alone code grainy pictures as small as a full search, and faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1, compress_type=3)
