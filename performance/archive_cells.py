"""From footprints of scenes to drawn places: CPU time beside geopandas, and memory at n and at 4 n cells.

    OMP_NUM_THREADS=1 PYTHONPATH=src python performance/archive_cells.py [--side 32] [--rounds 5]

Scenes are squares of ten kilometres side by side, side x side of them, each at four quarters on one of twenty days of the
quarter; a cell of a square kilometre is a candidate where its chip of 388 m lies in the joined scenes of a date. geopandas
dissolves footprints by date and joins boxes of chips with them (``within``) and with scenes (``intersects``); it is given
the boxes. Both are told apart by nothing but their answer: the same pairs of cells and scenes, which is asserted.

The second part runs ``begin_archive`` (candidates, description, draw, tables) without layers in a fresh process for n and
4 n cells, and prints CPU time and memory a cell, and both for the 40 million cells of 400,000 scenes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from rates import decode_rate, gemm_rate

from cgeartheye.curation import archive
from cgeartheye.curation.candidates import Candidates, cells_of, chip_boxes, find_candidates, place_centres
from cgeartheye.curation.layers import Cells
from cgeartheye.curation.pieces import Workers
from cgeartheye.geometry.cells import CellGrid
from cgeartheye.progress import SILENT
from cgeartheye.settings.curate import CurateSettings

GRID, SIDE_M, SCENE_DEG, WORLD = CellGrid(1000), 388.0, 0.09, 40_000_000


def scenes_of(side: int) -> list[Any]:
    """Return 4 x side x side scenes around 5 E 0 N."""
    found = []
    for number in range(4 * side * side):
        quarter, at = divmod(number, side * side)
        west, south = 5 + at % side * SCENE_DEG, (at // side - side / 2) * SCENE_DEG
        date = dt.date(2023, 2 + 3 * quarter, 1 + at % 20)
        found.append(
            SimpleNamespace(footprint=shapely.box(west, south, west + SCENE_DEG, south + SCENE_DEG), date=date, gsd_m=0.75)
        )
    return sorted(found, key=lambda scene: scene.date)


def by_geopandas(scenes: list[Any], cells: Cells, boxes: np.ndarray) -> set[tuple[int, int]]:
    chips = gpd.GeoDataFrame({"cell": cells.ids}, geometry=boxes, crs=4326)
    frame = gpd.GeoDataFrame(
        {"date": [scene.date for scene in scenes], "scene": range(len(scenes))}, geometry=[s.footprint for s in scenes], crs=4326
    )
    wider = frame.set_geometry(shapely.buffer(frame.geometry.to_numpy(), 1e-8, join_style="mitre"), crs=4326)
    dates = wider.dissolve("date").explode(index_parts=False).reset_index()[["date", "geometry"]]
    inside = chips.sjoin(dates, predicate="within")[["cell", "date"]]
    meets = chips.sjoin(frame, predicate="intersects")[["cell", "date", "scene"]]
    pairs = meets.merge(inside, on=["cell", "date"])
    return set(zip(pairs["cell"].tolist(), pairs["scene"].tolist(), strict=True))


def pairs_of(found: Candidates) -> set[tuple[int, int]]:
    return set(zip(np.repeat(found.cells, np.diff(found.first)).tolist(), found.scenes.tolist(), strict=True))


def compare(side: int, rounds: int) -> None:
    scenes = scenes_of(side)
    cells = cells_of(scenes, GRID)
    ratios, spent = [], []
    for number in range(rounds):
        times = {}
        answers = {}
        for name in ("ours", "geopandas")[:: 1 - 2 * (number % 2)]:
            start = time.process_time()
            if name == "ours":
                found = find_candidates(scenes, cells, SIDE_M, 1)
            else:
                boxes = chip_boxes(*place_centres(GRID, cells.ids, SIDE_M, 1), SIDE_M)
                answers[name] = by_geopandas(scenes, cells, boxes)
            times[name] = time.process_time() - start
            if name == "ours":
                answers[name] = pairs_of(found)
        if answers["ours"] != answers["geopandas"]:
            raise SystemExit("the answers differ")
        ratios.append(times["ours"] / times["geopandas"])
        spent.append(1e6 * times["ours"] / len(cells))
    told = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}-{max(ratios):.3f}) of geopandas' CPU time"
    print(f"{len(cells):,} cells, {len(scenes):,} scenes, {rounds} rounds: {statistics.median(spent):.1f} us a cell, {told}")


def begin(side: int) -> None:
    scenes = scenes_of(side)
    archive._scenes = lambda _: scenes  # type: ignore[assignment]  # no files are read
    settings = CurateSettings.model_validate({"catalog": Path(), "gsd_m": 0.75, "chip_px": 518, "work": {"piece_places": 500}})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        begun = archive.begin_archive(settings, Path(folder), Workers(0, SILENT))
        cpu = time.process_time() - start
    size = begun.counts["cells_covered"]
    print(size, begun.counts["places_drawn"], cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def scale(side: int) -> None:
    sizes = []
    for one in (side, 2 * side):
        done = subprocess.run([sys.executable, __file__, "--begin", str(one)], check=True, capture_output=True, text=True)
        cells, places, cpu, peak = map(float, done.stdout.split())
        sizes.append((cells, cpu, peak))
        print(
            f"{cells:,.0f} cells, all {places:,.0f} places drawn: {1e6 * cpu / cells:.1f} us, {peak / 1e6:.0f} MB above imports"
        )
    (n, cpu, peak), (more, longer, higher) = sizes
    each, more_bytes = (longer - cpu) / (more - n), (higher - peak) / (more - n)
    print(f"a further cell {1e6 * each:.1f} us and {more_bytes:.0f} bytes: {WORLD:,} cells, all drawn,", end=" ")
    print(f"{each * WORLD / 3600:.2f} CPU hours, {(higher + more_bytes * (WORLD - more)) / 1e9:.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=32, help="scenes side by side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--begin", type=int, help="what this script starts")
    arguments = parser.parse_args()
    if arguments.begin:
        begin(arguments.begin)
        return
    print(f"{gemm_rate():.0f} GFLOP and {decode_rate():.0f} JPEGs of 512 px a CPU second", flush=True)
    compare(arguments.side, arguments.rounds)
    scale(2 * arguments.side)


if __name__ == "__main__":
    main()
