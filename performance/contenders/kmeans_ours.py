"""Our k-means, a plain one by matrix products, and our tree, on rows in a file: CPU seconds and results as JSON."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from cgeartheye.clustering.kmeans import lloyd
from cgeartheye.clustering.tree import build_tree

CHUNK, GAIN, ROWS_PER_SEED = 16_384, 2e-4, 20
Array = NDArray[np.float32]


def plain(x: Array, k: int, seed: int) -> Iterator[float]:
    """Lloyd's passes over every row and centroid, from greedy k-means++ on 20 k rows, until one gains under 2e-4."""
    random = np.random.default_rng(seed)
    c = greedy(x[np.sort(random.permutation(len(x))[: ROWS_PER_SEED * k])], k, random)
    lengths = float(np.square(x, dtype=np.float32).sum(dtype=np.float64))
    before = math.inf
    while True:
        inertia, sums, counts = lengths, np.zeros(c.shape), np.zeros(k, np.int64)
        for start in range(0, len(x), CHUNK):
            part = x[start : start + CHUNK]
            scores = part @ c.T
            scores *= -2
            scores += np.einsum("kd,kd->k", c, c)
            labels = scores.argmin(axis=1)
            inertia += float(scores[np.arange(len(part)), labels].sum(dtype=np.float64))
            ones = np.ones(len(part), np.float32)
            sums += csr_matrix((ones, (labels, np.arange(len(part)))), (k, len(part))) @ part
            counts += np.bincount(labels, minlength=k)
        yield inertia
        if before - inertia < GAIN * before:
            return
        before = inertia
        c = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], c).astype(np.float32)


def greedy(x: Array, k: int, random: np.random.Generator) -> Array:
    """Return k rows chosen by greedy k-means++ among all rows."""
    lengths, tries = np.einsum("nd,nd->n", x, x), 2 + int(math.log(k))
    first = int(random.integers(len(x)))
    chosen, nearest = [first], np.maximum(lengths + lengths[first] - 2 * (x @ x[first]), 0)
    while len(chosen) < k:
        total = nearest.cumsum(dtype=np.float64)
        tried = np.minimum(np.searchsorted(total, random.random(tries) * total[-1]), len(x) - 1)
        far = x @ x[tried].T
        far *= -2
        far += lengths[:, None]
        far += lengths[tried]
        np.clip(far, 0, nearest[:, None], out=far)
        best = int(far.sum(axis=0).argmin())
        chosen.append(int(tried[best]))
        nearest = far[:, best].copy()
    return x[chosen]


def ours(x: Array, k: int, seed: int) -> Iterator[float]:
    """The passes of ``kmeans``, one by one: sums to the means of the clusters that a pass leaves."""
    for state in lloyd(x, k, seed=seed):
        yield state.inertia


def curve(inertias: Iterator[float]) -> list[tuple[float, float]]:
    """Return CPU seconds since the start and inertia after each pass."""
    start = time.process_time()
    return [(time.process_time() - start, inertia) for inertia in inertias]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["ours", "plain", "tree"])
    parser.add_argument("folder", type=Path, help="holds rows.npy; receives the labels of a tree")
    parser.add_argument("--levels", type=int, nargs="+", required=True)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="tree")
    arguments = parser.parse_args()
    x = np.load(arguments.folder / "rows.npy")
    k, seed = arguments.levels[0], arguments.seed
    found: dict[str, Any]
    if arguments.name == "tree":
        start = time.process_time()
        tree = build_tree(x, tuple(arguments.levels), seed=seed, rounds=arguments.rounds)
        found = {"cpu_s": time.process_time() - start}
        np.savez(arguments.folder / f"{arguments.out}.{seed}.npz", *tree.labels)
    else:
        passes = ours(x, k, seed) if arguments.name == "ours" else plain(x, k, seed)
        found = {"curve": curve(passes)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
