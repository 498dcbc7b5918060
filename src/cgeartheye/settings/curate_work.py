"""Settings of how the work of `curate` is cut and spread; none of them changes what comes out."""

from __future__ import annotations

from pydantic import Field

from cgeartheye.settings.base import NOT_IDENTITY, Settings, UserPath


class WorkSettings(Settings):
    """Where the pieces of the work are made, and which are taken from an earlier run."""

    part: str | None = Field(None, pattern=r"^[1-9][0-9]{0,5}/[1-9][0-9]{0,5}$", json_schema_extra=NOT_IDENTITY)
    """`i/n`: cut and embed every n-th piece from the i-th on, then stop, for an array of jobs that share the folder; the
    command without it does what is left, and all that needs every piece [ours]."""
    cluster: str | None = Field(None, min_length=1, json_schema_extra=NOT_IDENTITY)
    """Address of a Ray cluster (`auto`, `HOST:6379`, `ray://HOST:10001`) whose nodes see the same paths; pieces are made
    there instead of in `workers` processes [ours]."""
    piece_places: int = Field(32, ge=1, le=100_000, json_schema_extra=NOT_IDENTITY)
    """Places (or eight times as many pictures) of a piece on average: what a killed run loses at most for each worker. A
    planet wants some 500, or its work is a million small files [ours]."""
    keep_pieces: bool = Field(default=False, json_schema_extra=NOT_IDENTITY)
    """Keep the chips of all places, dropped ones too, in a hidden folder for a later update; the disk holds kept places
    twice then [ours]."""
    reuse: UserPath | None = None
    """Folder of an earlier `curate` that kept its pieces; those whose scenes and settings are the same are taken from it,
    not made again. Default: after `--redo curate`, the folder that was put aside [ours]."""
