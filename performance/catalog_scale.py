"""CPU milliseconds a scene of `catalog` on generated files, and of merely opening them with rasterio, in one run.

    python performance/catalog_scale.py [--scenes 4000] [--workers 2]

The physical limit beside it is GDAL itself: opening each file, reading its header and decoding one block.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window
from rates import decode_rate, gemm_rate

from cgeartheye.catalog import catalog
from cgeartheye.rasters.scenes import read_scenes
from cgeartheye.settings.catalog import CatalogSettings


def write(folder: Path, count: int) -> None:
    """Write small tiled GeoTIFFs in 500 a folder over 60 UTM zones and 12 months."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number // 500:04d}" / f"s{number:06d}_2023{1 + number % 12:02d}15.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        place = Affine(0.75, 0, 4e5 + number, 0, -0.75, 5e6)
        with rasterio.open(
            path, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8", crs=f"EPSG:326{1 + number % 60:02d}",
            transform=place, photometric="RGB", tiled=True, blockxsize=64, blockysize=64,
        ) as file:  # fmt: skip
            file.write(rng.integers(0, 255, (3, 64, 64), dtype=np.uint8))


def cpu() -> float:
    """CPU seconds of this process and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(entry.ru_utime + entry.ru_stime for entry in used)


def opened(folder: Path) -> float:
    """CPU seconds of GDAL alone."""
    start = time.process_time()
    for path in sorted(folder.rglob("*.tif")):
        with rasterio.open(path, driver="GTiff", sharing=False) as file:
            file.crs.to_string()
            file.read(window=Window(0, 0, 64, 64))
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "archive"
        write(folder, arguments.scenes)
        alone = opened(folder)
        start, clock = cpu(), time.monotonic()
        out = catalog(CatalogSettings(scenes=(folder,), workers=arguments.workers), Path(scratch) / "catalog")
        whole, wall = cpu() - start, time.monotonic() - clock
        start = time.process_time()
        kept = len(read_scenes(out / "catalog.parquet"))
        reading = time.process_time() - start
    n = arguments.scenes
    print(f"GEMM {gemm_rate():.0f} GFLOP/s, JPEG {decode_rate():.0f} images/s")
    print(f"{kept} scenes of {n} files, {arguments.workers} workers")
    ratio = f"{whole / alone:.1f}x, wall {wall:.0f} s"
    print(f"GDAL alone {1e3 * alone / n:.2f} CPU ms a scene; catalog {1e3 * whole / n:.2f} ({ratio})")
    print(f"reading the catalogue {1e3 * reading / n:.3f} CPU ms a scene")
    print(f"100,000 scenes: {whole / n * 1e5:.0f} CPU s, {whole / n * 1e5 / 60 / 8:.1f} minutes on 8 cores")
    print(f"largest process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
