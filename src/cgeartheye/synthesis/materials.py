"""What the ground is made of: two colours a quarter that mix in patches, grain, rows, and how well snow lies on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]
Year = tuple[Colour, Colour, Colour, Colour]


@dataclass(frozen=True)
class Material:
    """One kind of ground; colours are RGB 0 to 255 under full sun for the four quarters.

    Args:
        first: colour where the mottling is low.
        second: colour where it is high.
        cover: pixel class of the first and of the second colour.
        grain: standard deviation of the fine texture, as a share of the colour.
        rows: strength of the row pattern in each quarter, as a share of the colour.
        snow: readiness to keep snow, 0 to 1.
        sharp: how sharply the two colours part, 0 to about 1.
    """

    first: Year
    second: Year
    cover: tuple[str, str]
    grain: float = 0.06
    rows: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    snow: float = 0.7
    sharp: float = 0.28


def _all_year(colour: Colour) -> Year:
    return (colour, colour, colour, colour)


_STUBBLE, _SOIL, _SOIL_WET = (178, 162, 122), (150, 128, 100), (126, 106, 84)
_FIELD = ("field", "field")

MATERIALS: Final[dict[str, Material]] = {
    "meadow": Material(
        ((150, 138, 104), (114, 128, 82), (104, 120, 74), (146, 136, 96)),
        ((134, 120, 90), (98, 116, 70), (118, 126, 84), (128, 122, 86)),
        ("grass", "grass"),
        0.07,
        snow=0.8,
    ),
    "litter": Material(
        ((118, 102, 82), (84, 96, 58), (72, 86, 52), (124, 102, 70)),
        ((98, 88, 72), (70, 86, 50), (62, 76, 46), (108, 92, 62)),
        ("tree", "tree"),
        0.10,
        snow=0.55,
    ),
    "orchard_floor": Material(
        ((124, 108, 86), (96, 106, 64), (84, 96, 56), (126, 108, 74)),
        ((104, 92, 74), (80, 94, 56), (70, 84, 48), (112, 98, 66)),
        ("grass", "grass"),
        0.09,
        snow=0.55,
    ),
    "wheat": Material(
        ((116, 120, 88), (98, 120, 72), (186, 168, 122), (156, 138, 108)),
        ((132, 126, 98), (114, 128, 78), (172, 154, 112), (136, 128, 94)),
        _FIELD,
        0.035,
        (0.05, 0.04, 0.07, 0.06),
        0.6,
    ),
    "maize": Material(
        (_SOIL, (142, 130, 96), (80, 102, 58), _STUBBLE),
        (_SOIL_WET, (118, 122, 78), (92, 112, 64), (160, 142, 106)),
        _FIELD,
        0.045,
        (0.05, 0.11, 0.05, 0.08),
        0.75,
    ),
    "vegetables": Material(
        (_SOIL_WET, (98, 122, 66), (98, 114, 70), (118, 122, 82)),
        (_SOIL, (122, 128, 84), (114, 122, 78), (96, 114, 66)),
        _FIELD,
        0.06,
        (0.07, 0.12, 0.12, 0.10),
        0.65,
    ),
    "mulch": Material(
        ((168, 158, 138), (172, 168, 154), (146, 148, 116), (170, 162, 140)),
        ((150, 140, 120), (158, 152, 136), (160, 158, 128), (156, 146, 122)),
        _FIELD,
        0.05,
        (0.20, 0.32, 0.24, 0.20),
        0.7,
    ),
    "fallow": Material(
        ((160, 146, 112), (130, 134, 88), (122, 130, 82), (156, 142, 102)),
        ((138, 124, 96), (112, 122, 76), (106, 116, 68), (136, 124, 90)),
        _FIELD,
        0.08,
        snow=0.8,
    ),
    "soy": Material(
        ((168, 150, 118), (154, 134, 104), (92, 110, 62), (162, 140, 96)),
        ((148, 130, 102), (132, 120, 88), (104, 118, 70), (140, 122, 86)),
        _FIELD,
        0.045,
        (0.04, 0.09, 0.05, 0.06),
        0.75,
    ),
    "beds": Material(
        ((130, 116, 94), (116, 112, 82), (106, 108, 76), (126, 114, 88)),
        ((112, 102, 84), (98, 102, 72), (92, 98, 66), (110, 104, 80)),
        _FIELD,
        0.08,
        snow=0.5,
    ),
    "yard": Material(
        ((150, 138, 118), (148, 138, 116), (144, 136, 112), (150, 138, 116)),
        ((128, 120, 98), (106, 118, 78), (98, 114, 72), (126, 120, 90)),
        ("bare", "grass"),
        0.08,
        snow=0.55,
        sharp=0.75,
    ),
    "street": Material(_all_year((146, 140, 130)), _all_year((132, 128, 120)), ("road", "road"), 0.035, snow=0.25),
    "asphalt": Material(_all_year((104, 104, 106)), _all_year((92, 93, 96)), ("road", "road"), 0.025, snow=0.06),
    "pale_asphalt": Material(_all_year((130, 128, 124)), _all_year((118, 117, 115)), ("road", "road"), 0.03, snow=0.12),
    "dirt_road": Material(_all_year((168, 150, 122)), _all_year((152, 136, 110)), ("road", "road"), 0.05, snow=0.35),
    "earth": Material(
        ((170, 150, 122), (176, 154, 122), (172, 150, 120), (168, 148, 120)),
        ((146, 128, 104), (150, 130, 102), (142, 126, 98), (146, 128, 102)),
        ("bare", "bare"),
        0.07,
        snow=0.5,
    ),
    "sand": Material(_all_year((184, 172, 146)), _all_year((164, 152, 126)), ("bare", "bare"), 0.06, snow=0.5),
    "reed": Material(
        ((138, 120, 82), (90, 108, 58), (76, 100, 50), (134, 114, 68)),
        ((112, 102, 74), (72, 92, 54), (66, 88, 50), (108, 98, 62)),
        ("grass", "grass"),
        0.12,
        snow=0.5,
    ),
    "water": Material(
        ((84, 100, 108), (66, 92, 92), (72, 96, 84), (60, 82, 92)),
        ((94, 110, 114), (58, 84, 88), (62, 88, 80), (54, 76, 86)),
        ("water", "water"),
        0.012,
        snow=0.0,
    ),
    "river": Material(
        ((92, 104, 104), (86, 104, 90), (96, 106, 82), (76, 92, 90)),
        ((84, 98, 100), (78, 98, 86), (88, 100, 78), (70, 86, 86)),
        ("water", "water"),
        0.012,
        snow=0.0,
    ),
}
NAMES: Final = tuple(MATERIALS)


@dataclass(frozen=True)
class Palette:
    """The materials of one quarter as tables over their numbers: colours (m, 3), the rest (m,); float32."""

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    grain: NDArray[np.float32]
    rows: NDArray[np.float32]
    snow: NDArray[np.float32]
    sharp: NDArray[np.float32]


def palette(quarter: int) -> Palette:
    """Return the tables of a quarter, 0 to 3."""
    kinds = list(MATERIALS.values())
    return Palette(
        first=np.array([kind.first[quarter] for kind in kinds], dtype=np.float32),
        second=np.array([kind.second[quarter] for kind in kinds], dtype=np.float32),
        grain=np.array([kind.grain for kind in kinds], dtype=np.float32),
        rows=np.array([kind.rows[quarter] for kind in kinds], dtype=np.float32),
        snow=np.array([kind.snow for kind in kinds], dtype=np.float32),
        sharp=np.array([kind.sharp for kind in kinds], dtype=np.float32),
    )
