"""Is a file whole? Found out without reading all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import rasterio
from rasterio.windows import Window

from cgeartheye.errors import DataError
from cgeartheye.rasters.opening import COPY_AGAIN, is_remote
from cgeartheye.rasters.reader import Raster, read_overview, read_window

_PROBE_PX: Final = 64
_MOST_BLOCKS: Final = 200_000


def check_whole(raster: Raster) -> None:
    """Compare the place of every block with the file's length, then decode pixels at the corners, the centre and an overview.

    Raises:
        DataError: naming the first part that is missing or cannot be decoded, or why the raster is no picture.
    """
    check_blocks(raster.dataset, raster.path)
    width, height = min(_PROBE_PX, raster.width), min(_PROBE_PX, raster.height)
    right, bottom = raster.width - width, raster.height - height
    for left, top in ((0, 0), (right, 0), (right // 2, bottom // 2), (0, bottom), (right, bottom)):
        read_window(raster, Window(left, top, width, height))
    if raster.dataset.overviews(1):
        read_overview(raster, _PROBE_PX)


def check_blocks(dataset: rasterio.DatasetReader, path: Path) -> None:
    """Compare offset and length of a local TIFF's blocks with its size; blocks of offset 0 were never written and read as empty.

    Raises:
        DataError: if a block lies beyond the end of the file.
    """
    if dataset.driver != "GTiff" or is_remote(path):
        return
    length = path.stat().st_size
    block_height, block_width = dataset.block_shapes[0]
    rows, columns = -(-dataset.height // block_height), -(-dataset.width // block_width)
    pixel = dataset.interleaving is not None and dataset.interleaving.name == "pixel"
    for band in (1,) if pixel else dataset.indexes:
        for index in range(0, rows * columns, max(1, rows * columns // _MOST_BLOCKS)):
            row, column = divmod(index, columns)
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band)
            size = dataset.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=band)
            if offset and size and int(offset) + int(size) > length:
                raise DataError(
                    f"is cut short: {length} bytes, but its rows from {row * block_height} on need {int(offset) + int(size)}",
                    where=str(path),
                    remedy=COPY_AGAIN,
                )
