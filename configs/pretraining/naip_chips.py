"""Cut scenes of several dates into chips on the pixels of the first one: left half to train on, right half to test on.

    python configs/pretraining/naip_chips.py --scenes $CGEARTHEYE_IMAGERY/geotiff/opengeos_data/naip --out out/naip_chips

`curate` draws places from cells and keeps a chip's side between training and hold-out, which leaves too few of a scene of
934 x 723 pixels. Here every chip of the scene is a place: 14 columns x 11 rows of 64 px, of which columns 1 to 7 go to
`OUT/train` and 8 to 14 to `OUT/test`, both folders of shards. The grids of the dates differ by up to 0.6 px as their
geotransforms declare, so the others are warped once onto the first one's.
"""

from __future__ import annotations

import argparse
import csv
import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgeartheye.curation.filtering import encode_jpeg, quality_columns
from cgeartheye.errors import DataError
from cgeartheye.geometry.grid import Grid
from cgeartheye.metrics.quality import measure_quality
from cgeartheye.rasters.reader import open_raster, read_on_grid
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.writer import write_shards

JPEG_QUALITY = 90
"""As `curate` has it."""
LICENCE = "public domain"


def main() -> None:
    """Write both folders and say what lies in them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the scenes")
    parser.add_argument("--dates", type=Path, default=Path(__file__).parents[1] / "naip_dates.csv", help="CSV: path, date")
    parser.add_argument("--out", type=Path, required=True, help="receives train/ and test/")
    parser.add_argument("--chip-px", type=int, default=64)
    given = parser.parse_args()
    with given.dates.open(newline="") as lines:
        listed = [(given.scenes / row["path"], datetime.date.fromisoformat(row["date"])) for row in csv.DictReader(lines)]
    dates = sorted(listed, key=lambda entry: entry[1])
    places = cut(dates, given.chip_px)
    last = max(column for _, column in places)
    for part, chosen in (("train", range(last // 2 + 1)), ("test", range(last // 2 + 1, last + 1))):
        found = [place for (_, column), place in places.items() if column in chosen]
        write_shards(given.out / part, found)
        print(f"{given.out / part}: {len(found)} places, {sum(len(place.chips) for place in found)} chips")


def cut(dates: list[tuple[Path, datetime.date]], side: int) -> dict[tuple[int, int], Place]:
    """Return the places by (row, column), each with a chip of (side, side) pixels a date.

    Raises:
        DataError: if a chip lacks data at a date.
    """
    grid = _grid(dates[0][0], side)
    pictures = [read_on_grid_of(path, grid) for path, _ in dates]
    places = {}
    for row in range(grid.height // side):
        for column in range(grid.width // side):
            part = (slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side))
            here = grid.window(row * side, column * side, side, side)
            where = {"crs": here.crs, "x0": here.x0, "y0": here.y0, "gsd_m": here.gsd_m}
            scenes = zip(dates, pictures, strict=True)
            chips = [_chip(path, date, image[part], valid[part]) for (path, date), (image, valid) in scenes]
            places[row, column] = Place(f"r{row:02d}_c{column:02d}", tuple(chips), where)
    return places


def read_on_grid_of(path: Path, grid: Grid) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return a scene's colours (H, W, 3) uint8 on a grid, and where it has data (H, W) bool."""
    with open_raster(path) as raster:
        return read_on_grid(raster, grid)


def _grid(path: Path, side: int) -> Grid:
    with open_raster(path) as raster:
        (gsd, _, x0, _, _, y0), crs = raster.georeference
        left, top = raster.width % side // 2, raster.height % side // 2  # in the middle: a warp has no data at the very edge
        whole = Grid(crs, x0, y0, gsd, raster.width, raster.height)
        return whole.window(top, left, raster.height // side * side, raster.width // side * side)


def _chip(path: Path, date: datetime.date, image: NDArray[np.uint8], valid: NDArray[np.bool_]) -> Chip:
    quality = measure_quality(image, valid)
    if quality.nodata > 0.01:
        raise DataError(f"a chip has no data in {quality.nodata:.1%} of it", where=str(path))
    columns: dict[str, Any] = {"date": date, "year": date.year, "quarter": (date.month + 2) // 3, "scene": path.stem}
    columns |= {"width": image.shape[1], "height": image.shape[0], "licence": LICENCE, **quality_columns(quality)}
    return Chip(encode_jpeg(np.ascontiguousarray(image), JPEG_QUALITY), columns)


if __name__ == "__main__":
    main()
