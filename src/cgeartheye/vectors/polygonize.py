"""Polygons of a class raster, made block by block and handed on as soon as they are whole.

Each block is cut into its 4-connected regions of one class, whose outlines are simplified with the block's border held fast;
regions that touch across a block border are joined by union-find. A region that touches no unfinished border is final and can
be handed on, so memory holds only one row of blocks and the regions that are still open. Everything is computed in whole
pixels; coordinates come last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely.geometry import Polygon
from skimage.measure import label

from cgeartheye.geometry.windows import Window
from cgeartheye.vectors.coverage import fill_small_holes, simplify, without_islets

ReadClasses = Callable[[Window], NDArray[np.uint8]]
"""Reads the (h, w) uint8 classes of a window inside the raster."""
BLOCK_PX: Final = 1024
"""Side of a block [ours]."""


@dataclass(frozen=True, slots=True)
class Region:
    """A 4-connected region of one class.

    Attributes:
        value: class value.
        polygon: outline in pixels (x = column, y = row), normalised. Plain outlines have no collinear vertices; simplified ones
            keep those at which neighbours meet, and those along a block's border.
        pixels: its number of pixels, those of filled holes included.
        first: row and column of its first pixel in reading order; shared only by parts that simplification took apart.
    """

    value: int
    polygon: Polygon
    pixels: int
    first: tuple[int, int]


@dataclass(frozen=True)
class Outlines:
    """How outlines are made.

    Attributes:
        min_px: regions of fewer pixels are left out. One that lies inside another becomes part of it, because holes below the
            same size are filled; one between several others leaves a gap.
        simplify_px: see :func:`cgeartheye.vectors.coverage.simplify`.
    """

    min_px: int = 1
    simplify_px: float = 0.0


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one block holds of a region."""

    value: int
    polygon: Polygon
    pixels: int
    first: tuple[int, int]


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

    pieces: dict[int, _Piece] = field(default_factory=dict)
    union: _Union = field(default_factory=_Union)

    def close(self, unfinished: set[int]) -> Iterator[list[_Piece]]:
        """Yield and forget the pieces of each region of which none lies at an unfinished border."""
        held = {self.union.find(number) for number in unfinished}
        groups: dict[int, list[int]] = defaultdict(list)
        for number in self.pieces:
            groups[self.union.find(number)].append(number)
        for root, members in groups.items():
            if root not in held:
                for number in members:
                    self.union.parent.pop(number, None)
                yield [self.pieces.pop(number) for number in members]


def polygonize(
    read: ReadClasses, height: int, width: int, *, nodata: int = 255, block_px: int = BLOCK_PX, outlines: Outlines | None = None
) -> Iterator[Region]:
    """Yield the regions of a class raster, each whole and once, in the order of the rows of blocks in which they end.

    Args:
        read: reads classes of a window.
        height: rows of the raster.
        width: its columns.
        nodata: value of which no regions are made.
        block_px: side of a block; it bounds memory. Simplified outlines have a vertex where they cross a block's border;
            otherwise it changes the order of regions, nothing else.
        outlines: smallest region and simplification; default: every region with every corner.
    """
    rule = outlines or Outlines()
    pending, above, count = _Open(), np.zeros(width, np.int64), 0
    for row in range(0, height, block_px):
        rows = min(block_px, height - row)
        top, bottom = np.zeros(width, np.int64), np.zeros(width, np.int64)
        left: NDArray[np.int64] | None = None
        for col in range(0, width, block_px):
            window = Window(row, col, rows, min(block_px, width - col))
            numbers, pieces = _pieces(read(window), nodata, count, (row, col), rule)
            pending.pieces.update(pieces)
            count = max(count, int(numbers.max()))
            if left is not None:
                _join(left, numbers[:, 0], pending)
            left = numbers[:, -1]
            top[col : window.right], bottom[col : window.right] = numbers[0], numbers[-1]
        _join(above, top, pending)
        above = bottom
        whole = pending.close(set() if row + rows >= height else set(np.unique(bottom[bottom > 0]).tolist()))
        ended = [region for pieces in whole for region in _regions(pieces, rule, (height, width))]
        yield from sorted(ended, key=lambda region: region.first)


def _pieces(
    classes: NDArray[np.uint8], nodata: int, used: int, origin: tuple[int, int], rule: Outlines
) -> tuple[NDArray[np.int64], dict[int, _Piece]]:
    """Number the regions of one block from ``used`` + 1 and outline them; 0 stands for no data."""
    local = label(classes.astype(np.int16), connectivity=1, background=-1).astype(np.int32)  # regions without data too
    _, starts, sizes = np.unique(local, return_index=True, return_counts=True)
    found = {}
    for geometry, number in shapes(local, connectivity=4, transform=Affine.translation(origin[1], origin[0])):
        rings = geometry["coordinates"]
        found[int(number)] = Polygon(rings[0], rings[1:])
    border = set(np.unique(np.concatenate([local[0], local[-1], local[:, 0], local[:, -1]])).tolist())
    small = {n for n in found if sizes[n - 1] < rule.min_px and n not in border}
    kept = without_islets(found, small, rule.min_px)
    simple = simplify(np.array(list(kept.values()), dtype=object), rule.simplify_px)
    flat, pieces = classes.ravel(), {}
    for number, polygon in zip(kept, simple, strict=True):
        value, start = int(flat[starts[number - 1]]), int(starts[number - 1])
        if value != nodata and number not in small:
            first = (origin[0] + start // classes.shape[1], origin[1] + start % classes.shape[1])
            pieces[used + number] = _Piece(value, polygon, round(kept[number].area), first)
    return np.where(classes != nodata, local.astype(np.int64) + used, 0), pieces


def _join(a: NDArray[np.int64], b: NDArray[np.int64], pending: _Open) -> None:
    """Join the regions on both sides of a border where they have the same class."""
    both = (a > 0) & (b > 0)
    for first, second in np.unique(np.stack([a[both], b[both]], axis=1), axis=0).tolist():
        if pending.pieces[first].value == pending.pieces[second].value:
            pending.union.join(first, second)


def _regions(pieces: list[_Piece], rule: Outlines, size: tuple[int, int]) -> Iterator[Region]:
    """Join the pieces of one region; where simplification took a thin bridge away, each part stands alone."""
    first, pixels = min(piece.first for piece in pieces), sum(piece.pixels for piece in pieces)
    outlines = [piece.polygon for piece in pieces if not piece.polygon.is_empty]
    if not outlines or pixels < rule.min_px:
        return
    join = shapely.coverage_union_all if rule.simplify_px else shapely.union_all  # simplified pieces match at every vertex
    whole = outlines[0] if len(outlines) == 1 else join(outlines)
    parts = [part for part in shapely.get_parts(whole) if isinstance(part, Polygon)]
    for part in parts:
        filled = fill_small_holes(part, rule.min_px)
        held = pixels + round(filled.area - part.area) if len(parts) == 1 else round(filled.area)
        if min(held, filled.area) >= rule.min_px:  # by its outline too: the hole around it was measured by that
            yield Region(pieces[0].value, shapely.normalize(_tidy(filled, rule, size)), held, first)


def _tidy(polygon: Polygon, rule: Outlines, size: tuple[int, int]) -> Polygon:
    """Drop vertices at which the outline does not turn.

    Of simplified outlines only those on the raster's own edge, where no neighbour needs them: elsewhere they mark where a third
    region meets a straight line, and a coverage must have them on both sides.
    """
    rings = [np.asarray(ring.coords)[:-1, :2] for ring in (polygon.exterior, *polygon.interiors)]
    shell, *holes = (ring[_turns(ring) | (_inside(ring, size) if rule.simplify_px else False)] for ring in rings)
    return Polygon(shell, holes)


def _turns(ring: NDArray[np.float64]) -> NDArray[np.bool_]:
    ahead, behind = np.roll(ring, -1, axis=0) - ring, ring - np.roll(ring, 1, axis=0)
    turns: NDArray[np.bool_] = (ahead[:, 0] * behind[:, 1] - ahead[:, 1] * behind[:, 0]) != 0
    return turns


def _inside(ring: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    x, y = ring.T
    inside: NDArray[np.bool_] = (x > 0) & (x < size[1]) & (y > 0) & (y < size[0])
    return inside
