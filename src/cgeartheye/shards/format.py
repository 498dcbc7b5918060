"""What a shard is: a plain ustar file of places, and the columns of the index beside it.

A place is its JPEG members ``PLACE.d0.jpg .. PLACE.dN.jpg`` in order of date, then ``PLACE.json``. The index has one
row a chip, sorted by shard and offset, so that a place's chips are neighbours on disk and in the index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from cgeartheye.errors import DataError

SCHEMA_VERSION: Final = 1
INDEX_NAME: Final = "index.parquet"
MANIFEST_NAME: Final = "manifest.json"
"""Of the stage that made a data set; it tells what the data are, and reading chips does not need it."""
SHARD_FOLDER: Final = "shards"
BLOCK: Final = 512
"""Bytes of a tar header, and the unit that members are padded to."""
CHIP_PIXEL_LIMIT: Final = 8192 * 8192
"""A chip with more pixels is refused before it is decoded [ours]; a 672-px chip has 0.45 million."""
CHIP_BYTE_LIMIT: Final = 256 * 2**20
"""A member longer than this is no chip [ours]."""

PLACE_PATTERN: Final = re.compile(r"[A-Za-z0-9_-]{1,80}")
"""Names of places: no dot, because WebDataset takes the key to end there, and short enough for a ustar header."""
CHIP_PATTERN: Final = re.compile(r"(?P<place>.+)\.d(?P<date_index>\d{1,4})\.jpe?g", re.IGNORECASE)

BARE_PATTERN: Final = re.compile(r"[^/\\\0]{1,255}")
"""Names of shards: nothing that separates folders on any system."""

POSITION_COLUMNS: Final = ("place", "date_index", "shard", "offset", "length", "crc32")

INDEX_SCHEMA: Final = pa.schema(
    [
        ("place", pa.string()),
        ("date_index", pa.int32()),
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int32()),
        ("crc32", pa.int64()),
        ("date", pa.date32()),
        ("year", pa.int32()),
        ("quarter", pa.int32()),
        ("scene", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("gsd_m", pa.float64()),
        ("crs", pa.string()),
        ("x0", pa.float64()),
        ("y0", pa.float64()),
        ("lon", pa.float64()),
        ("lat", pa.float64()),
        ("cell", pa.int64()),
        ("region", pa.string()),
        ("land_cover", pa.string()),
        ("elevation_m", pa.float64()),
        ("stratum", pa.string()),
        ("cluster", pa.int32()),
        ("label", pa.string()),
        ("licence", pa.string()),
        ("q_nodata", pa.float64()),
        ("q_saturated", pa.float64()),
        ("q_std", pa.float64()),
        ("q_entropy", pa.float64()),
        ("q_reblur", pa.float64()),
        ("q_sharpness", pa.float64()),
        ("q_dark", pa.float64()),
        ("q_white", pa.float64()),
        ("q_noise", pa.float64()),
        ("q_blocks", pa.float64()),
        ("q_stripes", pa.float64()),
        ("q_cloud", pa.float64()),
        ("q_rank_blur", pa.float64()),
        ("q_rank_haze", pa.float64()),
        ("q_rank_cloud", pa.float64()),
        ("shift_px", pa.float64()),
        ("shift_rows", pa.float64()),
        ("shift_columns", pa.float64()),
        ("shift_confidence", pa.float64()),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)
"""The index, one row a chip; a chip without a date has year 0 and quarter 0, other unknown values are null."""


@dataclass(frozen=True)
class Chip:
    """One date of a place, ready to be stored.

    Args:
        jpeg: the coded picture.
        columns: values of :data:`INDEX_SCHEMA` that belong to this date (date, scene, width, height, quality ...).
    """

    jpeg: bytes
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """A place with its chips in order of date.

    Args:
        name: unique in the data set; letters, digits, ``_`` and ``-`` only.
        chips: one or more.
        columns: values of :data:`INDEX_SCHEMA` that all its dates share (cell, region, stratum, label ...).
    """

    name: str
    chips: tuple[Chip, ...]
    columns: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not PLACE_PATTERN.fullmatch(self.name):
            raise DataError(f"{self.name!r} cannot name a place: letters, digits, _ and - only, at most 80")
        if not self.chips:
            raise DataError(f"the place {self.name!r} has no chip")
        given = set(self.columns).union(*(chip.columns for chip in self.chips))
        unknown = given - (set(INDEX_SCHEMA.names) - set(POSITION_COLUMNS))
        if unknown:
            raise DataError(f"the place {self.name!r} has columns the index does not take: {', '.join(sorted(unknown))}")


def is_bare_name(name: str) -> bool:
    """Return whether a name is that of a file in the very folder it is looked for in."""
    return bool(BARE_PATTERN.fullmatch(name)) and name not in {".", ".."}


def shard_name(number: int) -> str:
    """Return the file name of the shard with this number."""
    return f"{number:06d}.tar"


def chip_member(place: str, date_index: int) -> str:
    """Return the name of a chip inside its shard."""
    return f"{place}.d{date_index}.jpg"


def padded(length: int) -> int:
    """Return the bytes that a member of ``length`` bytes takes in a tar, header included."""
    return BLOCK + -(-length // BLOCK) * BLOCK
