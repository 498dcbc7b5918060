"""Settings of `curate`: which places are drawn, how their chips are cut, filtered, balanced and stored."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, Settings, StageSettings, UserPath
from cgeartheye.settings.curate_checks import QualitySettings, RegistrationSettings
from cgeartheye.settings.curate_chips import ChipSettings
from cgeartheye.settings.curate_draw import DrawSettings
from cgeartheye.settings.curate_duplicates import DuplicateSettings
from cgeartheye.settings.curate_embedding import EmbeddingSettings
from cgeartheye.settings.curate_work import WorkSettings

CLASSES: Final = ("forest", "grassland", "cropland", "water", "wetland", "built-up", "other")
"""The seven classes of land cover [report]; ties of a majority go to the earlier one."""

WORLD_COVER: Final[dict[int, str]] = {
    10: "forest",
    95: "forest",
    20: "grassland",
    30: "grassland",
    40: "cropland",
    80: "water",
    90: "wetland",
    50: "built-up",
    60: "other",
    70: "other",
    100: "other",
}
"""Codes of ESA WorldCover -> class [ours]: mangrove counts as forest, shrub as grassland, bare ground, snow and moss as other."""

LAND_COVER_CODES: Final[dict[int, str]] = {**dict(enumerate(CLASSES, start=1)), **WORLD_COVER}
"""Codes understood without a table: 1 to 7 for the classes themselves, and those of ESA WorldCover, which begin at 10."""

_ARCHIVE_ONLY: Final = (
    "catalog",
    "land_cover",
    "elevation",
    "regions",
    "hold_out",
    "places",
    "draw",
    "shares",
    "cell_m",
    "chip_px",
    "gsd_m",
)


class SplitSettings(Settings):
    """Which part of plain pictures is used, so that test pictures are never seen in pre-training."""

    part: Literal["all", "train", "test"] = "all"
    """Part to keep. A picture is in `test` if the hash of its name, as a number in [0, 1), is below `test_share` [ours]."""
    test_share: float = Field(0.3, gt=0, lt=1)
    """Share of pictures in the part `test` [ours]."""
    salt: str = ""
    """Text that is hashed with the names; another salt is another split [ours]."""


class ClusterSettings(Settings):
    """A tree of k-means clusters, and how evenly places are kept from it (Vo et al. 2024, arXiv 2405.15613)."""

    levels: tuple[int, ...] = ()
    """Clusters of each level from fine to coarse, e.g. [1000, 100, 10]; empty: 80 places a leaf, then a tenth a level [ours]."""
    resample_rounds: int = Field(10, ge=0, le=100)
    """Rounds of clustering anew the rows nearest to the centroids, at every level; they make the balance [arXiv 2405.15613]."""
    keep_places: int | None = Field(None, ge=1)
    """Places kept by balanced selection; none: see `keep_share` [ours]."""
    keep_share: float = Field(1.0, gt=0, le=1)
    """Share of the places kept by balanced selection; 1 keeps all and only names their clusters [ours]."""
    keep_per_stratum: int = Field(0, ge=0)
    """Places of each stratum that are kept in any case, as far as it has them; they count towards the budget [ours]."""
    keep_dates: int | None = Field(None, ge=1)
    """Places with at least so many dates are all kept, even beyond the budget, e.g. 2 for all multi-season places; none: no
    such rule [ours]."""

    device: Literal["auto", "cpu", "cuda"] = Field("cpu", json_schema_extra=NOT_IDENTITY)
    """Where products of matrices are made; `auto` takes a GPU if there is one. Both agree to rounding, not to the bit, so that
    clusters, and what is kept, differ a little; hence the default [ours]."""

    @model_validator(mode="after")
    def _levels_shrink(self) -> Self:
        if any(n < 1 for n in self.levels) or any(b >= a for a, b in zip(self.levels, self.levels[1:], strict=False)):
            message = "levels must be positive and shrink from fine to coarse, for example [1000, 100, 10]"
            raise ValueError(message)
        return self


class CurateSettings(StageSettings):
    """From a catalogue (or plain pictures) to shards of places."""

    source: Literal["archive", "images", "land"] = "archive"
    """`archive`: georeferenced scenes of a catalogue; `images`: plain pictures in class folders or flat, one date each; `land`:
    layers alone - where on any land pictures should be taken or ordered; no picture is read."""
    images: UserPath | None = None
    """Folder of pictures (jpg, png, tif, bmp) for `source: images`; a picture's folder is its label."""
    split: SplitSettings = SplitSettings()
    """Part of the pictures to use, for `source: images`."""
    include: tuple[str, ...] = ()
    """Patterns of paths below `images`, such as `Tile 1/images/*`; empty: every picture [ours]."""
    cut_px: int | None = Field(None, ge=32, le=8192)
    """Cut pictures into squares of this side at their own resolution, without the remainder at the right and bottom; smaller
    pictures stay whole. None: a picture is one chip [ours]."""
    max_px: int = Field(1024, ge=32, le=8192)
    """Longer side above which a plain picture is shrunk [ours]."""

    catalog: UserPath | None = None
    """Folder of a finished catalogue; the project's own if not given."""
    land_cover: UserPath | None = None
    """Raster of land-cover codes; without it every cell has the class `none`."""
    land_cover_classes: dict[int, str] = LAND_COVER_CODES
    """Code of the raster -> class; a code that is not named is not counted. Default: 1 to 7 for the seven classes in the
    report's order, and the codes of ESA WorldCover [ours]."""
    land_cover_minimum: dict[str, float] = Field({"built-up": 0.10, "wetland": 0.25, "water": 0.25})
    """Share from which a class wins against the majority, tried in this order, lest villages and rivers be lost [ours]."""
    elevation: UserPath | None = None
    """Raster of elevation in metres; without it, or outside it, a cell's elevation bin is `none`."""
    elevation_start_m: float = -500.0
    """Lower edge of the first elevation bin [ours]."""
    elevation_bin_m: float = Field(200.0, gt=0)
    """Width of an elevation bin [ours]."""
    regions: UserPath | None = None
    """Polygons of administrative regions (GeoJSON, GeoPackage, GeoParquet); without it every cell has the region `none`."""
    region_field: str = "name"
    """Column of `regions` that names a region."""
    hold_out: UserPath | None = None
    """Polygons whose surroundings are never sampled: a chip keeps at least its own side's length away from them."""

    cell_m: float = Field(1000.0, gt=0)
    """Side of a cell of the equal-area grid [report]."""
    chip_px: int = Field(672, ge=32, le=8192)
    """Side of a chip; 518 to 1,333 px fit a 1-km cell at 0.75 m [ours]."""
    gsd_m: float | None = Field(None, gt=0)
    """Pixel of the chips; none: the median of the catalogue's scenes [ours]."""
    places: int | None = Field(None, ge=1)
    """Places to draw (M of the sampling formula); none: every cell that can be used [ours]."""
    places_per_cell: int = Field(1, ge=1, le=64)
    """Places in each drawn cell, side by side where they fit [ours]."""
    shares: dict[str, float] | None = None
    """Wanted share of each land-cover class (A_p); none: equal [ours, the report gives no values]."""
    shortage: Literal["redistribute", "keep_shares"] = "redistribute"
    """If a stratum has too few cells: draw the rest from others, or keep the shares and draw fewer [ours]."""
    min_dates: int | None = Field(None, ge=1, le=16)
    """A place with fewer good dates is rejected. None: 1, as places with one date take part too [report], but several dates
    that overlap nowhere are an error [ours]."""
    max_dates: int = Field(16, ge=1, le=16)
    """Of more dates the best covered ones are kept [ours]."""

    draw: DrawSettings = DrawSettings()
    """Where places are drawn, how many of each area, and how."""
    chips: ChipSettings = ChipSettings()
    """Where chips lie and which scenes they come from."""
    quality: QualitySettings = QualitySettings()
    """Hard limits on chips."""
    registration: RegistrationSettings = RegistrationSettings()
    """Check of the dates against one another."""
    embedding: EmbeddingSettings = EmbeddingSettings()
    """Features for clustering."""
    clusters: ClusterSettings = ClusterSettings()
    """Balance over clusters."""
    duplicates: DuplicateSettings = DuplicateSettings()
    """Places that show the same picture."""
    exclude: tuple[UserPath, ...] = ()
    """What must never be drawn, such as benchmarks: folders of pictures, which are never drawn and neither are their near
    duplicates, and files of footprints, around which an archive is not sampled and whose cells a draw from land leaves out.
    Manifest and model card count them [ours]."""
    jpeg_quality: int = Field(90, ge=50, le=100)
    """Quality of stored JPEGs [ours]; a plain JPEG picture that needs no change is stored as it is."""
    shard_mb: float = Field(256.0, gt=0)
    """Upper bound of a shard in MB [ours]."""
    workers: int = Field(2, ge=0, le=256, json_schema_extra=NOT_IDENTITY)
    """Processes that cut chips and write shards; 0 or 1 works in this one."""
    work: WorkSettings = Field(WorkSettings(), json_schema_extra=NOT_IDENTITY)
    """How the work is cut and spread over machines."""

    @model_validator(mode="after")
    def _source_fits(self) -> Self:
        if self.source == "images":
            foreign = [name for name in _ARCHIVE_ONLY if name in self.model_fields_set and getattr(self, name) is not None]
            if foreign:
                message = f"`source: images` does not use {', '.join(foreign)}; remove the key, or set `source: archive`"
                raise ValueError(message)
        elif self.images is not None:
            message = f"`images` is given, but the source is `{self.source}`; add `source: images`"
            raise ValueError(message)
        if self.source == "land" and self.land_cover is None and self.draw.area is None:
            message = "`source: land` needs `land_cover`, `draw.area`, or both, to know where land is"
            raise ValueError(message)
        if self.draw.budgets and self.places is not None:
            message = "`places` and `draw.budgets` both say how many; remove `places`"
            raise ValueError(message)
        if (self.min_dates or 1) > self.max_dates:
            message = "min_dates is larger than max_dates"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _classes_exist(self) -> Self:
        named = set(self.land_cover_classes.values())
        for key, given in (("shares", self.shares or {}), ("land_cover_minimum", self.land_cover_minimum)):
            unknown = (
                sorted(set(given) - named - {"none"}) if key == "shares" or "land_cover_minimum" in self.model_fields_set else []
            )
            if unknown or any(value < 0 for value in given.values()):
                message = f"{key} needs values >= 0 for classes of land_cover_classes; unknown: {', '.join(unknown) or 'none'}"
                raise ValueError(message)
        return self
