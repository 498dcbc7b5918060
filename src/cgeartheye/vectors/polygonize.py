"""Polygons of a class raster, made block by block and equal to those of the whole raster.

Each block is cut into its 4-connected regions of one class; regions that touch across a block border are joined by
union-find. A region that touches no unfinished border is final and can be handed on, so memory holds only one row of
blocks and the regions that are still open. Everything is computed in whole pixels; coordinates come last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely.geometry import Polygon
from skimage.measure import label

from cgeartheye.geometry.windows import Window

ReadClasses = Callable[[Window], NDArray[np.uint8]]
"""Reads the (h, w) uint8 classes of a window inside the raster."""


@dataclass(frozen=True, slots=True)
class Region:
    """A 4-connected region of one class.

    Attributes:
        value: class value.
        polygon: outline in pixels (x = column, y = row), rings without collinear vertices, normalised.
    """

    value: int
    polygon: Polygon

    @property
    def pixels(self) -> int:
        """Number of pixels: the area of an outline on pixel borders."""
        return round(float(self.polygon.area))

    @property
    def first(self) -> tuple[float, float]:
        """Row and column of its first pixel in reading order; no two regions share it."""
        xy = shapely.get_coordinates(self.polygon)
        row = xy[:, 1].min()
        return float(row), float(xy[xy[:, 1] == row, 0].min())


@dataclass
class _Union:
    """Disjoint sets of region numbers (Tarjan 1975, path halving)."""

    parent: dict[int, int] = field(default_factory=dict)

    def find(self, item: int) -> int:
        parent = self.parent
        parent.setdefault(item, item)
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        self.parent[max(a, b)] = min(a, b)


@dataclass
class _Open:
    """Pieces of regions that are not final yet, by their number."""

    pieces: dict[int, tuple[int, Polygon]] = field(default_factory=dict)
    union: _Union = field(default_factory=_Union)

    def close(self, unfinished: set[int]) -> Iterator[Region]:
        """Yield, join and forget the regions of which no piece lies at an unfinished border."""
        held = {self.union.find(number) for number in unfinished}
        groups: dict[int, list[int]] = defaultdict(list)
        for number in self.pieces:
            groups[self.union.find(number)].append(number)
        for root, members in groups.items():
            if root not in held:
                pieces = [self.pieces.pop(number) for number in members]
                for number in members:
                    self.union.parent.pop(number, None)
                yield _region(pieces[0][0], [polygon for _, polygon in pieces])


def polygonize(read: ReadClasses, height: int, width: int, *, nodata: int = 255, block_px: int = 1024) -> Iterator[Region]:
    """Yield the regions of a class raster, each whole and once.

    Args:
        read: reads classes of a window.
        height: rows of the raster.
        width: its columns.
        nodata: value of which no regions are made.
        block_px: side of a block; it bounds memory and changes the order of regions, nothing else.
    """
    pending, above, count = _Open(), np.zeros(width, np.int64), 0
    for row in range(0, height, block_px):
        rows = min(block_px, height - row)
        top, bottom = np.zeros(width, np.int64), np.zeros(width, np.int64)
        left: NDArray[np.int64] | None = None
        for col in range(0, width, block_px):
            window = Window(row, col, rows, min(block_px, width - col))
            numbers, pieces = _pieces(read(window), nodata, count, (row, col))
            pending.pieces.update(pieces)
            count += len(pieces)
            if left is not None:
                _join(left, numbers[:, 0], pending)
            left = numbers[:, -1]
            top[col : window.right], bottom[col : window.right] = numbers[0], numbers[-1]
        _join(above, top, pending)
        above = bottom
        last = row + rows >= height
        yield from pending.close(set() if last else set(np.unique(bottom[bottom > 0]).tolist()))


def _pieces(
    classes: NDArray[np.uint8], nodata: int, used: int, origin: tuple[int, int]
) -> tuple[NDArray[np.int64], dict[int, tuple[int, Polygon]]]:
    """Number the regions of one block from ``used`` + 1 and outline them; 0 stands for no data."""
    local = label(classes, connectivity=1, background=nodata).astype(np.int32)
    pieces = {}
    move = Affine.translation(origin[1], origin[0])
    first = _first_values(local, classes)
    for geometry, number in shapes(local, mask=local > 0, connectivity=4, transform=move):
        rings = geometry["coordinates"]
        pieces[used + int(number)] = (int(first[int(number)]), Polygon(rings[0], rings[1:]))
    return np.where(local > 0, local.astype(np.int64) + used, 0), pieces


def _first_values(local: NDArray[np.int32], classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    values = np.zeros(int(local.max()) + 1, np.uint8)
    values[local.ravel()] = classes.ravel()
    return values


def _join(a: NDArray[np.int64], b: NDArray[np.int64], pending: _Open) -> None:
    """Join the regions on both sides of a border where they have the same class."""
    both = (a > 0) & (b > 0)
    for first, second in np.unique(np.stack([a[both], b[both]], axis=1), axis=0).tolist():
        if pending.pieces[first][0] == pending.pieces[second][0]:
            pending.union.join(first, second)


def _region(value: int, polygons: list[Polygon]) -> Region:
    whole = polygons[0] if len(polygons) == 1 else shapely.union_all(polygons)
    return Region(value, shapely.normalize(_without_collinear(whole)))


def _without_collinear(polygon: Polygon) -> Polygon:
    """Drop vertices at which the outline does not turn; all edges run along pixel borders."""
    return Polygon(_corners(polygon.exterior.coords), [_corners(ring.coords) for ring in polygon.interiors])


def _corners(coordinates: object) -> NDArray[np.float64]:
    ring = np.asarray(coordinates)[:-1, :2]
    ahead, behind = np.roll(ring, -1, axis=0) - ring, ring - np.roll(ring, 1, axis=0)
    turns: NDArray[np.bool_] = (ahead[:, 0] * behind[:, 1] - ahead[:, 1] * behind[:, 0]) != 0
    corners: NDArray[np.float64] = ring[turns]
    return corners
