"""The draw over all land on real world layers: exact, in CPU seconds and memory of one process.

    CGEARTHEYE_IMAGERY=/data/imagery OMP_NUM_THREADS=1 python performance/planet.py [--places 10000000] [--against 1000000]

Bars: 60 CPU seconds and 2 GB. Layers: land cover and elevation at 1/3 degree, unknown heights a bin of their own, bins of 200 m
from 0; countries at 1:110 m, laid on the raster of the other two by pixel centres: so the known counts come out. Prints cells,
strata, draw a class, capped strata, and a hash of the drawn ids; then draws again with fewer places and says whether that is
a part of it.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import rasterio
from rasterio.features import rasterize, shapes
from rates import decode_rate, gemm_rate

from cgeartheye.curation import curate
from cgeartheye.settings.curate import CurateSettings

CODES = {1: "forest", 2: "grassland", 3: "cropland", 4: "wetland", 5: "other", 6: "built-up", 7: "other", 8: "water"}
"""Of the layer of eight classes: other natural vegetation counts as grassland, bare ground and snow as other."""
COUNTRIES = Path("dem_landcover_admin/natural_earth_geojson/110m/cultural/ne_110m_admin_0_countries.json")


def world_settings(imagery: Path, work: Path, **changed: object) -> CurateSettings:
    """Write the countries of the known counts into ``work``, on the pixels of the other layers; return settings."""
    frame = gpd.read_file(imagery / COUNTRIES)
    elevation = imagery / "derived" / "world_elevation.tif"
    with rasterio.open(elevation) as source:
        shape, at = source.shape, {"transform": source.transform}
    numbered = [(area, number + 1) for number, area in enumerate(frame.geometry)]
    pixels = rasterize(numbered, out_shape=shape, dtype="int16", **at)
    parts = [(shape, int(value)) for shape, value in shapes(pixels, mask=pixels > 0, **at)]
    features = [{"type": "Feature", "properties": {"name": frame["ADM0_A3"][v - 1]}, "geometry": s} for s, v in parts]
    regions = work / "regions.geojson"
    gpd.GeoDataFrame.from_features(features, crs=4326).to_file(regions)
    given = {"source": "land", "land_cover": imagery / "derived" / "world_cover_cls.tif", "land_cover_classes": CODES}
    given |= {"elevation": elevation, "elevation_start_m": 0, "regions": regions, "draw": {"area": regions}, "workers": 0}
    return CurateSettings.model_validate({**given, **changed})


def main() -> None:
    """Draw, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=10_000_000)
    parser.add_argument("--against", type=int, default=1_000_000, help="Places of the second draw; 0: none.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        settings = world_settings(Path(os.environ["CGEARTHEYE_IMAGERY"]), work, places=arguments.places)
        start = time.process_time()
        curate(settings, work / "out")
        print(f"{time.process_time() - start:.1f} CPU s, of this process with its imports {time.process_time():.1f}")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
        tell(work / "out")
        if arguments.against:
            curate(settings.model_copy(update={"places": arguments.against}), work / "less")
            tell_prefix(work / "out", work / "less")
        print(f"matrix products {gemm_rate():.0f} GFLOP, JPEGs {decode_rate():.0f} a CPU second")


def tell(out: Path) -> None:
    """Print what was drawn."""
    print(json.loads((out / "funnel.json").read_text())["steps"])
    strata = pq.read_table(out / "strata.parquet").to_pandas()
    print(strata.groupby("land_cover")[["cells", "alpha", "cap", "drawn"]].sum().to_string())
    short = (strata["alpha"] - strata["cap"]).clip(lower=0).sum()
    print(
        f"capped {strata['capped'].sum()}, floored {strata['floored'].sum()}, asked of full strata beyond their cells {short:.0f}"
    )
    print("hash of the drawn ids", hashlib.sha256(ids_of(out).tobytes()).hexdigest()[:16])


def tell_prefix(large: Path, small: Path) -> None:
    """Print whether every stratum that grew kept its cells."""
    tables = [pq.read_table(out / "strata.parquet", columns=["stratum", "drawn"]).to_pandas() for out in (small, large)]
    shrunk = set(tables[0]["stratum"][tables[0]["drawn"] > tables[1]["drawn"]])
    lost = np.setdiff1d(ids_of(small), ids_of(large), assume_unique=True)
    cells = pq.read_table(small / "cells.parquet", columns=["cell", "stratum"]).to_pandas().set_index("cell")
    owners = collections.Counter(cells.loc[lost, "stratum"])
    print(
        f"{len(lost)} cells of the smaller draw are not in the larger, all in {len(shrunk)} strata that shrank:",
        set(owners) <= shrunk,
    )


def ids_of(out: Path) -> np.ndarray:
    """Return the drawn ids, ascending."""
    return np.sort(pq.read_table(out / "cells.parquet", columns=["cell"])["cell"].to_numpy())


if __name__ == "__main__":
    main()
