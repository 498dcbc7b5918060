"""Windows of a scene on one patch lattice, and the superblocks in which they are worked off.

Every window starts at a whole number of patches from the scene's first pixel, the last ones too: a window is never
shifted back to the scene's edge, because a shifted window cuts the ground into other patches; what lies outside the
scene is padded by reflection. Rows grow downwards, columns to the right, both in pixels of the scene's grid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import InputError


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels: rows ``row .. row + height``, columns ``col .. col + width``; may reach outside the scene."""

    row: int
    col: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below the window."""
        return self.row + self.height

    @property
    def right(self) -> int:
        """First column right of the window."""
        return self.col + self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices of an array that covers the scene."""
        return slice(self.row, self.bottom), slice(self.col, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width

    def intersect(self, other: Window) -> Window:
        """Return the common part; its height or width is 0 where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = max(0, min(self.bottom, other.bottom) - row)
        width = max(0, min(self.right, other.right) - col)
        return Window(row, col, height, width)

    def grow(self, margin_px: int) -> Window:
        """Return the window with ``margin_px`` more pixels on every side."""
        return Window(self.row - margin_px, self.col - margin_px, self.height + 2 * margin_px, self.width + 2 * margin_px)

    def within(self, origin: Window) -> tuple[slice, slice]:
        """Return the slices of this window in an array whose first element is the first pixel of ``origin``."""
        row, col = self.row - origin.row, self.col - origin.col
        return slice(row, row + self.height), slice(col, col + self.width)

    def __bool__(self) -> bool:
        return self.height > 0 and self.width > 0


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """How a scene of ``height`` x ``width`` px is cut into windows and superblocks; guards its own invariants.

    Args:
        height: rows of the scene.
        width: columns of the scene.
        window_px: side of the square a model sees.
        halo_px: pixels at each side of a window that are context; neighbouring windows overlap by twice that.
        patch_px: side of the model's patch; window and halo are multiples of it, hence origin and stride too.
        superblock: cores along a side of a superblock, the unit of memory and of resuming.

    Raises:
        InputError: if the sizes do not fit together.
    """

    height: int
    width: int
    window_px: int
    halo_px: int
    patch_px: int
    superblock: int = 1

    def __post_init__(self) -> None:
        check_lattice(self.window_px, self.halo_px, self.patch_px)
        if min(self.height, self.width, self.superblock) < 1:
            raise InputError(f"a scene of {self.height} x {self.width} px in superblocks of {self.superblock} cores is empty")

    @property
    def core_px(self) -> int:
        """Side of a window without its halo: the stride."""
        return self.window_px - 2 * self.halo_px

    @property
    def feather_px(self) -> int:
        """How far a window still counts beyond its core: half the halo."""
        return self.halo_px // 2

    @property
    def scene(self) -> Window:
        """The scene itself."""
        return Window(0, 0, self.height, self.width)

    @property
    def counts(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        return -(-self.height // self.core_px), -(-self.width // self.core_px)

    def window(self, i: int, j: int) -> Window:
        """Return what the model sees for core ``(i, j)``."""
        return self.core(i, j).grow(self.halo_px)

    def core(self, i: int, j: int) -> Window:
        """Return the core of window ``(i, j)``; the last ones may reach outside the scene."""
        return Window(i * self.core_px, j * self.core_px, self.core_px, self.core_px)

    def support(self, i: int, j: int) -> Window:
        """Return the pixels of the scene in which window ``(i, j)`` counts."""
        return self.core(i, j).grow(self.feather_px).intersect(self.scene)

    def blocks(self) -> Iterator[Superblock]:
        """Yield the superblocks row by row."""
        rows, cols = (-(-count // self.superblock) for count in self.counts)
        for row in range(rows):
            for col in range(cols):
                yield Superblock(self, row, col)


@dataclass(frozen=True, slots=True)
class Superblock:
    """A square of cores that is read, computed and stored as one piece."""

    plan: WindowPlan
    row: int
    col: int

    @property
    def name(self) -> str:
        """Name of its file of state."""
        return f"{self.row:05d}_{self.col:05d}"

    @property
    def cores(self) -> list[tuple[int, int]]:
        """Indices ``(i, j)`` of its windows, row by row."""
        rows, cols = self.plan.counts
        n = self.plan.superblock
        i_range = range(self.row * n, min((self.row + 1) * n, rows))
        j_range = range(self.col * n, min((self.col + 1) * n, cols))
        return [(i, j) for i in i_range for j in j_range]

    @property
    def region(self) -> Window:
        """Pixels of the scene that belong to it."""
        side = self.plan.superblock * self.plan.core_px
        return Window(self.row * side, self.col * side, side, side).intersect(self.plan.scene)

    @property
    def support(self) -> Window:
        """Pixels of the scene in which any of its windows counts: its region and a rim of half a halo."""
        return self.region.grow(self.plan.feather_px).intersect(self.plan.scene)

    @property
    def interior(self) -> Window:
        """Pixels in which no window of another superblock counts."""
        margin, scene, region = self.plan.feather_px, self.plan.scene, self.region
        top = region.row + (margin if region.row > 0 else 0)
        left = region.col + (margin if region.col > 0 else 0)
        bottom = region.bottom - (margin if region.bottom < scene.bottom else 0)
        right = region.right - (margin if region.right < scene.right else 0)
        return Window(top, left, max(0, bottom - top), max(0, right - left))

    def neighbours(self) -> list[Superblock]:
        """Return itself and the up to eight superblocks around it, row by row."""
        rows, cols = (-(-count // self.plan.superblock) for count in self.plan.counts)
        return [
            Superblock(self.plan, row, col)
            for row in range(max(0, self.row - 1), min(rows, self.row + 2))
            for col in range(max(0, self.col - 1), min(cols, self.col + 2))
        ]


def check_lattice(window_px: int, halo_px: int, patch_px: int) -> None:
    """Refuse windows whose origins, strides or halos would leave the patch lattice.

    Raises:
        InputError: naming the nearest sizes that fit.
    """
    for name, value in (("window_px", window_px), ("halo_px", halo_px)):
        if value % patch_px:
            lower = value - value % patch_px
            raise InputError(
                f"{name} {value} is not a multiple of the model's patch of {patch_px} px",
                remedy=f"take {lower} or {lower + patch_px}",
            )
    if halo_px < 0 or halo_px % 2:
        raise InputError(f"halo_px {halo_px} must be even and not negative, because half of it is feathered")
    if window_px < 3 * halo_px or window_px <= 2 * halo_px:
        raise InputError(f"window_px {window_px} leaves too small a core between two halos of {halo_px} px")


def reflect(first: int, count: int, size: int) -> NDArray[np.int64]:
    """Return which of ``size`` pixels stand at positions ``first .. first + count`` of an axis mirrored at both edges.

    The edge pixel itself is not repeated, as in ``numpy.pad(mode="reflect")``; an axis of one pixel repeats it.
    """
    if size == 1:
        return np.zeros(count, np.int64)
    period = 2 * (size - 1)
    index = np.arange(first, first + count) % period
    return np.minimum(index, period - index)
