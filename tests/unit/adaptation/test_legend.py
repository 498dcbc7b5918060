from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from cgeartheye.adaptation.legend import IGNORED, Legend, Mask, refuse_unknown
from cgeartheye.errors import DataError
from cgeartheye.settings.adapt import AdaptSettings, ClassSpec, Pair

SPECS = (ClassSpec(name="water", value=5, colour="#0000FF"), ClassSpec(name="land", value=9, colour="#ff8800"))


def decode(pixels: list[object], legend: Legend) -> tuple[list[object], Counter[str]]:
    unknown: Counter[str] = Counter()
    return legend.decode(Mask(np.array(pixels, np.uint8), Path("mask.png")), unknown).tolist(), unknown


def test_values_and_colours_become_class_numbers() -> None:
    legend = Legend(SPECS, (255, "#9B9B9B"))
    assert decode([[5, 9, 255]], legend) == ([[0, 1, IGNORED]], Counter())
    assert decode([[[0, 0, 255], [255, 136, 0], [0x9B, 0x9B, 0x9B]]], legend) == ([[0, 1, IGNORED]], Counter())


def test_what_nobody_listed_is_named_with_its_size() -> None:
    legend = Legend(SPECS, ())
    found, unknown = decode([[5, 0, 0, 9]], legend)
    assert found == [[0, IGNORED, IGNORED, 1]]
    _, more = decode([[[0, 0, 255], [1, 2, 3]]], legend)
    with pytest.raises(DataError, match=r"0 \(2 px\), #010203 \(1 px\)"):
        refuse_unknown(unknown + more, "mask.png")


def test_colours_for_classes_that_only_have_values_are_refused() -> None:
    legend = Legend((SPECS[0], ClassSpec(name="wood", value=3)), ())
    with pytest.raises(DataError, match=r"classes are marked by value: wood"):
        decode([[[0, 0, 255]]], legend)


def test_free_values_and_colours_are_given_in_order() -> None:
    legend = Legend(
        (
            ClassSpec(name="a", colour="#000001"),
            ClassSpec(name="b", value=0),
            ClassSpec(name="c", colour="#000002", display="#abcdef"),
        ),
        (),
    )
    assert [(c.value, c.colour) for c in legend.task_classes()] == [(1, "#000001"), (0, "#EE6677"), (2, "#ABCDEF")]


@pytest.mark.parametrize(
    ("second", "word"),
    [({"name": "water", "value": 2}, "name"), ({"name": "x", "value": 5}, "value"), ({"name": "x"}, "neither")],
)
def test_ambiguous_classes_are_refused(second: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        AdaptSettings(pairs=(Pair(images=Path("a"), masks=Path("b")),), classes=(SPECS[0], second))
