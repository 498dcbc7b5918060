"""The stage `curate`."""

from cgeartheye.curation.stage import curate

__all__ = ["curate"]
