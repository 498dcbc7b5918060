"""The rendered world: a seeded landscape in four seasons, with its labels."""

from cgeartheye.synthesis.uses import CLASSES, COVERS
from cgeartheye.synthesis.world import QUARTERS, render_world

__all__ = ["CLASSES", "COVERS", "QUARTERS", "render_world"]
