"""The default landscape has enough of every class, inside and outside of the hold-out blocks."""

from __future__ import annotations

import numpy as np
import pytest
from shapely.geometry import MultiPolygon, box

from cgeartheye.seeding import stream
from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis.benchmark import list_places
from cgeartheye.synthesis.canvas import class_raster
from cgeartheye.synthesis.holdout import Block, chip_classes, choose_blocks, covered, off_grid_share
from cgeartheye.synthesis.layout import make_layout
from cgeartheye.synthesis.uses import CLASSES

CHIP_M, SIDE = 96.0, 31


def held_out(blocks: tuple[Block, ...]) -> MultiPolygon:
    corners = [(b.column, b.row, b.column + b.columns, b.row + b.rows) for b in blocks]
    return MultiPolygon([box(*(CHIP_M * value for value in corner)) for corner in corners])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_class_has_chips_and_training_keeps_650_cells(seed: int) -> None:
    # a pixel of 3 m gives the same classes as 0.75 m at a sixteenth of the cost
    _, classes = class_raster(make_layout(WorldSettings(seed=seed)), 1000, 3.0)
    pure, _ = chip_classes(classes, 32, len(CLASSES))
    blocks = choose_blocks(pure, len(CLASSES), stream(seed, "hold-out"))
    assert 3 <= len(blocks) <= 4
    assert 0.18 <= covered(blocks, SIDE).mean() <= 0.22
    assert (~covered(blocks, SIDE, 1)).sum() >= 650
    # places for training are drawn on another grid: count on one half a cell off, geometrically
    held = held_out(blocks)
    cells = [box(x, y, x + CHIP_M, y + CHIP_M) for x in 48 + CHIP_M * np.arange(30) for y in 48 + CHIP_M * np.arange(30)]
    free = sum(held.distance(cell) >= CHIP_M for cell in cells)
    assert free == round(off_grid_share(blocks, SIDE) * len(cells))
    assert free >= 630
    places = list_places(classes, blocks, 32)
    for label in CLASSES:
        test, train = ([p for p in places if p.part == part and p.label == label] for part in ("test", "train"))
        # four quarters of a place, of which cloud and no-data may take one or two
        assert len(test) >= 4, label
        assert len(train) >= 10, label
    for place in places:
        chip = box(place.column * CHIP_M, place.row * CHIP_M, (place.column + 1) * CHIP_M, (place.row + 1) * CHIP_M)
        assert held.covers(chip) if place.part == "test" else held.distance(chip) >= CHIP_M


def test_small_landscapes_have_all_classes_too() -> None:
    _, classes = class_raster(make_layout(WorldSettings(seed=4, size_m=600)), 800, 0.75)
    shares = [np.mean(classes == k) for k in range(len(CLASSES))]
    assert min(shares) > 0.002


def test_the_layout_does_not_depend_on_the_pixel() -> None:
    coarse, fine = (make_layout(WorldSettings(seed=7, size_m=700, gsd_m=g, chip_px=p)) for g, p in ((1.5, 64), (0.75, 128)))
    assert coarse.surfaces.shapes == fine.surfaces.shapes
    assert np.array_equal(coarse.buildings.x, fine.buildings.x)
