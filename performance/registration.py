"""Shifts planted on the real second date of a place: how many are measured within 0.2 px, and what a pair costs.

    OMP_NUM_THREADS=1 python performance/registration.py --imagery FOLDER [--held-out]

FOLDER is the sample imagery: four NAIP dates of one place, put on one grid by their geotransforms, in chips of 512, 384 and
256 px (six pairs of dates, four or six spots), and eight NEON season pairs, whole and in quarters. Shifts of 0.3 to 5 px are
planted on the second date by the Fourier shift; truth is the planted shift plus the residue measured unplanted. An uncertain
answer is a miss. Pairs of different places must be uncertain. The residues themselves are checked by their sum around triangles
of dates, which must be 0. Beside it, in the same run, one window of scikit-image's phase correlation. Bars: 95 % of planted
shifts, 95 % of pairs of different places.

`--held-out` measures pictures on which nothing was tuned, with shifts of random length (0.3 to 5 px) and direction: eight places
of Chesapeake NAIP (1 m), LEVIR-CD (0.5 m), DSIFN (2 m and less) and Szada (1.5 m), whose dates lie years apart, and other spots
and other bands of the four NAIP dates and of NEON.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rates import decode_rate, gemm_rate
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from cgeartheye.geometry.grid import Grid
from cgeartheye.geometry.registration import Shift, measure_shift
from cgeartheye.metrics.quality import LUMA
from cgeartheye.rasters.reader import open_raster, read_on_grid, read_window
from cgeartheye.seeding import stream

NAIP, NEON = Path("geotiff/opengeos_data/naip"), Path("detection/DeepForest_NEON/data/SJER")
MARGIN_PX, NEAR_PX = 16, 0.2
AMOUNTS = (0.3, 0.5, 1.0, 2.0, 5.0)
Grey = NDArray[np.float32]
Pair = tuple[Grey, Grey, tuple[int, int]]
Measure = Callable[[Grey, Grey], Shift]


def naip_dates(imagery: Path, weights: Grey = LUMA) -> list[Grey]:
    paths = sorted((imagery / NAIP).glob("*.tif"))
    with open_raster(paths[0]) as raster:
        (_, _, x0, _, _, y0), crs = raster.georeference
    grid, dates = Grid(crs, x0 + 15, y0 - 15, 5.0, 926, 714), []
    for path in paths:
        with open_raster(path) as raster:
            dates.append(np.asarray(read_on_grid(raster, grid)[0] @ weights, np.float32))
    return dates


def naip_pairs(dates: Sequence[Grey], side: int, columns: int) -> list[Pair]:
    full, (height, width) = side + 2 * MARGIN_PX, dates[0].shape
    return between_dates(
        dates, full, [(y, round(i * (width - full) / (columns - 1))) for y in (0, height - full) for i in range(columns)]
    )


def between_dates(dates: Sequence[Grey], full: int, spots: Sequence[tuple[int, int]]) -> list[Pair]:
    cut = [[date[y : y + full, x : x + full] for y, x in spots] for date in dates]
    return [(cut[a][k], cut[b][k], spot) for a, b in itertools.combinations(range(len(dates)), 2) for k, spot in enumerate(spots)]


def grey(path: Path, weights: Grey = LUMA) -> Grey:
    if path.suffix in {".png", ".bmp"}:
        return np.asarray(np.asarray(Image.open(path).convert("RGB")) @ weights, np.float32)
    with open_raster(path) as raster:
        return np.asarray(read_window(raster)[0] @ weights, np.float32)


def two_dates(firsts: Sequence[Path], second: Callable[[Path], Path], weights: Grey = LUMA) -> list[Pair]:
    return [(grey(path, weights), grey(second(path), weights), (9999 * k, 0)) for k, path in enumerate(firsts)]


def neon_pairs(imagery: Path, weights: Grey = LUMA) -> list[Pair]:
    return two_dates(sorted((imagery / NEON).glob("*.tif")), lambda path: path.parent / "2017" / path.name, weights)


def held_out(imagery: Path) -> dict[str, list[Pair]]:
    change, green, red = imagery / "change_detection", np.array([0, 1, 0], np.float32), np.array([1, 0, 0], np.float32)
    patches = sorted((imagery / "segmentation/naip_chesapeake_patches").glob("*_naip_a.tif"))
    sets = {"NAIP Chesapeake 224 px": two_dates(patches, lambda path: path.with_name(path.name.replace("_a.", "_b.")))}
    for name, folder in (("LEVIR-CD", "LEVIR_CD_12pairs"), ("DSIFN", "DSIFN_10pairs")):
        firsts = [path for path in sorted((change / folder / "A").glob("*.png")) if Image.open(path).size == (256, 256)]
        sets[f"{name} 224 px"] = two_dates(firsts, lambda path: path.parents[1] / "B" / path.name)
    full = 256 + 2 * MARGIN_PX
    szada = [[grey(change / f"SZTAKI_AirChange/Szada/{n}/im{k}.bmp") for k in (1, 2)] for n in (1, 2)]
    spots = [(y, x) for y in (0, 352) for x in (0, 332, 664)]
    sets["Szada 256 px"] = [
        (a, b, (y + 9999 * n, x)) for n, dates in enumerate(szada) for a, b, (y, x) in between_dates(dates, full, spots)
    ]
    dates = naip_dates(imagery, red)
    sets["NAIP 256 px, spots between, red"] = between_dates(dates, full, [(213, x) for x in (100, 320, 540)])
    sets["NAIP 384 px, spots between, red"] = between_dates(dates, 384 + 2 * MARGIN_PX, [(149, x) for x in (0, 255, 510)])
    sets["NEON 368 px, green"] = neon_pairs(imagery, green)
    sets["NEON 256 px, spots between, green"] = [
        (a[y : y + full, x : x + full], b[y : y + full, x : x + full], spot)
        for a, b, spot in neon_pairs(imagery, green)
        for y, x in ((56, 0), (0, 56), (56, 112), (112, 56))
    ]
    return sets


def quarters(pairs: Sequence[Pair]) -> list[Pair]:
    spots = list(itertools.product((0, 112), repeat=2))
    cut = slice(0, 256 + 2 * MARGIN_PX)
    return [(a[y:, x:][cut, cut], b[y:, x:][cut, cut], (k, 0)) for a, b, (k, _) in pairs for y, x in spots]


def planted(picture: Grey, rows: float, columns: float) -> Grey:
    moved = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(picture), (rows, columns))).real
    return np.asarray(moved[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX], np.float32)


def inner(picture: Grey) -> Grey:
    return picture[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]


def ours(first: Grey, second: Grey) -> Shift:
    return measure_shift(first, second, valid=np.ones(first.shape, bool))


def phase(first: Grey, second: Grey) -> Shift:
    back = phase_cross_correlation(first, second, upsample_factor=20)[0]
    return Shift(-float(back[0]), -float(back[1]), 0.0, certain=True)


def diagonal(_: int) -> list[tuple[float, float]]:
    return [(amount, -amount) for amount in AMOUNTS]


def drawn(pair: int) -> list[tuple[float, float]]:
    random = stream(0, "held-out shifts", pair)
    length, turn = random.uniform(AMOUNTS[0], AMOUNTS[-1], len(AMOUNTS)), random.uniform(0, 2 * np.pi, len(AMOUNTS))
    return list(zip(length * np.sin(turn), length * np.cos(turn), strict=True))


def recovered(
    pairs: Sequence[Pair], measure: Measure, shifts: Callable[[int], list[tuple[float, float]]] = diagonal
) -> tuple[float, float, float]:
    """Return the share within 0.2 px and certain, the share that is certain and wrong, and CPU ms a pair."""
    good, wrong, seconds = [], [], 0.0
    for number, (first, second, _) in enumerate(pairs):
        before = measure(inner(first), planted(second, 0, 0))
        for down, across in shifts(number):
            moved = planted(second, down, across)
            start = time.process_time()
            found = measure(inner(first), moved)
            seconds += time.process_time() - start
            near = np.hypot(found.rows - before.rows - down, found.columns - before.columns - across) <= NEAR_PX
            good.append(near and found.certain and before.certain)
            wrong.append(not near and found.certain and before.certain)
    return float(np.mean(good)), float(np.mean(wrong)), 1e3 * seconds / len(good)


def strangers(pairs: Sequence[Pair]) -> tuple[float, int]:
    """Return the share of pairs of different places that are uncertain, and how many pairs were tried."""
    flagged = []
    for i, step in itertools.product(range(len(pairs)), (1, 2, 3, 5, 8, 13)):
        first, (_, second, there) = pairs[i], pairs[(i + step) % len(pairs)]
        apart = np.abs(np.subtract(first[2], there)).max() >= first[0].shape[0]
        if apart:
            flagged.append(not ours(inner(first[0]), inner(second)).certain)
    return (float(np.mean(flagged)) if flagged else float("nan")), len(flagged)


def triangles(dates: Sequence[Grey], side: int) -> list[float]:
    """Return how far the residues of three dates are from summing to 0, in pixels, over spots and triples."""
    sums = []
    spots = itertools.product((0, dates[0].shape[0] - side), (0, dates[0].shape[1] - side))
    for (y, x), (a, b, c) in itertools.product(spots, itertools.combinations(range(4), 3)):
        cut = [dates[i][y : y + side, x : x + side] for i in (a, b, c)]
        legs = [ours(cut[0], cut[1]), ours(cut[1], cut[2]), ours(cut[2], cut[0])]
        if all(leg.certain for leg in legs):
            sums.append(float(np.hypot(sum(leg.rows for leg in legs), sum(leg.columns for leg in legs))))
    return sums


def show(sets: dict[str, list[Pair]], shifts: Callable[[int], list[tuple[float, float]]]) -> None:
    print("| pairs | planted within 0.2 px | certain and off | other places flagged | CPU ms | scikit-image phase |")
    for name, pairs in sets.items():
        share, off, cost = recovered(pairs, ours, shifts)
        flagged, tried = strangers(pairs)
        other = recovered(pairs, phase, shifts)
        peer = f"{other[0]:.3f}, {other[2]:.0f} ms"
        print(f"| {name}, {len(pairs)} | {share:.3f} | {off:.3f} | {flagged:.3f} of {tried} | {cost:.0f} | {peer} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imagery", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true", help="pictures on which nothing was tuned")
    given = parser.parse_args()
    if given.held_out:
        show(held_out(given.imagery), drawn)
    else:
        dates, neon = naip_dates(given.imagery), neon_pairs(given.imagery)
        sets = {f"NAIP {side} px": naip_pairs(dates, side, columns) for side, columns in ((512, 2), (384, 2), (256, 3))}
        show(sets | {"NEON 368 px": neon, "NEON 256 px": quarters(neon)}, diagonal)
        sums = triangles(dates, 512)
        said = f"around {len(sums)} triangles of NAIP dates residues sum to {np.median(sums):.3f} px (median)"
        print(f"{said}, {max(sums):.3f} at most")
    print(f"{gemm_rate():.0f} GFLOP and {decode_rate():.0f} JPEGs a CPU s")


if __name__ == "__main__":
    main()
