"""Settings of `map`: which scenes, by which task model, into which products."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from cgeartheye.settings.base import NOT_IDENTITY, Settings, StageSettings, UserPath


class PolygonSettings(Settings):
    """Outlines of the mapped classes."""

    on: bool = True
    """Write polygons."""
    min_px: int = Field(16, ge=1)
    """Regions of fewer pixels, before or after simplification, get no polygon; the raster keeps them [ours]."""
    simplify_px: float = Field(1.0, ge=0, le=16)
    """Tolerance in pixels by which outlines are simplified without opening gaps between neighbours; 0 keeps every pixel corner
    [ours: at 1 px no class's area changes by more than about 0.05 %]."""


class MapSettings(StageSettings):
    """Map whole scenes with a task model."""

    task: UserPath | None = None
    """Folder of the task model; default: the project's own."""
    scenes: tuple[UserPath, ...] = Field(min_length=1)
    """Georeferenced scenes (GeoTIFF)."""
    truth: tuple[UserPath, ...] = ()
    """Rasters of true class values on the scenes' grids, one a scene in the same order, 255 for unlabelled; gives scores."""
    window_px: int | None = Field(None, ge=16)
    """Side of a window; a multiple of the model's patch. Default: the task model's."""
    halo_px: int | None = Field(None, ge=0)
    """Context at each side of a window; a multiple of the patch. The stride is the window less two halos. Default: the task's."""
    superblock: int | None = Field(None, ge=1, le=64, json_schema_extra=NOT_IDENTITY)
    """Cores along a side of a superblock, the piece that is computed, stored and resumed; bounds memory. Default: as many as
    make about 1,024 px [ours]."""
    workers: int = Field(2, ge=0, le=256, json_schema_extra=NOT_IDENTITY)
    """Processes; each runs one thread, so that their number cannot change a result."""
    batch: int = Field(8, ge=1)
    """Windows a forward pass; fixed, because another size may move the last bit of a probability."""
    confidence: bool = True
    """Write the probability of the mapped class, 0 to 254."""
    polygons: PolygonSettings = PolygonSettings()
    """Outlines of the mapped classes."""
    baselines: bool = False
    """Score the task's baselines (colour regression, untrained backbone) on the same scenes; needs `truth`."""
    score_block_px: int = Field(256, ge=16)
    """Side of the blocks of ground that are drawn again for the intervals of scores [ours]."""
    bootstrap: int = Field(2000, ge=100)
    """Draws of the bootstrap [ours]."""

    @model_validator(mode="after")
    def _truth_fits(self) -> Self:
        if self.truth and len(self.truth) != len(self.scenes):
            message = f"{len(self.truth)} truth rasters for {len(self.scenes)} scenes: give one a scene, in the same order"
            raise ValueError(message)
        if self.baselines and not self.truth:
            message = "baselines are scored, which needs truth"
            raise ValueError(message)
        return self
