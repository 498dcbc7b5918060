"""k-means and trees of it on 200,000 x 384 unit rows of 2,000 concepts, beside faiss, scikit-learn and ssl-data-curation.

    uv venv OTHER --python 3.11
    uv pip install --python OTHER/bin/python faiss-cpu scikit-learn
    python performance/hierarchical_kmeans.py --peers-python OTHER/bin/python --ssl CHECKOUT [--seeds 5] [--tree-seeds 3]

Concepts have Zipf sizes and lie in families (``contenders/kmeans_data.py``). Every contestant is a process of its own, one
thread, one after another; CPU seconds include seeding and leave out reading. ``--folder`` keeps what is finished, so that an
interrupted comparison goes on. Bars: to the inertia at which a plain k-means by matrix products ends, at most 0.8 of its
seconds; to that of faiss' SuperKMeans, at most 1/8 of its seconds; of a tree 1000 -> 100 -> 10 from which 20,000 rows are
selected, at least 1.15 times the effective concepts (exponential of the entropy of true concepts) of ssl-data-curation with
ten rounds of resampling, at no more than 1/4 of its seconds. Selections of all trees are made by our code.

``--extrapolate`` measures the first level at two sizes from files instead, and prints hours, memory and disk for 16 million rows;
for eight GPUs it does arithmetic with rates that are assumed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contenders.kmeans_data import make_rows
from kmeans_scale import extrapolate
from numpy.typing import NDArray
from rates import decode_rate, gemm_rate

from cgeartheye.clustering.balance import select_balanced
from cgeartheye.clustering.kmeans import assign
from cgeartheye.clustering.tree import Tree

HERE = Path(__file__).resolve().parent / "contenders"
LEVELS, ROUNDS, BUDGET = (1000, 100, 10), 10, 20_000
FLAT_PEERS = ("superkmeans", "minibatch", "faiss")


def contest(folder: Path, label: str, seed: int, command: list[str], path: Path | None = None) -> dict[str, Any]:
    """Run a contestant, or return what an earlier run of it has left."""
    kept = folder / f"{label}.{seed}.json"
    if not kept.exists() or not kept.stat().st_size:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = {**os.environ, **threads, **({"PYTHONPATH": str(path)} if path else {})}
        levels = ["--levels", *map(str, LEVELS), "--seed", str(seed)]
        done = subprocess.run([*command, *levels], env=environment, check=True, stdout=subprocess.PIPE)
        kept.write_bytes(done.stdout)
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def effective(truth: NDArray[np.int64]) -> float:
    shares = np.bincount(truth) / len(truth)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def selected(folder: Path, label: str, seed: int, truth: NDArray[np.int64]) -> float:
    """Return the effective concepts of a tree's selection, mean of three draws."""
    with np.load(folder / f"{label}.{seed}.npz") as found:
        labels = [found[name].astype(np.int32) for name in found.files]
    sizes = [*map(len, labels[1:]), int(labels[-1].max()) + 1]
    tree = Tree(tuple(labels), tuple(np.zeros((size, 1), np.float32) for size in sizes))
    random = np.random.default_rng(0)
    draws = [random.integers(0, 2**63, len(truth)).astype(np.uint64) for _ in range(3)]
    return float(np.mean([effective(truth[select_balanced(tree, BUDGET, draw)]) for draw in draws]))


def reached(curve: list[tuple[float, float]], target: float) -> float:
    """Return after how many CPU seconds a curve is at the target or below; infinite where it is not."""
    return next((seconds for seconds, inertia in curve if inertia <= target), float("inf"))


def mean_curve(curves: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Return CPU seconds and inertia after each pass, means over seeds, up to the last pass that all seeds made."""
    passes = min(map(len, curves))
    return [tuple(pair) for pair in np.mean([curve[:passes] for curve in curves], axis=0).tolist()]


def flat(folder: Path, arguments: argparse.Namespace) -> None:
    rows = np.load(folder / "rows.npy")
    ours = str(HERE / "kmeans_ours.py")
    fewer = arguments.peer_seeds or arguments.seeds
    curves = {
        name: [contest(folder, name, s, [sys.executable, ours, name, str(folder)])["curve"] for s in range(seeds)]
        for name, seeds in (("plain", fewer), ("ours", arguments.seeds))
    }
    mean = mean_curve(curves["ours"])
    seconds, inertia = np.mean([curve[-1] for curve in curves["plain"]], axis=0)
    mine = reached(mean, inertia)
    print(f"plain: {inertia:,.0f} after {seconds:.1f} CPU s; ours is there after {mine:.2f}, and ends at", end=" ")
    print(f"{np.mean([curve[-1][1] for curve in curves['ours']]):,.0f}; ratio {mine / seconds:.3f} (bar 0.8, aim 0.6)")
    single = [reached(curve, inertia) for curve in curves["ours"]]
    print(f"  single seeds are there after {', '.join(f'{one:.1f}' for one in single)} (inf: it ends above)")
    if not arguments.peers_python:
        return
    for name in arguments.peers:
        found = []
        for seed in range(fewer if name == "superkmeans" else 1):
            command = [arguments.peers_python, str(HERE / "kmeans_peers.py"), name, str(folder)]
            spent = contest(folder, name, seed, command)["cpu_s"]
            with np.load(folder / f"{name}.{seed}.npz") as saved:
                centroids = np.ascontiguousarray(saved["arr_0"], np.float32)
            found.append((spent, float(assign(rows, centroids)[1].sum(dtype=np.float64))))
        seconds, inertia = np.mean(found, axis=0)
        mine = reached(mean, inertia)
        print(f"{name}: {inertia:,.0f} after {seconds:.1f} CPU s ({len(found)} seeds); ours is there after {mine:.2f},", end="")
        print(f" ratio {mine / seconds:.3f}" + (" (bar 0.125)" if name == "superkmeans" else ""))


def trees(folder: Path, arguments: argparse.Namespace) -> None:
    truth = np.load(folder / "truth.npy")
    some = np.random.default_rng(0).permutation(len(truth))[:BUDGET]
    print(f"effective concepts of a random draw {effective(truth[some]):.0f}, perfect {len(np.unique(truth)):,}")
    results: dict[str, tuple[float, float]] = {}

    def note(label: str, seeds: int, command: list[str], path: Path | None = None) -> None:
        spent = [contest(folder, label, s, command, path)["cpu_s"] for s in range(seeds)]
        found = [selected(folder, label, s, truth) for s in range(seeds)]
        results[label] = float(np.mean(found)), float(np.mean(spent))
        print(f"{label}: {np.mean(found):.0f} ({', '.join(f'{f:.0f}' for f in found)}) in {np.mean(spent):.1f} CPU s")

    for rounds in arguments.our_rounds:
        label = f"ours-{rounds}"
        command = [sys.executable, str(HERE / "kmeans_ours.py"), "tree", str(folder), "--rounds", str(rounds), "--out", label]
        note(label, arguments.tree_seeds, command)
    if arguments.ssl:
        command = [arguments.ssl_python, str(HERE / "kmeans_peers.py"), "ssl", str(folder), "--rounds", str(ROUNDS)]
        note("ssl", arguments.ssl_seeds or arguments.tree_seeds, command, arguments.ssl)
        for label in [f"ours-{rounds}" for rounds in arguments.our_rounds]:
            concepts, seconds = (mine / theirs for mine, theirs in zip(results[label], results["ssl"], strict=True))
            print(f"  {label} beside it: {concepts:.2f} of its concepts (bar 1.15) in {seconds:.3f} of its seconds (bar 0.25)")


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    if not (folder / "truth.npy").exists():
        rows, truth = make_rows(arguments.rows, arguments.width, seed=0)
        np.save(folder / "rows.npy", rows)
        np.save(folder / "truth.npy", truth)
    flat(folder, arguments)
    trees(folder, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where rows and finished results are kept")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tree-seeds", type=int, default=3)
    parser.add_argument("--peer-seeds", type=int, help="of the plain one and SuperKMeans, where fewer than of ours")
    parser.add_argument("--peers-python", help="a Python with faiss and scikit-learn")
    parser.add_argument("--peers", nargs="*", choices=FLAT_PEERS, default=FLAT_PEERS)
    parser.add_argument("--our-rounds", type=int, nargs="+", default=[10, 30], help="of resampling, one tree each")
    parser.add_argument("--ssl", type=Path, help="a checkout of facebookresearch/ssl-data-curation")
    parser.add_argument("--ssl-python", default=sys.executable, help="a Python with torch and scikit-learn")
    parser.add_argument("--ssl-seeds", type=int, help="of its tree, where fewer than of ours")
    parser.add_argument("--extrapolate", action="store_true")
    parser.add_argument("--sizes", type=int, nargs=2, default=[80_000, 320_000], help="of --extrapolate, multiples of 20,000")
    arguments = parser.parse_args()
    gflops = gemm_rate()
    print(f"a matrix product makes {gflops:.0f} GFLOP/s, {decode_rate():.0f} JPEGs of 512 px are decoded a CPU second")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.extrapolate:
            extrapolate(folder, tuple(arguments.sizes), gflops)
        else:
            compare(folder, arguments)


if __name__ == "__main__":
    main()
