"""Grids, equal-area cells, windows and blending weights."""
