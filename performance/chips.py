"""What cutting chips costs beside reading, warping and JPEG coding alone, in CPU seconds of one process.

    OMP_NUM_THREADS=1 python performance/chips.py [--scene FILE.tif] [--chip-px 672] [--chips 48] [--rounds 7]

A scene is made (noise with the spectrum of photographs, 0.75 m, tiles of 512 px, deflate, no-data 0), or one is given. The
floor is rasterio's ``read`` of the same window, for warped chips its bicubic ``reproject`` with the same kernel (mask not
warped), and Pillow's JPEG of quality 90. Ours is what `curate` does for a date: placing the grid, reading with the mask, the one
warp of picture and mask, coding. *Aligned* chips lie on the scene's pixels, *warped* ones are of the neighbouring zone. The
contestants take turns. Bar: 0.8 of the floor's rate. Last come the whole piece, with quality measures and registration of four
dates of which each is warped, and what 16 million chips take.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject
from rates import decode_rate, gemm_rate

from cgeartheye.catalog import catalog
from cgeartheye.curation.filtering import encode_jpeg
from cgeartheye.curation.places import PlaceBlock, Spot, cut_places
from cgeartheye.geometry.crs import LONLAT, transformer
from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.mosaic import read_mosaic
from cgeartheye.rasters.opening import gdal_env
from cgeartheye.rasters.reader import open_raster
from cgeartheye.rasters.scenes import read_scenes
from cgeartheye.rasters.warp import place
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.settings.curate import CurateSettings

PLANET = 16_000_000
GSD_M = 0.75
SIDE = 2048
ORIGIN = (771_000.0, 5_300_250.0)
CRS, NEIGHBOUR = "EPSG:32632", "EPSG:32633"


def synthetic(seed: int) -> NDArray[np.uint8]:
    """(3, SIDE, SIDE) uint8: amplitudes fall as 1/frequency, as in photographs."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    frequency[0, 0] = 1
    spectrum = np.exp(2j * np.pi * random.random(frequency.shape)) / frequency
    grey = np.fft.irfft2(spectrum, (SIDE, SIDE))
    grey = 120 + 40 * grey / grey.std() + random.normal(0, 3, grey.shape)
    return np.stack([np.clip(grey * share + offset, 1, 254) for share, offset in ((1, 0), (0.9, 12), (0.8, 20))]).astype(np.uint8)


def make_scene(folder: Path, date: dt.date, seed: int) -> Path:
    path = folder / f"scene_{date:%Y%m%d}.tif"
    profile: dict[str, Any] = {"width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8", "nodata": 0, "photometric": "RGB"}
    tiles = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "interleave": "pixel"}
    transform = Affine(GSD_M, 0, ORIGIN[0], 0, -GSD_M, ORIGIN[1])
    with rasterio.open(path, "w", driver="GTiff", crs=CRS, transform=transform, **profile, **tiles) as file:
        file.write(synthetic(seed))
    return path


def cpu(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def grids(path: Path, chip_px: int, count: int, crs: str | None) -> list[Grid]:
    """Random chips well inside a scene: on its own pixels, or around the same points in another system."""
    random = np.random.default_rng(1)
    with open_raster(path) as raster:
        lattice = raster.lattice
    a, _, c, _, _, f = lattice.transform
    made = []
    for _ in range(count):
        column, row = (int(random.integers(40, side - chip_px - 40)) for side in (lattice.width, lattice.height))
        grid = Grid(lattice.crs, c + column * a, f - row * a, a, chip_px, chip_px)
        if crs is not None:
            middle = (grid.x0 + chip_px * a / 2, grid.y0 - chip_px * a / 2)
            x, y = transformer(lattice.crs, crs).transform(*middle)
            grid = Grid(crs, round(x / a) * a - chip_px // 2 * a, round(y / a) * a + chip_px // 2 * a, a, chip_px, chip_px)
        made.append(grid)
    return made


def floor(path: Path, chips: list[Grid]) -> None:
    """Read, warp where needed, and code, as a short script would."""
    with gdal_env(), rasterio.open(path) as dataset, open_raster(path) as raster:
        bands = raster.plan.bands
        for grid, placed in zip(chips, [place(grid, raster.lattice) for grid in chips], strict=True):
            values = dataset.read(bands, window=placed.window)
            if not placed.exact:
                result = np.zeros((3, grid.height, grid.width), np.uint8)
                reproject(
                    values, result, src_transform=dataset.window_transform(placed.window), src_crs=dataset.crs,
                    dst_transform=Affine(*grid.transform), dst_crs=grid.crs, resampling=Resampling.cubic,
                    XSCALE=1, YSCALE=1, tolerance=0.01,
                )  # fmt: skip
                values = result
            Image.fromarray(np.moveaxis(values, 0, -1)).save(io.BytesIO(), "JPEG", quality=90, subsampling=2)


def ours(path: Path, chips: list[Grid]) -> None:
    with open_raster(path) as raster:
        for grid in chips:
            encode_jpeg(read_mosaic([raster], grid).colours, 90)


def compare(name: str, path: Path, chips: list[Grid], rounds: int) -> float:
    """Print the medians of turns, and return our chips a CPU second."""
    pairs = [(cpu(lambda: floor(path, chips)), cpu(lambda: ours(path, chips))) for _ in range(rounds + 1)][1:]
    ratio = statistics.median(theirs / mine for theirs, mine in pairs)
    theirs, mine = (statistics.median(pair[k] for pair in pairs) / len(chips) for k in (0, 1))
    verdict = "bar 0.8 met" if ratio >= 0.8 else "BAR 0.8 MISSED"
    print(f"{name}: floor {1e3 * theirs:.1f}, ours {1e3 * mine:.1f} CPU ms a chip; rate {ratio:.3f} of the floor's ({verdict})")
    return 1 / mine


def whole_piece(folder: Path, chip_px: int, count: int) -> float:
    """Return chips a CPU second of :func:`cut_places` on four dates, quality and registration included."""
    dates = [dt.date(2023, month, 15) for month in (2, 5, 8, 11)]
    for number, date in enumerate(dates):
        make_scene(folder / "dates", date, 7 + number // 2)
    catalog(CatalogSettings(scenes=(folder / "dates",), workers=1), folder / "catalog")
    scenes = dict(enumerate(read_scenes(folder / "catalog" / "catalog.parquet")))
    spots = []
    for number, grid in enumerate(grids(next(iter(scenes.values())).path, chip_px, count // 4, None)):
        middle = grid.x0 + chip_px * GSD_M / 2, grid.y0 - chip_px * GSD_M / 2
        lon, lat = transformer(CRS, LONLAT).transform(*middle)
        spots.append(Spot(f"p{number}", lon, lat, number, "none", "none", None, "none", tuple(scenes)))
    settings = CurateSettings(chip_px=chip_px)
    task = PlaceBlock(tuple(spots), scenes, settings, GSD_M)
    cut_places(task)
    made: list[int] = []
    seconds = cpu(lambda: made.append(cut_places(task).counts["chips_cut"]))
    return made[0] / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--chip-px", type=int, default=672)
    parser.add_argument("--chips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    print(f"GEMM {gemm_rate():.0f} GFLOP/s, JPEG decoding {decode_rate():.0f} of 512 px a CPU second, before")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "dates").mkdir()
        path = given.scene or make_scene(folder, dt.date(2023, 8, 15), 0)
        rates = {
            kind: compare(kind, path, grids(path, given.chip_px, given.chips, crs), given.rounds)
            for kind, crs in (("aligned", None), ("warped", NEIGHBOUR if given.scene is None else "EPSG:3857"))
        }
        rates["whole piece of four warped dates, quality and registration included"] = whole_piece(
            folder, given.chip_px, given.chips
        )
    for kind, rate in rates.items():
        print(f"{kind}: {rate:.1f} chips a CPU second; 16 million chips: {PLANET / rate / 3600:.0f} core-hours")
    print(f"GEMM {gemm_rate():.0f} GFLOP/s, JPEG decoding {decode_rate():.0f} of 512 px a CPU second, after")


if __name__ == "__main__":
    main()
