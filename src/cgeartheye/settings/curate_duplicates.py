"""Settings of `curate`: which places show the same picture, and which pictures must never be drawn."""

from __future__ import annotations

from pydantic import Field

from cgeartheye.settings.base import Settings


class DuplicateSettings(Settings):
    """Places that show the same picture: an index finds candidates, pixels decide, the best of them is kept.

    Limits are from real pictures of three sets: 1,080 planted copies (recompressed, halved, brightened, shifted, turned, flipped)
    correlate to at least 0.98, and 0.90 in detail; the 200 likest of 2.3 million pairs of different ones to at most 0.92.
    """

    enabled: bool = True
    """Drop all but the best of places that show the same picture; a place's own dates are never compared [ours]."""
    radius: int = Field(8, ge=0, le=12)
    """Perceptual hashes (63 bits, in any of eight orientations) that differ in at most so many bits make a candidate wherever
    they lie [ours]."""
    cluster_radius: int = Field(12, ge=0, le=24)
    """The same inside a cluster and for each place in the two other clusters nearest to it [ours]."""
    alike_radius: int = Field(16, ge=0, le=24)
    """The same for two places there whose features have at least the cosine `alike` [ours]."""
    alike: float = Field(0.95, ge=-1, le=1)
    """See `alike_radius` [ours]. No place is ever dropped for its features alone: that would delete deserts."""
    window: int = Field(256, ge=2, le=65536)
    """Neighbours in each of the sorted lists of hashes that a hash is compared with. Up to 127 times as many places nearly every
    pair within `radius` is seen, beyond some are missed; time grows with it [ours]."""
    correlation: float = Field(0.95, gt=0, le=1)
    """Least correlation of two pictures of 128 px after the best shift for them to be the same [ours]."""
    detail: float = Field(0.8, ge=-1, le=1)
    """Least correlation of what is finer than 8 of 128 px, so that smooth slopes of sand or water are not the same [ours]."""
    min_std: float = Field(5.0, ge=0)
    """Grey levels; a picture with less deviation is only the same as one of the same bytes [ours]."""
    overlap: float = Field(0.5, gt=0, le=1)
    """Places whose chips share at least this part of their ground are the same without a look at the pixels [ours]."""
