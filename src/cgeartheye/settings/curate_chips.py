"""Settings of `curate`: how chips are cut from scenes."""

from __future__ import annotations

from pydantic import Field

from cgeartheye.settings.base import Settings


class ChipSettings(Settings):
    """Where a place's chips lie in its cell, and which of its scenes they come from."""

    jitter: float = Field(1.0, ge=0, le=1)
    """Share of the room between a chip and its cell over which places are spread by a hash; 0: chips are centred [ours]."""
    per_quarter: int = Field(1, ge=1, le=16)
    """Dates kept of one quarter of one year: by coverage, then the least white, then the stated cloud share, the steepest view,
    the nearest to mid-quarter [ours; the report has one mosaic a quarter]."""
