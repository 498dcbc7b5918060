"""Settings of `catalog`."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, Address, Settings, StageSettings, UserPath

DATE_PATTERN = (
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<sep>[-_.]?)(?P<month>\d\d)(?P=sep)(?P<day>\d\d)"
    r"(?:[T_-]?(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?:\d{3})?Z?)?(?!\d)"
)


QUARTER_PATTERN = r"(?<!\d)(?P<year>(?:19|20)\d\d)[-_.]?[Qq](?P<quarter>[1-4])(?!\d)"
TILE_PATTERN = r"[-_.](?:[Rr]\d+[-_]?[Cc]\d+|[Xx]\d+[-_][Yy]\d+|\d{10}-\d{10}|[Tt]ile[-_]?\d+)(?=[-_.]|$)"
_GROUPS = {"date_pattern": ("year", "month", "day"), "quarter_pattern": ("year", "quarter")}

Source = Literal["csv", "item", "meta", "product", "tag", "name"]


class StacApiSettings(Settings):
    """A STAC API to ask for scenes; needs `catalog.network`."""

    url: str | None = None
    """Address of the API's landing page; none: no API is asked."""
    collections: tuple[str, ...] = ()
    """Collections to search; default: all."""
    bbox_deg: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees; west may be larger than east across the antimeridian."""
    period: str | None = None
    """Time of acquisition as STAC writes it: 2023-01-01/2023-12-31."""
    max_items: int = Field(1_000_000, ge=1)
    """Items that are taken at most [ours]."""


class MetaSettings(Settings):
    """What is read from a scene's metadata file. The names of Jilin-1's elements are not public: write those of your files."""

    suffix: str = "_meta.xml"
    """The metadata file's name is the scene's without its ending and this; PAN, MSS and PSH files of a product share one
    [Jilin-1 product files]."""
    datetime: str | None = None
    """Path of the element that holds the time of acquisition, for example Acquisition/StartTime, without the root's name."""
    utc_offset_h: float = Field(8.0, ge=-14, le=14)
    """Hours that times without a zone of their own are ahead of UTC [Jilin-1: Beijing time]."""
    cloud_percent: str | None = None
    """Path of the element that holds the share of clouds in per cent."""


class CatalogSettings(StageSettings):
    """Which scenes there are, and what is known about them beside their files."""

    scenes: tuple[Address, ...] = ()
    """Folders, searched with all their sub-folders, single files, static STAC catalogues (a path or URL that ends with .json),
    and, with `network`, buckets and addresses (s3://bucket/folder, gs://, az://, https://host/file.tif)."""
    stac_api: StacApiSettings = StacApiSettings()
    """A STAC API that is asked for scenes, too."""
    stac_assets: tuple[str, ...] = ("visual", "image", "data")
    """Names of the assets that are the picture of a STAC item, best first; without any of them, the one raster of the role
    data [ours]."""
    network: bool = False
    """Allow addresses on the network, in `scenes`, in STAC catalogues and for the API; off, nothing is read but local files."""
    profile: Literal["jilin1", "generic"] = "jilin1"
    """jilin1: names of Jilin-1 products tell time (Beijing's, turned into UTC), bands and PAN + MSS pairs, which are
    pan-sharpened; other scenes are as under generic: date by `date_from`, makers' layouts by their names [ours]."""
    extensions: tuple[str, ...] = (".tif", ".tiff", ".jp2")
    """File-name endings that are taken for scenes, in any case; other files are ignored [ours]."""
    dates: UserPath | None = None
    """CSV file with a column `path` or `name` (path from the archive's or the CSV's folder, file name, or file name without
    ending), a column `date` (2018-07-16, 20180716, 2018-Q3, or with a time in UTC) and, if wanted, a column `licence`."""
    date_from: tuple[Source, ...] = ("csv", "item", "meta", "product", "tag", "name")
    """Where a scene's date is looked for, in this order: the CSV file, its STAC item, its metadata file, the name of a known
    product, the TIFF tag DATETIME (which some programs set to the day of processing), any date in the file name [ours]."""
    date_pattern: str = DATE_PATTERN
    """Regular expression with the groups year, month, day and, if wanted, hour, minute, second, searched in file names; the
    default finds 20180716, 2018-07-16, 2018_07_16, 20180716103015 and 20180716T103015 [ours]."""
    quarter_pattern: str = QUARTER_PATTERN
    """Regular expression with the groups year and quarter for names without a day, as quarterly mosaics have; the default
    finds 2023Q1 and 2023_q1. The scene's date is then the middle of the quarter, which its notes say [ours]."""
    tile_pattern: str = TILE_PATTERN
    """Regular expression of the part of a file name that tells tiles of one picture apart; files that differ in it alone and
    are of one date are one acquisition, and share the stretch of 16-bit values. The default finds _R1C2, _r001_c002,
    _x3_y4, _tile12 and -0000000000-0000006912 [ours]."""
    meta: MetaSettings = MetaSettings()
    """Metadata files beside scenes."""
    sharpened: UserPath | None = None
    """Folder in which pan-sharpened scenes are kept; default: `sharpened` beside the catalogue's folder. It is a cache: what is
    there is not made again."""
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
    workers: int = Field(4, ge=0, le=256, json_schema_extra=NOT_IDENTITY)
    """Processes that look at files, 256 files a piece; 0 or 1, and small archives, take none beside this one."""

    @field_validator("date_pattern", "quarter_pattern", "tile_pattern")
    @classmethod
    def _known_groups(cls, value: str, info: ValidationInfo) -> str:
        try:
            groups = re.compile(value).groupindex
        except re.error as error:
            message = f"is no regular expression: {error}"
            raise ValueError(message) from error
        missing = [name for name in _GROUPS.get(info.field_name or "", ()) if name not in groups]
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
