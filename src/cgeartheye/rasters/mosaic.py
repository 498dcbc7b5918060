"""Several rasters of one date as one picture on a grid, without seams where they meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window
from scipy.ndimage import maximum_filter

from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.reader import Raster, at_scale, kernel_for, read_planes
from cgeartheye.rasters.warp import Lattice, Placement, reach_px, warp, warp_to_edge

Mask = NDArray[np.bool_]
Planes = NDArray[np.uint8]
"""(3, H, W): red, green and blue one after the other."""


@dataclass(frozen=True)
class Mosaic:
    """A picture made of several rasters.

    Args:
        colours: (H, W, 3) uint8 RGB; 0 where invalid after a warp.
        valid: (H, W) bool.
        used: positions of the rasters that gave pixels, the one that gave most first.
    """

    colours: NDArray[np.uint8]
    valid: Mask
    used: tuple[int, ...]


@dataclass
class _Layer:
    """Rasters that share one lattice, joined before their one warp: (3, h, w), (h, w), and pixels given by each raster."""

    lattice: Lattice
    placed: Placement
    members: list[tuple[int, Raster]]
    planes: Planes
    valid: Mask
    given: dict[int, int]


def read_mosaic(rasters: Sequence[Raster], grid: Grid) -> Mosaic:
    """Read rasters of one date on a grid: each pixel once resampled at most, the best covered raster on top.

    Rasters on one lattice (the tiles of a mosaic) are joined before the warp, so that it reaches across their borders. Others
    are warped apart; a gap of a kernel's width that this leaves where two of them meet is closed from their edges.

    Args:
        rasters: open rasters in order of preference between equals.
        grid: where to.

    Raises:
        DataError: if one is no picture, not georeferenced, or cannot be read there.
        ShapeError: if too many source pixels would be needed at once.
    """
    layers = [_joined(layer) for layer in _layers(rasters, grid)]
    on_grid = [_on_grid(layer, grid) for layer in layers]
    if len(layers) == 1:
        return _mosaic(*on_grid[0], layers[0].given)
    order = sorted(range(len(layers)), key=lambda i: (-np.count_nonzero(on_grid[i][1]), layers[i].members[0][0]))
    planes, valid = np.zeros((3, grid.height, grid.width), np.uint8), np.zeros((grid.height, grid.width), bool)
    given: dict[int, int] = {}
    for i in order:
        new = on_grid[i][1] & ~valid
        if new.any():
            planes = on_grid[i][0] if new.all() else np.where(new, on_grid[i][0], planes)
            valid = valid | new
            share = np.count_nonzero(new) / sum(layers[i].given.values())
            given |= {number: max(1, round(part * share)) for number, part in layers[i].given.items() if part}
    if layers and not valid.all():
        _close_seams([layers[i] for i in order], grid, planes, valid)
    return _mosaic(planes, valid, given)


def _mosaic(planes: Planes, valid: Mask, given: Mapping[int, int]) -> Mosaic:
    used = tuple(sorted((number for number in given if given[number]), key=lambda number: (-given[number], number)))
    return Mosaic(np.ascontiguousarray(np.moveaxis(planes, 0, -1)), valid, used)


def _layers(rasters: Sequence[Raster], grid: Grid) -> list[_Layer]:
    """Group the rasters that touch the grid by lattice."""
    layers: list[_Layer] = []
    for number, whole in enumerate(rasters):
        raster, placed = at_scale(whole, grid)
        if placed.window is None:
            continue
        fitting = [layer for layer in layers if layer.lattice.offset(raster.lattice) is not None]
        if fitting:
            fitting[0].members.append((number, raster))
        else:
            shape = (int(placed.window.height), int(placed.window.width))
            empty = np.zeros((3, *shape), np.uint8), np.zeros(shape, bool)
            layers.append(_Layer(raster.lattice.window(placed.window), placed, [(number, raster)], *empty, {}))
    return layers


def _joined(layer: _Layer) -> _Layer:
    """Read all rasters of a layer into its window, the best covered on top."""
    read: list[tuple[int, tuple[Planes, Mask]]] = []
    for number, raster in layer.members:
        offset = raster.lattice.offset(layer.lattice)
        assert offset is not None  # noqa: S101 - they were grouped by it
        window = Window(*offset, layer.lattice.width, layer.lattice.height)
        read.append((number, read_planes(raster, window, pixelwise=layer.placed.exact)))
    read.sort(key=lambda entry: (-np.count_nonzero(entry[1][1]), entry[0]))
    layer.planes, layer.valid = read[0][1]
    layer.given[read[0][0]] = int(np.count_nonzero(layer.valid))
    for number, (planes, valid) in read[1:]:
        new = valid & ~layer.valid
        layer.given[number] = int(np.count_nonzero(new))
        if layer.given[number]:
            layer.planes = np.where(new, planes, layer.planes)
            layer.valid = layer.valid | new
    return layer


def _on_grid(layer: _Layer, grid: Grid) -> tuple[Planes, Mask]:
    if layer.placed.exact:
        return layer.planes, layer.valid
    return warp(layer.planes, layer.valid, layer.lattice, grid, kernel_for(layer.placed))


def _close_seams(layers: Sequence[_Layer], grid: Grid, planes: Planes, valid: Mask) -> None:
    """Fill, in place, the gaps around which the pixels of all layers together leave no hole."""
    edges = [_to_edge(layer, grid) for layer in layers]
    covered = valid | np.logical_or.reduce([known for _, known in edges])
    reach = max(reach_px(kernel_for(layer.placed), grid, layer.lattice) for layer in layers)
    inside = ~maximum_filter(~covered, size=2 * reach + 1, mode="nearest")
    for picture, known in edges:
        new = known & inside & ~valid
        planes[:, new], valid[new] = picture[:, new], True


def _to_edge(layer: _Layer, grid: Grid) -> tuple[Planes, Mask]:
    if layer.placed.exact:
        return layer.planes, layer.valid
    return warp_to_edge(layer.planes, layer.valid, layer.lattice, grid, kernel_for(layer.placed))
