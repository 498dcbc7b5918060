"""Settings of the checks in `curate`: a chip's quality, and whether the dates of a place lie on one another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cgeartheye.settings.base import Settings

Ranked = Literal["blur", "haze", "cloud"]
"""Measures without an absolute threshold."""
Share = Annotated[float, Field(gt=0, le=0.5)]


class QualitySettings(Settings):
    """Hard limits beyond which a chip is rejected; everything milder is only measured and stored [ours].

    There is on purpose no limit for haze, cloud or sharpness: deserts look like haze, pale cities like cloud, fields like blur.
    """

    max_nodata_share: float = Field(0.01, ge=0, le=1)
    """A chip with a larger share of pixels without data is rejected [ours]."""
    max_saturated_share: float = Field(0.10, ge=0, le=1)
    """A chip in which a larger share of values is 255 is rejected [ours]."""
    min_std: float = Field(3.0, ge=0)
    """Grey levels; a chip below both this deviation and `min_entropy` is rejected as empty [ours]."""
    min_entropy: float = Field(3.0, ge=0, le=8)
    """Bits; see `min_std` [ours]."""
    max_reblur: float = Field(0.70, ge=0, le=1)
    """A chip that keeps a larger share of its gradient under a further blur is rejected as out of focus. None of 1,778
    pictures of six public sets is above; blurred by 2 px, 95 % are [ours]."""
    cut_worst: dict[Ranked, Share] = Field({})
    """Share of chips, the worst by each measure within their stratum and quarter, that is left out, such as {cloud: 0.02}.
    Empty: none; ranks are stored in any case [ours]."""
    cloud_rise: float = Field(40.0, ge=0, le=255)
    """Grey levels by which bright, colourless and smooth ground must be above another date to count as cloud [ours]."""


class RegistrationSettings(Settings):
    """Check that the dates of a place lie on one another."""

    enabled: bool = True
    """Measure each date's shift against the place's best covered date [ours]."""
    flag_px: float = Field(1.0, gt=0)
    """Shifts above this many pixels are counted as flagged [ours]."""
    search_px: int = Field(24, ge=3, le=64)
    """Farthest shift along an axis that is looked for; at most 3/16 of a chip's side are [ours]."""
    min_confidence: float | None = Field(None, gt=0)
    """Confidence from which a shift is certain: how many standard deviations its correlation stands out. None: 4.75, and 5.25
    for chips below 171 px, which 2 to 6 in 100 pairs of different places reach [ours]."""
    drop_px: float = Field(3.0, gt=0)
    """A date that is certainly shifted by more pixels is rejected [ours]."""
