"""Settings of `report`: which stage folders to show, and how much of each."""

from __future__ import annotations

from pydantic import Field

from cgeartheye.settings.base import StageSettings, UserPath


class ReportSettings(StageSettings):
    """What the report shows; a folder that is not given, or not finished, has no section and is named as left out."""

    title: str = Field("CGEarthEye report", min_length=1, max_length=200)
    """Title of the page, usually the project's name [ours]."""
    catalog: UserPath | None = None
    """Folder of `catalog`; default: the project's own, if it is finished."""
    curated: UserPath | None = None
    """Folder of `curate`; default: the project's own, if it is finished."""
    pretrained: UserPath | None = None
    """Folder of `pretrain`; default: the project's own, if it is finished."""
    compare: tuple[UserPath, ...] = ()
    """More folders of `pretrain`, finished or still running; their curves are drawn on the same axes as ``pretrained``'s."""
    evaluated: UserPath | None = None
    """Folder of `evaluate`; default: the project's own, if it is finished."""
    adapted: UserPath | None = None
    """Folder of `adapt`; default: the project's own, if it is finished."""
    maps: UserPath | None = None
    """Folder of `map`; default: the project's own, if it is finished."""
    hold_out: UserPath | None = None
    """GeoJSON (longitude, latitude) of the areas kept out of pre-training, drawn on the map of places; default: not drawn."""
    example_places: int = Field(6, ge=1, le=24)
    """Places whose chips are shown, one row each [ours]."""
    chip_px: int = Field(128, ge=32, le=512)
    """Longest side of an example chip in the page; chips are shrunk to it, never enlarged [ours]."""
    map_px: int = Field(1200, ge=200, le=4000)
    """Longest side of the pictures in the map section; larger ones are shrunk to it [ours]."""
    scenes_shown: int = Field(4, ge=1, le=50)
    """Mapped scenes that are shown as pictures; the others are rows of the table only [ours]."""
