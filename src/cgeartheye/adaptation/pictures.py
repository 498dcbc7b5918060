"""What is known of a labelled picture before its pixels are read, and reading windows of it.

Rows and columns in pixels; labels are class numbers, 255 where nothing is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterWindow

from cgeartheye.adaptation.legend import IGNORED, Legend, Mask
from cgeartheye.adaptation.pairs import Labelled
from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import Affine6, apply, pixel_size_m
from cgeartheye.geometry.windows import Window
from cgeartheye.inference.windowed import read_padded
from cgeartheye.rasters.reader import Raster, open_raster, read_values, read_window


@dataclass(frozen=True)
class Picture:
    """A labelled picture whose two files fit together.

    Attributes:
        labelled: its files.
        height: rows.
        width: columns.
        gsd_m: from the georeference, else as the user said; None if nobody says.
        place: coordinate reference system and affine transform, None without georeference.
    """

    labelled: Labelled
    height: int
    width: int
    gsd_m: float | None
    place: tuple[str, Affine6] | None

    @property
    def scene(self) -> Window:
        """The whole picture."""
        return Window(0, 0, self.height, self.width)

    def ground(self, row: float, col: float) -> tuple[float, float] | None:
        """Return x and y of a pixel position, None without georeference."""
        if self.place is None:
            return None
        x, y = apply(self.place[1], col, row)
        return float(x), float(y)


def inspect(labelled: Labelled) -> Picture:
    """Open both files of a pair and compare them.

    Raises:
        DataError: if one cannot be read, or they differ in size or place.
    """
    with open_raster(labelled.image, plain=True) as image, open_raster(labelled.mask, plain=True) as mask:
        size, mask_size = (image.height, image.width), (mask.height, mask.width)
        if size != mask_size:
            raise DataError(
                f"the mask is {mask_size[1]} x {mask_size[0]} px, its picture {size[1]} x {size[0]}",
                where=str(labelled.mask),
                remedy="cut or resample one of them so that both cover the same pixels",
            )
        place, mask_place = _place(image), _place(mask)
        if place and mask_place and not np.allclose(place[1], mask_place[1], atol=0.5 * abs(place[1][0])):
            raise DataError(
                "the mask lies elsewhere than its picture",
                where=str(labelled.mask),
                remedy="put both on one grid: gdalwarp -te -tr",
            )
        gsd_m = labelled.gsd_m
        if place is not None:
            gsd_m = float(np.mean(pixel_size_m(place[1], image.width, image.height, place[0])))
    return Picture(labelled, *size, gsd_m, place)


def _place(raster: Raster) -> tuple[str, Affine6] | None:
    try:
        transform, crs = raster.georeference
    except DataError:
        return None
    return crs, transform


@contextmanager
def opened(picture: Picture) -> Iterator[tuple[Raster, Raster]]:
    """Open the picture and its mask."""
    with open_raster(picture.labelled.image, plain=True) as image, open_raster(picture.labelled.mask, plain=True) as mask:
        yield image, mask


def read_mask(mask: Raster, window: Window, legend: Legend) -> Mask:
    """Read a window inside a mask as values or colours, whichever the legend can use of what the file has."""
    dataset, cut = mask.dataset, _cut(window)
    if dataset.count >= 3:
        bands = [read_values(mask, cut, band=band)[0] for band in (1, 2, 3)]
        return Mask(_bytes(np.stack(bands, axis=-1), mask), mask.path)
    values = _bytes(read_values(mask, cut)[0], mask)
    palette = _palette(mask)
    if palette is not None and legend.by_colour:
        return Mask(palette[values], mask.path)
    return Mask(values, mask.path)


def _bytes(values: NDArray[np.generic], mask: Raster) -> NDArray[np.uint8]:
    if values.dtype != np.uint8 and (values.min() < 0 or values.max() > 255):
        raise DataError(f"holds {values.dtype} values beyond 0 to 255", where=str(mask.path), remedy="renumber the classes")
    return values.astype(np.uint8)


def _palette(mask: Raster) -> NDArray[np.uint8] | None:
    try:
        table = mask.dataset.colormap(1)
    except ValueError:
        return None
    palette = np.zeros((256, 3), np.uint8)
    for index, colour in table.items():
        palette[index] = colour[:3]
    return palette


def read_labels(mask: Raster, window: Window, legend: Legend, unknown: Counter[str]) -> NDArray[np.uint8]:
    """Return the (H, W) uint8 class numbers of a window that may reach outside the picture; nothing is known there."""
    labels = np.full(window.shape, IGNORED, np.uint8)
    inside = window.intersect(Window(0, 0, mask.height, mask.width))
    labels[inside.within(window)] = legend.decode(read_mask(mask, inside, legend), unknown)
    return labels


def read_pixels(image: Raster, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (H, W, 3) uint8 pixels of a window, mirrored outside the picture, and (H, W) bool where they hold data."""
    scene = Window(0, 0, image.height, image.width)
    return read_padded(lambda part: read_window(image, _cut(part)), window, scene)


def _cut(window: Window) -> RasterWindow:
    return RasterWindow(window.col, window.row, window.width, window.height)
