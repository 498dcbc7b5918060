"""The stage `catalog`: folders of georeferenced images -> a STAC catalogue of scenes."""

from cgeartheye.catalog.build import catalog

__all__ = ["catalog"]
