"""What the first level costs at 16 million rows, from two measured sizes; memory at n and at 4 n. See hierarchical_kmeans.py.

As a command with ``large`` it makes the first level for as many rows and clusters as are asked for, of 32 values each, so that
16 million rows and 200,000 clusters are had on any machine:

    OMP_NUM_THREADS=1 PYTHONPATH=src python performance/kmeans_scale.py large SCRATCH 16000000 200000

It prints CPU time, memory, how many of a sample of rows are not at the nearest of all centroids, and by how much the sum of their
squared distances is above the least.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contenders.kmeans_data import make_rows

from cgeartheye.clustering import neighbours, seeds
from cgeartheye.clustering.kmeans import FIRST_PASSES, assign, kmeans
from cgeartheye.clustering.tree import RESAMPLED_ROWS, build_tree
from cgeartheye.curation.row_files import RowFiles

WIDTH, PLACES, PER_LEAF, ROUNDS = 1024, 16_000_000, 80, 10
NARROW = 32
MEMORY_SIZES, BLOCK = (40_000, 160_000), 20_000
TRIED, GROUPS_SEEN, CENTRES_TRIED = 5, 64, 650
"""Centroids that a row is compared with for one of its group, as counted in a k-means of 4,000 clusters; groups around each whose
centroids are looked at for neighbours; and centres of groups that a new row is compared with, twice."""
PASSES = 15
"""Of one k-means, as measured; taken for the first level of 16 million rows."""
GPUS, GPU_FLOPS, BUS, HOST, STEP_S = 8, 60e12, 25e9, 2e9, 3e-4
"""Rates that are assumed, not measured: float32 products a second and GPU, bytes a second over a GPU's bus, bytes of rows that
a process reads and widens a second, and seconds of a step of seeding, which is a few small products and a copy back."""


def child(name: str, folder: Path, n: int, k: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), name, str(folder), str(n), str(k)]
    one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found: dict[str, Any] = json.loads(subprocess.run(command, env=one, check=True, stdout=subprocess.PIPE).stdout)
    return found


def write(folder: Path, n: int, width: int = WIDTH) -> None:
    """Write ``n`` float16 rows in files of 20,000, each the rows of other concepts."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n // BLOCK):
        path = folder / f"rows{number}.npy"
        if not path.exists():
            np.save(path, make_rows(BLOCK, width, seed=number, concepts=500)[0].astype(np.float16))


def measure(name: str, folder: Path, n: int, k: int) -> dict[str, float]:
    """Cluster in this process; without passes over all centroids, which large k never sees."""
    for module in (kmeans.__module__, build_tree.__module__):
        vars(sys.modules[module])["ALL_UP_TO"] = 0
    rows = RowFiles([folder / f"rows{number}.npy" for number in range(n // BLOCK)])
    start = time.process_time()
    if name == "tree":
        levels = (k, k // 10, k // 100) if k >= 1000 else (k, k // 10)
        build_tree(rows, levels, seed=0, rounds=ROUNDS)
    else:
        kmeans(rows, k, seed=0, max_passes=2)
    return {"cpu_s": time.process_time() - start, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def large(folder: Path, n: int, k: int) -> dict[str, float]:
    """Make the first level, ten rounds of resampling included, of rows of :data:`NARROW` values."""
    folder = folder / f"narrow{NARROW}"
    write(folder, n, NARROW)
    rows = RowFiles([folder / f"rows{number}.npy" for number in range(n // BLOCK)])
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tree = build_tree(rows, (k,), seed=0, rounds=ROUNDS)
    cpu, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    some = np.sort(np.random.default_rng(0).choice(n, 20_000, replace=False))
    sample, labels = rows[some].astype(np.float32), tree.labels[0][some]
    nearest, least = assign(sample, tree.centroids[0])
    own = np.square(sample - tree.centroids[0][labels]).sum(axis=1)
    sizes = np.bincount(tree.labels[0], minlength=len(tree.centroids[0]))
    return {
        "clusters": len(tree.centroids[0]),
        "cpu_s": round(cpu, 1),
        "peak_mb": peak / 1024,
        "peak_mb_before": before / 1024,
        "share_not_nearest": float((nearest != labels).mean()),
        "squares_above_least": float(own.sum() / least.sum() - 1),
        "largest_cluster": int(sizes.max()),
        "median_cluster": float(np.median(sizes)),
    }


def products(n: int, k: int) -> tuple[float, float, int]:
    """Return FLOP, bytes of float32 rows that are read, and steps of seeding of the first level, by formula."""
    seen = k * min(seeds.ROWS_PER_SEED, max(4, seeds.MOST_VALUES // (k * WIDTH)))
    parts = max(round(math.sqrt(k)), seen // seeds.ROWS_PER_GROUP)
    groups = max(round(math.sqrt(k)), k // neighbours.CENTROIDS_PER_GROUP)
    tried, around = TRIED * k / groups, max(round(math.sqrt(groups)), groups // neighbours.CENTROIDS_PER_GROUP)
    search = k * min(k, GROUPS_SEEN * k / groups)  # of the neighbours of each centroid, anew in every pass
    seeding = seen * parts + k * (4 * seen / parts) * (2 + int(math.log(k))) + FIRST_PASSES * seen * tried
    first = around + 2 * CENTRES_TRIED + 2 * tried  # for a new row
    kept = min(n, RESAMPLED_ROWS * k)
    rows = (1 + ROUNDS) * n + ROUNDS * kept  # that are new
    later = PASSES * (n + ROUNDS * kept) + ROUNDS * n
    pairs = (1 + ROUNDS) * (seeding + PASSES * search) + rows * first + later * tried
    read = (1 + PASSES + ROUNDS) * n + ROUNDS * PASSES * kept
    return 2 * WIDTH * pairs, 4.0 * WIDTH * read, (1 + ROUNDS) * k // seeds.SEEDS_AT_ONCE


def tell_arithmetic(gflops: float) -> None:
    """Print what the first level of 16 million rows asks for, at the rate of this processor and on eight GPUs."""
    flop, read, steps = products(PLACES, PLACES // PER_LEAF)
    print(f"arithmetic for the first level, {PASSES} passes, {ROUNDS} rounds: {flop:.1e} FLOP, {read / 1e12:.1f} TB of rows read")
    print(f"  at the {gflops:.0f} GFLOP/s of this run {flop / gflops / 1e9 / 3600:.1f} CPU hours of products alone")
    parts = {
        "products": flop / GPUS / GPU_FLOPS,
        "bus": read / GPUS / BUS,
        "reading and widening": read / GPUS / HOST,
        "steps of seeding, one after another": steps * STEP_S,
    }
    told = ", ".join(f"{name} {seconds / 60:.1f} min" for name, seconds in parts.items())
    print(f"  {GPUS} GPUs, a part of the rows each, AT ASSUMED RATES, NOTHING OF IT WAS RUN: {told};", end="")
    print(f" together {sum(parts.values()) / 3600:.1f} hours")


def extrapolate(folder: Path, sizes: tuple[int, int], gflops: float) -> None:
    """Print memory at n and 4 n, and CPU hours, memory and disk for 16 million rows with their exponent."""
    tell_arithmetic(gflops)
    write(folder, max(*MEMORY_SIZES, *sizes))
    small, large = (child("flat", folder, n, 500)["peak_mb"] for n in MEMORY_SIZES)
    print(
        f"peak memory, k = 500, {MEMORY_SIZES[0]:,} and {MEMORY_SIZES[1]:,} rows of {WIDTH}: {small:.0f} and {large:.0f} MB",
        end="",
    )
    print(f", ratio {large / small:.3f} (bar 1.05)")
    spent = [child("tree", folder, n, n // PER_LEAF)["cpu_s"] for n in sizes]
    exponent = math.log(spent[1] / spent[0]) / math.log(sizes[1] / sizes[0])
    hours = spent[1] * (PLACES / sizes[1]) ** exponent / 3600
    print(f"{PER_LEAF} rows a leaf, {ROUNDS} rounds: {spent[0]:.1f} and {spent[1]:.1f} CPU s for {sizes[0]:,} and {sizes[1]:,}")
    print(f"  exponent {exponent:.2f}; {PLACES:,} rows: {hours:.1f} CPU hours, {hours / 2:.1f} hours at best on two cores")
    k = PLACES // PER_LEAF
    seeding, clusters = 2 * 4 * seeds.MOST_VALUES, k * WIDTH * (8 + 3 * 4)
    print(f"  memory by formula: seeding {seeding / 1e9:.1f} GB, centroids and sums {clusters / 1e9:.1f} GB,", end="")
    print(f" rows' labels {24 * PLACES / 1e9:.1f} GB; disk {2 * PLACES * WIDTH / 1e9:.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["flat", "tree", "large"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("n", type=int)
    parser.add_argument("k", type=int)
    arguments = parser.parse_args()
    work = large if arguments.name == "large" else partial(measure, arguments.name)
    print(json.dumps(work(arguments.folder, arguments.n, arguments.k)))


if __name__ == "__main__":
    main()
