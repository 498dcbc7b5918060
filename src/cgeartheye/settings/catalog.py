"""Settings of `catalog`."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, StageSettings, UserPath

DATE_PATTERN = (
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<sep>[-_.]?)(?P<month>\d\d)(?P=sep)(?P<day>\d\d)"
    r"(?:[T_-]?(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?:\d{3})?Z?)?(?!\d)"
)


class CatalogSettings(StageSettings):
    """Which scenes there are, and what is known about them beside their files."""

    scenes: tuple[UserPath, ...] = ()
    """Folders, searched with all their sub-folders, and single files of the archive."""
    extensions: tuple[str, ...] = (".tif", ".tiff", ".jp2")
    """File-name endings that are taken for scenes, in any case; other files are ignored [ours]."""
    dates: UserPath | None = None
    """CSV file with a column `path` or `name` (path from the archive's or the CSV's folder, file name, or file name without
    ending), a column `date` (2018-07-16, 20180716, or with a time in UTC) and, if wanted, a column `licence`."""
    date_from: tuple[Literal["csv", "tag", "name"], ...] = ("csv", "tag", "name")
    """Where a scene's date is looked for, in this order: the CSV file, the TIFF tag DATETIME (which some programs set to the
    day of processing), the file name [ours]."""
    date_pattern: str = DATE_PATTERN
    """Regular expression with the groups year, month, day and, if wanted, hour, minute, second, searched in file names; the
    default finds 20180716, 2018-07-16, 2018_07_16, 20180716103015 and 20180716T103015 [ours]."""
    licence: str = "unknown"
    """Licence of scenes for which the CSV file names none [ours]."""
    rgb_bands: tuple[int, int, int] | None = None
    """Bands, counted from 1, that are red, green and blue in all scenes; default: by colour interpretation, the first three
    of three or four bands without one."""
    gsd_min_m: float = Field(0.01, gt=0)
    """Scenes with a finer ground sample distance are left out [ours]."""
    gsd_max_m: float = Field(30.0, gt=0)
    """Scenes with a coarser ground sample distance are left out [ours]."""
    check_pixels: bool = True
    """Read a block at each corner and in the centre of every scene, so that files cut short are found now."""
    workers: int = Field(4, ge=1, le=256, json_schema_extra=NOT_IDENTITY)
    """Files that are looked at at the same time."""

    @field_validator("date_pattern")
    @classmethod
    def _known_groups(cls, value: str) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            message = f"is no regular expression: {error}"
            raise ValueError(message) from error
        missing = [name for name in ("year", "month", "day") if name not in groups]
        if missing:
            message = f"has no group (?P<{missing[0]}>...)"
            raise ValueError(message)
        return value

    @field_validator("extensions")
    @classmethod
    def _lower_case(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({f".{text.lower().lstrip('.')}" for text in value}))

    @field_validator("rgb_bands")
    @classmethod
    def _counted_from_one(cls, value: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if value is not None and min(value) < 1:
            message = "bands are counted from 1"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _ordered_range(self) -> Self:
        if self.gsd_min_m > self.gsd_max_m:
            message = f"gsd_min_m {self.gsd_min_m} is larger than gsd_max_m {self.gsd_max_m}"
            raise ValueError(message)
        return self
