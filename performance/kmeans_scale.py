"""What the first level costs at 16 million rows, from two measured sizes; memory at n and at 4 n. See hierarchical_kmeans.py."""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from contenders.kmeans_data import make_rows

from cgeartheye.clustering.kmeans import kmeans
from cgeartheye.clustering.seeds import MOST_VALUES
from cgeartheye.clustering.tree import build_tree
from cgeartheye.curation.row_files import RowFiles

WIDTH, PLACES, PER_LEAF, ROUNDS = 1024, 16_000_000, 80, 10
SIZES, MEMORY_SIZES, BLOCK = (20_000, 80_000), (40_000, 160_000), 20_000


def child(name: str, folder: Path, n: int, k: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__)), name, str(folder), str(n), str(k)]
    one = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found: dict[str, Any] = json.loads(subprocess.run(command, env=one, check=True, stdout=subprocess.PIPE).stdout)
    return found


def write(folder: Path, n: int) -> None:
    """Write ``n`` float16 rows in files of 20,000, each the rows of other concepts."""
    for number in range(n // BLOCK):
        path = folder / f"rows{number}.npy"
        if not path.exists():
            np.save(path, make_rows(BLOCK, WIDTH, seed=number, concepts=500)[0].astype(np.float16))


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


def extrapolate(folder: Path) -> None:
    """Print memory at n and 4 n, and CPU hours, memory and disk for 16 million rows with their exponent."""
    write(folder, max(MEMORY_SIZES))
    small, large = (child("flat", folder, n, 500)["peak_mb"] for n in MEMORY_SIZES)
    print(
        f"peak memory, k = 500, {MEMORY_SIZES[0]:,} and {MEMORY_SIZES[1]:,} rows of {WIDTH}: {small:.0f} and {large:.0f} MB",
        end="",
    )
    print(f", ratio {large / small:.3f} (bar 1.05)")
    spent = [child("tree", folder, n, n // PER_LEAF)["cpu_s"] for n in SIZES]
    exponent = math.log(spent[1] / spent[0]) / math.log(SIZES[1] / SIZES[0])
    hours = spent[1] * (PLACES / SIZES[1]) ** exponent / 3600
    print(f"{PER_LEAF} rows a leaf, {ROUNDS} rounds: {spent[0]:.1f} and {spent[1]:.1f} CPU s for {SIZES[0]:,} and {SIZES[1]:,}")
    print(f"  exponent {exponent:.2f}; {PLACES:,} rows: {hours:.1f} CPU hours, {hours / 2:.1f} hours at best on two cores")
    k = PLACES // PER_LEAF
    seeding, clusters = 2 * 4 * MOST_VALUES, k * WIDTH * (8 + 3 * 4)
    print(f"  memory by formula: seeding {seeding / 1e9:.1f} GB, centroids and sums {clusters / 1e9:.1f} GB,", end="")
    print(f" rows' labels {24 * PLACES / 1e9:.1f} GB; disk {2 * PLACES * WIDTH / 1e9:.1f} GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["flat", "tree"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("n", type=int)
    parser.add_argument("k", type=int)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.name, arguments.folder, arguments.n, arguments.k)))


if __name__ == "__main__":
    main()
