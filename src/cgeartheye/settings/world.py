"""What the rendered world looks like: its seed, size, pixel and winter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, Settings


class WorldSettings(Settings):
    """Settings of :func:`cgeartheye.synthesis.render_world`; the default is the landscape of the demo."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the landscape, of its seasons and of every fault of its pictures."""
    size_m: float = Field(3000.0, ge=600.0, le=12000.0)
    """Side of the square landscape in metres [ours: about 970 places of 96 m]."""
    gsd_m: float = Field(0.75, ge=0.25, le=4.0)
    """Ground size of a pixel in metres [report: the archive's 0.5 to 0.75 m]."""
    chip_px: int = Field(128, ge=32, le=1024)
    """Side of a benchmark chip in pixels; hold-out blocks snap to multiples of it [ours]."""
    winter: Literal["snow", "dry"] = "snow"
    """Thin, patchy snow in the first quarter, or a dry and brown winter [ours]."""
    faults: bool = True
    """Haze, cloud, seams, no-data and undeclared shifts of the scenes; false gives clean pictures [ours]."""
    workers: int = Field(1, ge=0, le=16, json_schema_extra=NOT_IDENTITY)
    """Processes that render quarters; 0 and 1 render in this process."""

    @property
    def side_px(self) -> int:
        """Side of the landscape in pixels."""
        return round(self.size_m / self.gsd_m)

    @property
    def chip_m(self) -> float:
        """Side of a chip in metres."""
        return self.chip_px * self.gsd_m

    @model_validator(mode="after")
    def _holds_chips(self) -> WorldSettings:
        if self.side_px < 5 * self.chip_px:
            message = (
                f"a landscape of {self.size_m:g} m at {self.gsd_m:g} m is {self.side_px} px wide and must hold at least 5 chips "
                f"of {self.chip_px} px in a row; make size_m larger, or gsd_m or chip_px smaller"
            )
            raise ValueError(message)
        if self.side_px > 16000:
            message = f"the landscape would be {self.side_px} px wide, the limit is 16000; make size_m smaller or gsd_m larger"
            raise ValueError(message)
        return self
