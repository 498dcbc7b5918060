"""Georeferenced pictures: reading windows and grids, writing COG, lists of scenes."""
