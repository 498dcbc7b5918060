from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cgeartheye.adaptation.pairs import Labelled
from cgeartheye.adaptation.pictures import Picture
from cgeartheye.adaptation.sampling import Candidate, Grouping, split
from cgeartheye.geometry.windows import Window
from cgeartheye.settings.adapt import AdaptSettings, ClassSpec, Pair

SIDE = 16
SETTINGS = AdaptSettings(
    pairs=(Pair(images=Path("a"), masks=Path("b")),), classes=(ClassSpec(name="x", value=0), ClassSpec(name="y", value=1))
)
FILES = Labelled("p", Path("p.tif"), Path("m.tif"), None)


def picture(x0: float | None = None, side: int = 30 * SIDE) -> Picture:
    place = None if x0 is None else ("EPSG:32633", (0.5, 0.0, x0, 0.0, -0.5, 5200000.0))
    return Picture(FILES, side, side, 0.5, place)


def windows(index: int, source: Picture, grouping: Grouping, rng: np.random.Generator) -> list[Candidate]:
    found = []
    for row in range(0, source.height, SIDE):
        for col in range(0, source.width, SIDE):
            window = Window(row, col, SIDE, SIDE)
            counts = rng.multinomial(256, [0.95, 0.05]) if rng.random() < 0.3 else np.array([256, 0])
            found.append(Candidate(index, window, counts, *grouping.of(source, index, window)))
    return found


@pytest.fixture
def found() -> list[Candidate]:
    return windows(0, picture(), Grouping("block", SIDE, 4), np.random.default_rng(0))


def test_blocks_of_validation_keep_a_gap_of_one_window(found: list[Candidate]) -> None:
    drawn = split(found, SETTINGS.model_copy(update={"windows": 10_000}))
    assert drawn.train
    assert drawn.validation
    held = np.array([(c.window.row, c.window.col) for c in drawn.validation]) // SIDE
    for candidate in drawn.train:
        distance = np.abs(held - np.array([candidate.window.row, candidate.window.col]) // SIDE).max(1)
        assert distance.min() >= 2


def test_numbers_and_repeatability(found: list[Candidate]) -> None:
    settings = SETTINGS.model_copy(update={"windows": 100, "validation_share": 0.25})
    drawn = split(found, settings)
    assert (len(drawn.train), len(drawn.validation)) == (75, 25)
    assert split(found, settings) == drawn
    assert split(found, settings.model_copy(update={"seed": 1})).train != drawn.train
    assert len({(c.window.row, c.window.col) for c in drawn.train}) == 75


def test_rare_classes_are_drawn_more_often_for_training_only(found: list[Candidate]) -> None:
    drawn = split(found, SETTINGS.model_copy(update={"windows": 120, "validation_share": 0.5}))

    def share(candidates: list[Candidate]) -> float:
        return float(np.mean([c.counts[1] > 0 for c in candidates]))

    assert share(drawn.train) > 1.1 * share(found)
    assert abs(share(drawn.validation) - share(found)) < 0.15


def test_dates_of_one_ground_share_their_groups() -> None:
    grouping = Grouping("block", SIDE, 4)
    one, shifted, elsewhere = picture(500000.0), picture(500004.0), picture(600000.0)  # 8 px further east
    window = Window(64, 64, SIDE, SIDE)
    moved = Window(64, 56, SIDE, SIDE)  # the same ground in the second
    assert grouping.of(one, 0, window)[0] == grouping.of(shifted, 1, moved)[0]
    assert grouping.of(one, 0, window)[0] != grouping.of(elsewhere, 2, window)[0]


def test_auto_takes_pictures_only_where_they_are_many_and_have_no_place() -> None:
    assert Grouping.choose([picture()] * 10, SETTINGS, SIDE).by == "picture"
    assert Grouping.choose([picture()] * 9, SETTINGS, SIDE).by == "block"
    assert Grouping.choose([picture(500000.0)] * 20, SETTINGS, SIDE).by == "block"


def test_one_group_validates_nothing() -> None:
    found = windows(0, picture(side=3 * SIDE), Grouping("picture", SIDE, 4), np.random.default_rng(0))
    drawn = split(found, SETTINGS)
    assert len(drawn.train) == 9
    assert drawn.validation == []


def test_training_keeps_a_class_that_one_group_alone_holds() -> None:
    grouping = Grouping("picture", SIDE, 4)
    found = []
    for index in range(6):
        counts = np.array([200, 56]) if index == 3 else np.array([256, 0])
        found += [Candidate(index, Window(0, 0, SIDE, SIDE), counts, *grouping.of(picture(), index, Window(0, 0, SIDE, SIDE)))]
    for seed in range(5):
        drawn = split(found, SETTINGS.model_copy(update={"seed": seed}))
        assert any(c.picture == 3 for c in drawn.train)
