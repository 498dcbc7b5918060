"""Polygons from labels, and the files they are kept in."""
