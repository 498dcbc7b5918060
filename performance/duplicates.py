"""Near duplicates planted among real pictures, found by `curate`; and what finding candidates costs among millions of hashes.

    CGEARTHEYE_IMAGERY=/path/to/samples python performance/duplicates.py --plant 200 --hashes 500000 2000000

The bank is every picture of three class sets; `--plant` pictures of each kind get one copy each, no picture two. Whatever is
dropped without being a copy or its original is a false drop. Hashes are random with planted pairs of 0 to 8 differing bits in a
random orientation; their peer is comparing every pair, measured on the first 20,000.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageEnhance
from rates import decode_rate, gemm_rate

from cgeartheye.clustering.candidates import BANDS, band_candidates, distinct
from cgeartheye.curation import curate
from cgeartheye.metrics.likeness import ORIENTATIONS, hamming, oriented_hashes
from cgeartheye.seeding import stream
from cgeartheye.settings.curate import CurateSettings

SETS = (
    "classification/RESISC45_twelve_classes/NWPU-RESISC12/train",
    "classification/AID_150px",
    "classification/RSSCN7",
)


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


def shifted(image: Image.Image) -> Image.Image:
    by = max(1, round(0.02 * image.width))
    moved = np.pad(np.asarray(image), ((by, 0), (by, 0), (0, 0)), "reflect")
    return Image.fromarray(moved[: image.height, : image.width])


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "byte copy": lambda image: image,  # the file itself is copied
    "recompressed, q40": recompressed,
    "halved": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS),
    "brightened by 20 %": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "shifted by 2 % both ways": shifted,
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "flipped": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned and recompressed": lambda image: recompressed(image.transpose(Image.Transpose.ROTATE_270)),
}


def plant(imagery: Path, bank: Path, each: int, keep: Callable[[str], bool]) -> tuple[dict[str, list[str]], int]:
    """Copy the pictures whose class ``keep`` wants and plant copies; return the copies' names by kind, and how many pictures."""
    files = [f for root in SETS for f in sorted((imagery / root).rglob("*.jpg")) if keep(f.parent.name)]
    for number, file in enumerate(files):
        (bank / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, bank / file.parent.name / f"{number:05d}.jpg")
    chosen = iter(stream(0, "planted").permutation(len(files)).tolist())
    planted: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind, change in KINDS.items():
        for number in (next(chosen) for _ in range(each)):
            name = f"{files[number].parent.name}/{number:05d}_copy.jpg"
            if kind == "byte copy":
                shutil.copy(files[number], bank / name)
            else:
                change(Image.open(files[number]).convert("RGB")).save(bank / name, quality=90)
            planted[kind].append(name)
    return planted, len(files)


def found(out: Path, bank: Path, planted: dict[str, list[str]]) -> tuple[dict[str, tuple[int, list[str]]], list[str]]:
    """Return how many pairs of each kind count and the copies of those not found; and the names dropped without being of a pair.

    A pair is found where one picture of it was dropped. Pairs of which a picture was refused for its quality (too much of it is
    white, say) do not count.
    """
    left = set(pq.read_table(out / "index.parquet")["scene"].to_pylist())
    unfit = set(pq.read_table(out / "rejected.parquet")["scene"].to_pylist())  # by its quality; duplicates are named by place
    dropped = {path.relative_to(bank).as_posix() for path in bank.rglob("*.jpg")} - left - unfit
    kinds, pairs = {}, set()
    for kind, names in planted.items():
        both = {name: {name, name.replace("_copy", "")} for name in names}
        counted = {name: pair for name, pair in both.items() if not pair & unfit}
        kinds[kind] = (len(counted), [name for name, pair in counted.items() if len(pair & dropped) != 1])
        pairs |= set().union(*both.values())
    return kinds, sorted(dropped - pairs)


def table(imagery: Path, each: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bank, out = Path(folder) / "bank", Path(folder) / "out"
        planted, n = plant(imagery, bank, each, lambda _: True)
        settings = CurateSettings(source="images", images=bank, workers=0)
        start = time.process_time()
        curate(settings, out)
        seconds = time.process_time() - start
        kinds, false = found(out, bank, planted)
        reasons = pq.read_table(out / "rejected.parquet")["reason"].to_pylist()
    print(f"{n} pictures, {each} copies of each kind, {seconds:.0f} CPU s for the whole curation, {len(reasons)} dropped")
    print("| kind | found |\n|---|--:|")
    for kind, (counted, missed) in kinds.items():
        print(f"| {kind} | {1 - len(missed) / counted:.1%} of {counted} {' '.join(missed)} |")
    print(f"| dropped without being planted, of {n} | {len(false)} {' '.join(false)} |")


def hashes(n: int) -> None:
    random = np.random.default_rng(n)
    base = random.integers(0, 2**63, n, dtype=np.uint64) << np.uint64(1)
    copies = 9 * 200
    values, bits = base[:copies].copy(), np.repeat(np.arange(9), 200)
    for row, number in enumerate(bits):
        for bit in random.permutation(63)[:number] + 1:
            values[row] ^= np.uint64(1 << int(bit))
        values[row] = oriented_hashes(values[row : row + 1], row % ORIENTATIONS)[0]
    every = np.concatenate([base, values])
    start = time.process_time()
    pairs = distinct([band_candidates(every, band, radius=8, window=256) for band in range(BANDS)])
    seconds = time.process_time() - start
    seen = set(map(tuple, pairs[:, :2].tolist()))
    recall = [np.mean([(int(i), n + int(i)) in seen for i in np.flatnonzero(bits == number)]) for number in range(9)]
    sample = every[:20_000]
    start = time.process_time()
    for o in range(ORIENTATIONS):
        turned = oriented_hashes(sample, o)
        for row in range(0, len(sample), 64):
            (hamming(sample[row : row + 64, None], turned[None]) <= 8).any()
    brute = (time.process_time() - start) / len(sample) ** 2 * n**2 / 2
    shown = {
        "hashes": n,
        "cpu_s": round(seconds, 1),
        "all_pairs_cpu_s": round(brute, 1),
        "ratio": round(seconds / brute, 5),
        "hours_for_16M": round(seconds / n * 16e6 / 3600, 2),
        "candidates_not_planted": len(pairs) - copies,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "recall_by_bits": [round(float(r), 3) for r in recall],
    }
    print(json.dumps(shown), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plant", type=int, default=200)
    parser.add_argument("--hashes", type=int, nargs="*", default=[500_000, 2_000_000])
    given = parser.parse_args()
    print(f"GEMM {gemm_rate():.0f} GFLOP/s, JPEG {decode_rate():.0f} pictures/s, both a CPU second of one thread", flush=True)
    for n in given.hashes:
        hashes(n)
    if given.plant:
        table(Path(os.environ["CGEARTHEYE_IMAGERY"]), given.plant)


if __name__ == "__main__":
    main()
