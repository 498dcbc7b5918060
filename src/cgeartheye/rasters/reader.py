"""Reading rasters: windows as 8-bit colours with a valid mask, raw values of layers, and either of them on a grid.

Every read of the package goes through here. A handle belongs to the thread that opened it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from cgeartheye.errors import DataError, ShapeError
from cgeartheye.geometry.crs import Affine6
from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.colours import Bands, ColourPlan, MaskKind, plan_colours, read_mask
from cgeartheye.rasters.control_points import fit_points
from cgeartheye.rasters.opening import COPY_AGAIN, gdal_env, is_remote, open_dataset
from cgeartheye.rasters.rectify import rectify_command
from cgeartheye.rasters.scenes import Scene
from cgeartheye.rasters.warp import SHRINK, Kernel, Lattice, Placement, place, warp

MAX_WINDOW_PX: Final = 2**28
"""More pixels are not read at once; about 1 GB of colours [ours]."""

Colours = tuple[NDArray[np.uint8], NDArray[np.bool_]]
"""(H, W, 3) uint8 RGB and (H, W) bool, True where the picture holds data."""
Values = tuple[NDArray[Any], NDArray[np.bool_]]
"""(H, W) of the raster's own type and (H, W) bool."""


@dataclass
class Raster:
    """An open raster; made by :func:`open_raster`, used by one thread.

    Args:
        path: the file.
    """

    path: Path
    _dataset: rasterio.DatasetReader = field(repr=False)
    _rgb: Bands | None = field(repr=False)
    _plan: ColourPlan | None = field(repr=False)
    _closing: ExitStack = field(repr=False)
    _lattice: Lattice | None = field(default=None, repr=False)
    _smaller: dict[int, Raster] = field(default_factory=dict, repr=False)
    _thread: int = field(default_factory=threading.get_ident, repr=False)

    @property
    def dataset(self) -> rasterio.DatasetReader:
        """The GDAL handle, for its header.

        Raises:
            RuntimeError: in another thread than the one that opened it.
        """
        if threading.get_ident() != self._thread:
            raise RuntimeError(f"{self.path} was opened in another thread; GDAL handles are not shared")
        return self._dataset

    @property
    def plan(self) -> ColourPlan:
        """How values become colours, decided at the first need.

        Raises:
            DataError: if the raster cannot be read as a picture.
        """
        if self._plan is None:
            with _reading(self.path, "at an overview"):
                self._plan = plan_colours(self.dataset, self.path, rgb=self._rgb)
        return self._plan

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.dataset.width)

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.dataset.height)

    @property
    def georeference(self) -> tuple[Affine6, str]:
        """Affine transform, and the coordinate reference system as "EPSG:n" or WKT.

        Ground control points count where an affine transform fits them all within half a pixel.

        Raises:
            DataError: if the raster has no system or no transform.
        """
        return self.lattice.transform, self.lattice.crs

    @property
    def lattice(self) -> Lattice:
        """Where its pixels lie; errors as of :attr:`georeference`."""
        if self._lattice is None:
            transform, crs = self._located()
            self._lattice = Lattice(transform, crs, self.height, self.width)
        return self._lattice

    def _located(self) -> tuple[Affine6, str]:
        dataset = self.dataset
        if dataset.transform.is_identity and dataset.rpcs:  # control points beside a sensor model are but its corners
            raise DataError(
                "its place is told by a sensor model (RPC) only",
                where=str(self.path),
                remedy=f"orthorectify it first: {rectify_command(dataset.rpcs, self.path)}",
            )
        points, system = dataset.gcps
        if dataset.transform.is_identity and points:
            crs = _named(system, self.path)
            return fit_points(points, self.path, degrees=bool(system.is_geographic)), crs
        crs = _named(dataset.crs, self.path)
        if dataset.transform.is_identity or dataset.transform.determinant == 0:
            raise DataError(
                "has no geotransform", where=str(self.path), remedy="georeference it, or put its world file (.tfw) beside it"
            )
        a, b, c, d, e, f = (float(v) for v in dataset.transform[:6])
        return (a, b, c, d, e, f), crs


def _named(crs: rasterio.crs.CRS | None, path: Path) -> str:
    if not crs:
        raise DataError(
            "has no coordinate reference system",
            where=str(path),
            remedy="write the right one into it: gdal_edit.py -a_srs EPSG:CODE FILE",
        )
    return str(crs.to_string())


@contextmanager
def open_raster(
    source: Path | str | Scene, *, plain: bool = False, rgb_bands: Bands | None = None, network: bool = False
) -> Iterator[Raster]:
    """Open a raster for this thread.

    Args:
        source: a local GeoTIFF, COG or JPEG 2000 file, or a scene of the catalogue, whose bands, mask and stretch then hold, and
            which may lie on the network: a catalogue holds such scenes only if this was asked for.
        plain: PNG and JPEG, too.
        rgb_bands: bands (from 1) that are red, green and blue; default: by colour interpretation.
        network: allow a path that :func:`cgeartheye.rasters.opening.gdal_path` made.

    Raises:
        DataError: if the file is missing, of another format, broken, beyond the size limits or no longer the scene's.
    """
    path = source.path if isinstance(source, Scene) else Path(source)
    plan = source.plan if isinstance(source, Scene) and rgb_bands is None else None
    with gdal_env(), ExitStack() as closing:
        dataset = closing.enter_context(open_dataset(path, plain=plain, network=network or isinstance(source, Scene)))
        if isinstance(source, Scene):
            _refuse_changed(dataset, source)
        yield Raster(path, dataset, rgb_bands, plan, closing)


def _refuse_changed(dataset: rasterio.DatasetReader, scene: Scene) -> None:
    now = (dataset.width, dataset.height, dataset.count, dataset.dtypes[0])
    if now != (scene.width, scene.height, scene.count, scene.dtype):
        raise DataError(
            "is not the file that was catalogued: its size, bands or type differ",
            where=str(scene.path),
            remedy="make the catalogue again: cgeartheye catalog",
        )


def read_window(raster: Raster, window: Window | None = None) -> Colours:
    """Read a rectangle as colours; what lies outside the raster is 0 and invalid.

    Args:
        raster: an open raster.
        window: whole columns and rows of it, ``Window(col_off, row_off, width, height)``; default: all of it.

    Returns: (H, W, 3) uint8 RGB and (H, W) bool; invalid pixels keep what the file holds there.

    Raises:
        DataError: if the raster is no picture, or its pixels cannot be read there.
        ShapeError: if the window is not made of whole pixels or too large.
    """
    planes, valid = read_planes(raster, window, pixelwise=True)
    return _channels_last(planes), valid


def read_planes(raster: Raster, window: Window | None = None, *, pixelwise: bool = False) -> Colours:
    """Read a rectangle as :func:`read_window` does, but as (3, H, W) uint8.

    ``pixelwise`` keeps the three colours of a pixel together in memory, from where (H, W, 3) is a view and not a copy.
    """
    window = _whole(raster, window)
    values, valid = _read(raster, raster.plan.bands, window, raster.plan.mask, pixelwise=pixelwise)
    return _to_bytes(raster.plan, values), valid


def read_values(raster: Raster, window: Window | None = None, *, band: int = 1) -> Values:
    """Read a rectangle of one band as it is; what lies outside the raster is 0 and invalid.

    Returns: (H, W) of the raster's type and (H, W) bool, True where there is data.

    Raises:
        DataError: if there is no such band, or its pixels cannot be read there.
        ShapeError: if the window is not made of whole pixels or too large.
    """
    if not 1 <= band <= raster.dataset.count:
        raise DataError(f"has {raster.dataset.count} bands, no band {band}", where=str(raster.path), remedy="name one of them")
    values, valid = _read(raster, (band,), _whole(raster, window), None)
    return values[0], valid


def read_raw(raster: Raster, window: Window, *, band: int = 1) -> NDArray[Any]:
    """Read a rectangle inside one band as stored, no-data included: half the work of :func:`read_values`.

    Returns: (H, W) of the raster's type.

    Raises:
        DataError: if its pixels cannot be read there.
    """
    with _reading(raster.path, f"around row {window.row_off}, column {window.col_off}"):
        values: NDArray[Any] = raster.dataset.read(band, window=window)
    return values


def read_overview(raster: Raster, longest_px: int) -> Colours:
    """Read the whole raster as colours, shrunk until its longer side is at most ``longest_px``.

    Returns: (h, w, 3) uint8 RGB and (h, w) bool.

    Raises:
        DataError: if the raster is no picture or cannot be read.
    """
    shrink = max(1.0, max(raster.width, raster.height) / longest_px)
    shape = (max(1, round(raster.height / shrink)), max(1, round(raster.width / shrink)))
    plan = raster.plan
    with _reading(raster.path, "at an overview"):
        values = raster.dataset.read(plan.bands, out_shape=(3, *shape))
        return _channels_last(_to_bytes(plan, values)), read_mask(raster.dataset, plan.mask, None, shape)


def read_on_grid(source: Raster | Scene, grid: Grid) -> Colours:
    """Read colours on a grid: a bit-for-bit copy where the raster lies on it within 0.01 px, else exactly one warp.

    The warp is bicubic, or an average (from the nearest overview that is not coarser) where pixels shrink more than 1.5
    times; it is made after the stretch to 8 bits, and a pixel is valid only if its whole kernel was.

    Args:
        source: an open raster, or a scene.
        grid: where to.

    Returns: (grid.height, grid.width, 3) uint8 RGB, 0 where invalid after a warp, and (grid.height, grid.width) bool.

    Raises:
        DataError: if the raster is no picture, not georeferenced, or cannot be read there.
        ShapeError: if too many source pixels would be needed at once.
    """
    if isinstance(source, Scene):
        with open_raster(source) as raster:
            return read_on_grid(raster, grid)
    raster, placed = at_scale(source, grid)
    if placed.window is None:
        return np.zeros((grid.height, grid.width, 3), np.uint8), np.zeros((grid.height, grid.width), bool)
    planes, valid = read_planes(raster, placed.window, pixelwise=placed.exact)
    if not placed.exact:
        planes, valid = warp(planes, valid, raster.lattice.window(placed.window), grid, kernel_for(placed))
    return _channels_last(planes), valid


def at_scale(raster: Raster, grid: Grid) -> tuple[Raster, Placement]:
    """Return the raster, or its coarsest overview that is not coarser than a grid, and how the grid lies in it.

    Raises:
        DataError: if the raster is no picture, not georeferenced, or its overview cannot be opened.
    """
    placed = place(grid, raster.lattice)
    if placed.window is not None and placed.shrink > SHRINK and (smaller := _overview(raster, placed.shrink)) is not None:
        return at_scale(smaller, grid)
    return raster, placed


def kernel_for(placed: Placement) -> Kernel:
    """Return the kernel of colours: an average where pixels shrink much, else bicubic."""
    return "average" if placed.shrink > SHRINK else "cubic"


def read_values_on_grid(raster: Raster, grid: Grid, *, band: int = 1, kernel: Kernel = "nearest") -> Values:
    """Read one band of a layer on a grid: a copy where it lies on it, else one warp; classes need "nearest" or "mode".

    Returns: (grid.height, grid.width) of the raster's type, 0 where invalid after a warp, and (grid.height, grid.width) bool.

    Raises:
        DataError: if the raster is not georeferenced or cannot be read there.
        ShapeError: if too many source pixels would be needed at once.
    """
    placed = place(grid, raster.lattice)
    if placed.window is None:
        return np.zeros((grid.height, grid.width), raster.dataset.dtypes[band - 1]), np.zeros((grid.height, grid.width), bool)
    values, valid = read_values(raster, placed.window, band=band)
    if placed.exact:
        return values, valid
    warped, known = warp(values[None], valid, raster.lattice.window(placed.window), grid, kernel)
    return warped[0], known


def _overview(raster: Raster, shrink: float) -> Raster | None:
    """Return the coarsest overview that is not coarser than asked for, as a raster of its own."""
    factors = raster.dataset.overviews(raster.plan.bands[0])
    fitting = [level for level, factor in enumerate(factors) if factor <= shrink]
    if not fitting:
        return None
    level = max(fitting, key=lambda index: factors[index])
    if level not in raster._smaller:
        dataset = raster._closing.enter_context(open_dataset(raster.path, overview=level, network=is_remote(raster.path)))
        raster._smaller[level] = Raster(raster.path, dataset, None, raster.plan, raster._closing)
    return raster._smaller[level]


def _to_bytes(plan: ColourPlan, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values of the raster's type, of any shape -> uint8."""
    return values if plan.stretch is None else plan.stretch.apply(values)


def _channels_last(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, H, W) -> (H, W, 3)."""
    return np.ascontiguousarray(np.moveaxis(planes, 0, -1))


def _whole(raster: Raster, window: Window | None) -> Window:
    window = Window(0, 0, raster.width, raster.height) if window is None else window
    edges = (window.col_off, window.row_off, window.width, window.height)
    if any(int(edge) != edge for edge in edges) or window.width < 1 or window.height < 1:
        raise ShapeError(f"a window of whole pixels is needed, not {window}")
    if window.width * window.height > MAX_WINDOW_PX:
        raise ShapeError(f"a window of {window.width} x {window.height} pixels is more than is read at once")
    return Window(*(int(edge) for edge in edges))


def _read(raster: Raster, bands: tuple[int, ...], window: Window, mask: MaskKind | None, *, pixelwise: bool = False) -> Values:
    """Return (n, H, W) values and (H, W) valid of a window, padded with 0 and False; without ``mask`` the band's own holds."""
    dataset = raster.dataset
    top, left = max(0, window.row_off), max(0, window.col_off)
    bottom = min(raster.height, window.row_off + window.height)
    right = min(raster.width, window.col_off + window.width)
    if top >= bottom or left >= right:
        empty = np.zeros((len(bands), window.height, window.width), dtype=dataset.dtypes[bands[0] - 1])
        return empty, np.zeros((window.height, window.width), dtype=bool)
    inner = Window(left, top, right - left, bottom - top)
    with _reading(raster.path, f"in rows {top} to {bottom - 1}, columns {left} to {right - 1}"):
        into = np.empty((inner.height, inner.width, len(bands)), dataset.dtypes[bands[0] - 1]).transpose(2, 0, 1)
        values = dataset.read(bands, window=inner, out=into if pixelwise else None)
        valid = _valid(raster, values, inner, mask) if mask else dataset.read_masks(bands[0], window=inner) > 0
    if (inner.height, inner.width) == (window.height, window.width):
        return values, valid
    rows = (top - window.row_off, window.row_off + window.height - bottom)
    columns = (left - window.col_off, window.col_off + window.width - right)
    return np.pad(values, ((0, 0), rows, columns)), np.pad(valid, (rows, columns))


def _valid(raster: Raster, values: NDArray[Any], window: Window, mask: MaskKind) -> NDArray[np.bool_]:
    """Return where a window holds data; the bands that were not read are only asked where all of these are empty."""
    shape = (window.height, window.width)
    if mask == "nodata":
        empty = raster.dataset.nodata
        # an integer of the same type, or NumPy compares all values as float64
        told = values != (values.dtype.type(empty) if empty in range(np.iinfo(values.dtype).max + 1) else empty)
        if told.all() or told.any(axis=0).all():
            return np.ones(shape, dtype=bool)
    return read_mask(raster.dataset, mask, window, shape)


@contextmanager
def _reading(path: Path, part: str) -> Iterator[None]:
    try:
        yield
    except RasterioError as error:
        raise DataError(
            f"cannot be read {part} ({error})",
            where=str(path),
            remedy=COPY_AGAIN,
        ) from error
