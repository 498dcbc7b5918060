"""The four dates: sun, leaves and snow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
from numpy.typing import NDArray

DATES: Final = (date(2024, 2, 14), date(2024, 5, 20), date(2024, 8, 11), date(2024, 11, 5))
"""One date in each quarter of 2024."""
LATITUDE_DEG: Final = 39.9
HOUR: Final = 10.5
"""True solar time of every picture, the usual late morning of sun-synchronous satellites."""

DECIDUOUS, ORCHARD_LEAF, EVERGREEN, SPOIL = range(4)
"""Kinds of crowns; heaps of spoil are drawn as crowns of earth."""
SPECIES: Final = 4
LEAF: Final = np.array(
    [[0.30, 1.0, 1.0, 0.80], [0.30, 1.0, 1.0, 0.80], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=np.float32
)
"""Share of the crown that hides the ground, by species and quarter; bare crowns are branches."""
CROWN: Final = np.array(
    [
        [(112, 100, 82), (86, 108, 62), (70, 92, 54), (136, 112, 66)],
        [(112, 100, 82), (86, 108, 62), (70, 92, 54), (136, 112, 66)],
        [(66, 82, 60), (68, 90, 56), (60, 82, 52), (66, 82, 56)],
        [(150, 132, 108), (158, 138, 110), (154, 134, 108), (150, 132, 108)],
    ],
    dtype=np.float32,
)
"""Colour of crowns by species and quarter; an orchard's leaf is a deciduous leaf."""
SNOW: Final = np.array([226, 229, 235], dtype=np.float32)


@dataclass(frozen=True)
class Sun:
    """Where the sun stands: elevation above the horizon, and azimuth from north over east, in degrees."""

    elevation_deg: float
    azimuth_deg: float

    @property
    def vector(self) -> NDArray[np.float64]:
        """Direction to the sun (3,): east, south, up."""
        up, round_ = np.radians(self.elevation_deg), np.radians(self.azimuth_deg)
        return np.array([np.sin(round_) * np.cos(up), -np.cos(round_) * np.cos(up), np.sin(up)])

    @property
    def shadow(self) -> NDArray[np.float64]:
        """Direction of shadows on the ground (2,): east, south; length 1."""
        round_ = np.radians(self.azimuth_deg)
        return np.array([-np.sin(round_), np.cos(round_)])

    @property
    def slope(self) -> float:
        """Height of a thing over the length of its shadow."""
        return float(np.tan(np.radians(self.elevation_deg)))


def sun_on(day: date, latitude_deg: float = LATITUDE_DEG, hour: float = HOUR) -> Sun:
    """Return the sun's place at a true solar time (Cooper 1969 for the declination, spherical triangle for the rest)."""
    declination = np.radians(23.44) * np.sin(2 * np.pi * (284 + day.timetuple().tm_yday) / 365.0)
    latitude, angle = np.radians(latitude_deg), np.radians(15.0 * (hour - 12.0))
    sine = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(angle)
    east = -np.cos(declination) * np.sin(angle)
    north = np.cos(latitude) * np.sin(declination) - np.sin(latitude) * np.cos(declination) * np.cos(angle)
    return Sun(float(np.degrees(np.arcsin(sine))), float(np.degrees(np.arctan2(east, north)) % 360.0))
