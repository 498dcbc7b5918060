"""Foreign k-means on rows in a file, each in a process of its own: CPU seconds to standard output, clusters beside the rows."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PASSES = 25
Rows = NDArray[np.float32]
RESAMPLE_SIZES = {1: [15], 2: [15, 5], 3: [15, 5, 5]}


def faiss(rows: Rows, k: int, seed: int) -> Rows:
    library = importlib.import_module("faiss")
    library.omp_set_num_threads(1)
    found = library.Kmeans(rows.shape[1], k, niter=PASSES, seed=seed, max_points_per_centroid=1_000_000)
    found.train(rows)
    centroids: Rows = found.centroids
    return centroids


def superkmeans(rows: Rows, k: int, seed: int) -> Rows:
    library = importlib.import_module("faiss")
    library.omp_set_num_threads(1)
    settings = library.SuperKMeansParameters()
    settings.niter, settings.seed, settings.max_points_per_centroid = PASSES, seed, 1_000_000
    found = library.SuperKMeans(rows.shape[1], k, settings)
    found.train(rows)
    centroids: Rows = library.vector_to_array(found.centroids).reshape(k, -1)
    return centroids


def minibatch(rows: Rows, k: int, seed: int) -> Rows:
    cluster = importlib.import_module("sklearn.cluster")
    centroids: Rows = cluster.MiniBatchKMeans(k, random_state=seed, n_init=1).fit(rows).cluster_centers_
    return centroids


def ssl_tree(rows: Rows, levels: list[int], rounds: int, seed: int) -> list[Any]:
    """Return the labels of each level from fine to coarse."""
    vars(np)["Inf"] = np.inf  # the code is older than NumPy 2
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    np.random.seed(seed)  # noqa: NPY002 (the only seed it can be given)
    random.seed(seed)
    module = importlib.import_module("src.hierarchical_kmeans_gpu")
    x = torch.from_numpy(rows)
    if rounds:
        sizes = RESAMPLE_SIZES[len(levels)]
        found = module.hierarchical_kmeans_with_resampling(x, levels, len(levels), sizes, n_resamples=rounds, verbose=False)
    else:
        found = module.hierarchical_kmeans(x, levels, len(levels), verbose=False)
    return [level["assignment"] for level in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["faiss", "superkmeans", "minibatch", "ssl"])
    parser.add_argument("folder", type=Path, help="holds rows.npy; receives the result")
    parser.add_argument("--levels", type=int, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = np.load(arguments.folder / "rows.npy")
    flat = {"faiss": faiss, "superkmeans": superkmeans, "minibatch": minibatch}
    if arguments.name == "ssl":
        importlib.import_module("src.hierarchical_kmeans_gpu")
    else:
        importlib.import_module("sklearn.cluster" if arguments.name == "minibatch" else "faiss")
    out = arguments.folder / f"{arguments.name}.{arguments.seed}.npz"
    start = time.process_time()
    with contextlib.redirect_stdout(sys.stderr):
        if arguments.name == "ssl":
            labels = ssl_tree(rows, arguments.levels, arguments.rounds, arguments.seed)
            seconds = time.process_time() - start
            np.savez(out, *labels)
        else:
            centroids = flat[arguments.name](rows, arguments.levels[0], arguments.seed)
            seconds = time.process_time() - start
            np.savez(out, centroids)
    print(json.dumps({"cpu_s": seconds}))


if __name__ == "__main__":
    main()
