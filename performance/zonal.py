"""Zonal statistics at true resolution: a generated 10-m land-cover COG of 200 x 200 km and 30-m elevation, by 1-km cells.

    OMP_NUM_THREADS=1 python performance/zonal.py [--pixels 20000]

Bars: 150 Mpx a CPU second beyond decoding, memory that does not grow with the area. Land cover is patches of eight codes of
ESA WorldCover with a tenth of speckle, deflate, blocks of 512; all in degrees, one pixel 1/12,000 (1/3,600). Decoding is
that of the same windows by the same reader, the mean of once before and once after. A quarter of the area, then all of it, each
in a fresh process, whose peak memory is that of its own address space (VmHWM): the peak that the kernel hands on from the
process that wrote the files (ru_maxrss) would hide it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
import shapely
from rasterio.shutil import copy
from rasterio.transform import from_origin
from rasterio.windows import Window
from rates import decode_rate, gemm_rate

from cgeartheye.curation.land import Piece
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.zonal import WINDOW_PX, class_counts, means
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.rasters.reader import open_raster, read_raw
from cgeartheye.settings.curate import CLASSES, WORLD_COVER

WEST, NORTH = 8.0, 48.0
CODES = np.array([10, 20, 30, 40, 50, 60, 80, 90], np.uint8)
WORLD_PX = 3.44e12
"""Pixels of ESA WorldCover."""


def write_cover(path: Path, pixels: int) -> None:
    """Write the land cover, block by block, then as COG with overviews."""
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "height": pixels,
        "width": pixels,
        "crs": "EPSG:4326",
        "nodata": 0,
    }
    tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    plain = path.with_name("plain.tif")
    with rasterio.open(plain, "w", transform=from_origin(WEST, NORTH, 1 / 12_000, 1 / 12_000), **profile, **tiled) as target:
        for top in range(0, pixels, 512):
            random = np.random.default_rng(top)
            patches = CODES[random.integers(0, 8, (32, -(-pixels // 16)))].repeat(16, axis=0).repeat(16, axis=1)[:, :pixels]
            speckle = random.random(patches.shape, np.float32) < 0.1
            patches[speckle] = CODES[random.integers(0, 8, int(speckle.sum()))]
            rows = min(512, pixels - top)
            target.write(patches[:rows], 1, window=Window(0, top, pixels, rows))
    copy(plain, path, driver="COG", compress="deflate", blocksize=512, overview_resampling="nearest")
    plain.unlink()


def write_elevation(path: Path, pixels: int) -> None:
    """Write slopes with noise."""
    rows, columns = np.ogrid[:pixels, :pixels]
    heights = (rows * 0.1 + columns * 0.2 + np.random.default_rng(0).normal(0, 9, (pixels, pixels))).astype(np.int16)
    profile = {"driver": "GTiff", "dtype": "int16", "count": 1, "height": pixels, "width": pixels, "crs": "EPSG:4326"}
    tiled = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "nodata": -32768}
    with rasterio.open(path, "w", transform=from_origin(WEST, NORTH, 1 / 3600, 1 / 3600), **profile, **tiled) as target:
        target.write(heights, 1)


def decoding_seconds(path: Path, share: float) -> tuple[float, int]:
    """CPU seconds of reading the north-western ``share`` x ``share`` of a raster, and its pixels."""
    start = time.process_time()
    with open_raster(path) as raster:
        edge = round(raster.width * share)
        for top in range(0, edge, WINDOW_PX):
            for left in range(0, edge, WINDOW_PX):
                read_raw(raster, Window(left, top, min(WINDOW_PX, edge - left), min(WINDOW_PX, edge - top)))
    return time.process_time() - start, edge * edge


def child(folder: Path, share: float) -> None:
    """Measure one area and print what was found as JSON."""
    grid = CellGrid(1000)
    with open_raster(folder / "cover.tif") as raster:
        side = raster.width / 12_000 * share
    area = shapely.box(WEST, NORTH - side, WEST + side, NORTH)
    codes = {code: CLASSES.index(name) for code, name in WORLD_COVER.items()}
    first, last = (int(grid.locate([0], [lat])[0][0]) for lat in (NORTH - side, NORTH))
    begun = peak_gb()
    inside = grid.within(area, whole=True)
    found = {f"decode_{name}": decoding_seconds(folder / f"{name}.tif", share)[0] / 2 for name in ("cover", "elevation")}
    seconds, counted = {"cover": 0.0, "elevation": 0.0}, 0
    for row in range(first, last + 1, 64):
        piece = Piece(row, min(row + 64, last + 1))
        low, high = np.searchsorted(inside, [piece.first << 32, piece.stop << 32])
        cells = Cells(grid, inside[low:high])
        start = time.process_time()
        counted += int(class_counts(folder / "cover.tif", cells, codes, len(CLASSES)).sum())
        seconds["cover"] += time.process_time() - start
        start = time.process_time()
        means(folder / "elevation.tif", cells)
        seconds["elevation"] += time.process_time() - start
    for name in seconds:
        again, found[f"px_{name}"] = decoding_seconds(folder / f"{name}.tif", share)
        found[f"decode_{name}"] += again / 2
    print(
        json.dumps(
            {**found, "seconds": seconds, "counted": counted, "cells": len(inside), "peak_gb": peak_gb(), "begun_gb": begun}
        )
    )


def peak_gb() -> float:
    """Most memory that this process has had resident since it was begun."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def main() -> None:
    """Write the layers, measure both areas, print rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pixels", type=int, default=20_000)
    parser.add_argument("--child", nargs=2)
    arguments = parser.parse_args()
    if arguments.child:
        child(Path(arguments.child[0]), float(arguments.child[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cover(folder / "cover.tif", arguments.pixels)
        write_elevation(folder / "elevation.tif", arguments.pixels * 3 // 10)
        for share in (0.5, 1.0):
            told = subprocess.run([sys.executable, __file__, "--child", name, str(share)], check=True, capture_output=True)
            tell(share, json.loads(told.stdout))
    print(f"matrix products {gemm_rate():.0f} GFLOP, JPEGs {decode_rate():.0f} a CPU second")


def tell(share: float, found: dict) -> None:
    """Print one area's rates."""
    print(
        f"{share:g} of a side: {found['cells']} cells, {found['counted'] / 1e6:.0f} Mpx counted, "
        f"peak {found['peak_gb']:.3f} GB, of which {found['begun_gb']:.3f} before the first read"
    )
    for name in ("cover", "elevation"):
        pixels, decode, whole = found[f"px_{name}"], found[f"decode_{name}"], found["seconds"][name]
        beyond = max(whole - decode, 1e-9)
        print(
            f"  {name}: {pixels / 1e6:.0f} Mpx, decoding {pixels / decode / 1e6:.0f} Mpx a CPU s, "
            f"all {pixels / whole / 1e6:.0f}, "
            f"beyond decoding {pixels / beyond / 1e6:.0f}"
        )
    both = sum(found["seconds"].values()) / found["px_cover"]
    print(f"  3.44e12 px of land cover with elevation: {both * WORLD_PX / 3600:.1f} core-hours, decoding included")


if __name__ == "__main__":
    main()
