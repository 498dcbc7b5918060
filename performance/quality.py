"""What a chip's quality measures tell and cost: clean against damaged real pictures, and CPU milliseconds a 512-px chip.

    OMP_NUM_THREADS=1 python performance/quality.py --images FOLDER [FOLDER ...] [--most 150]

Every picture of the folders (JPEG) is cut to its middle 512 px, or to the largest square below, and damaged in known ways.
The table holds the area under the ROC curve of each measure: the chance that it ranks a damaged picture worse than a clean one;
0.5 says nothing. Bar: 8 CPU ms a chip, and no clean picture beyond a hard limit.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rates import decode_rate, gemm_rate
from scipy import ndimage
from scipy.stats import rankdata

from cgeartheye.curation.filtering import fault_of
from cgeartheye.metrics.quality import Quality, measure_quality
from cgeartheye.settings.curate import CurateSettings

SIDE, BAR_MS = 512, 8.0
WORSE_IF_LOW = {"std", "entropy", "sharpness"}
Picture = NDArray[np.uint8]
Damage = Callable[[Picture, np.random.Generator], Picture]


def pictures(folders: list[Path], most: int) -> list[Picture]:
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix.lower() == ".jpg"]
    found = []
    for path in paths[:: max(1, len(paths) // most)][:most]:
        with Image.open(path) as image:
            side = min(SIDE, *image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            found.append(np.asarray(image.convert("RGB").crop((left, top, left + side, top + side))))
    return found


def clipped(values: NDArray[np.floating]) -> Picture:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def blur(image: Picture, _: np.random.Generator) -> Picture:
    return clipped(ndimage.gaussian_filter(image.astype(np.float32), (2, 2, 0)))


def haze(image: Picture, _: np.random.Generator) -> Picture:
    return clipped(0.6 * image.astype(np.float32) + 0.4 * 220)


def cloud(image: Picture, random: np.random.Generator) -> Picture:
    side = image.shape[0]
    field = ndimage.gaussian_filter(random.normal(size=(side, side)), side / 10)
    thick = np.clip((field - np.quantile(field, 0.6)) / field.std() * 1.5, 0, 1)[..., None]
    return clipped(image * (1 - thick) + 235 * thick)


def saturate(image: Picture, _: np.random.Generator) -> Picture:
    return clipped(image.astype(np.float32) * 1.8)


def noise(image: Picture, random: np.random.Generator) -> Picture:
    return clipped(image + random.normal(0, 10, image.shape))


def jpeg(image: Picture, _: np.random.Generator) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=10)
    return np.asarray(Image.open(buffer))[3:, 5:]


def stripes(image: Picture, random: np.random.Generator) -> Picture:
    return clipped(image + 4.0 * np.sign(np.sin(np.arange(image.shape[0]) * 2 * np.pi / 6 + random.uniform(0, 6)))[:, None, None])


def water(image: Picture, random: np.random.Generator) -> Picture:
    return clipped(np.array([30, 60, 80]) + random.normal(0, 1.5, image.shape))


DAMAGES: dict[str, Damage] = {
    "blur 2 px": blur,
    "haze 40 %": haze,
    "cloud": cloud,
    "saturated": saturate,
    "noise 10": noise,
    "JPEG q10": jpeg,
    "stripes 4": stripes,
    "flat water": water,
}


def measured(image: Picture) -> Quality:
    return measure_quality(image, np.ones(image.shape[:2], bool))


def area(clean: NDArray[np.float64], damaged: NDArray[np.float64]) -> float:
    ranks = rankdata(np.concatenate([clean, damaged]))[len(clean) :]
    return float((ranks.sum() - len(damaged) * (len(damaged) + 1) / 2) / (len(clean) * len(damaged)))


def cost(images: list[Picture]) -> float:
    full = [image for image in images if image.shape[:2] == (SIDE, SIDE)][:40]
    start = time.process_time()
    for image in full:
        measured(image)
    return 1e3 * (time.process_time() - start) / max(1, len(full))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, nargs="+", required=True)
    parser.add_argument("--most", type=int, default=150)
    arguments = parser.parse_args()
    images = pictures(arguments.images, arguments.most)
    if not images:
        raise SystemExit("no picture was found")
    limits = CurateSettings().quality
    clean = [measured(image) for image in images]
    faults = [fault for quality in clean if (fault := fault_of(quality, limits))]
    names = [name for name in asdict(clean[0]) if name != "nodata"]
    values = {name: np.array([getattr(quality, name) for quality in clean]) for name in names}
    print(f"{len(images)} pictures; beyond a hard limit: {len(faults)} {faults[:3]}")
    print("| measure | 5 / 50 / 95 % of the clean | " + " | ".join(DAMAGES) + " |")
    random = np.random.default_rng(0)
    damaged = {what: [measured(damage(image, random)) for image in images] for what, damage in DAMAGES.items()}
    for name in names:
        turn = -1 if name in WORSE_IF_LOW else 1
        areas = [area(turn * values[name], turn * np.array([getattr(q, name) for q in damaged[what]])) for what in DAMAGES]
        spread = " / ".join(f"{value:.3g}" for value in np.quantile(values[name], [0.05, 0.5, 0.95]))
        print(f"| {name} | {spread} | " + " | ".join(f"{value:.2f}" for value in areas) + " |")
    rejected = {what: sum(fault_of(q, limits) is not None for q in found) for what, found in damaged.items()}
    print("rejected of the damaged:", ", ".join(f"{what} {count}" for what, count in rejected.items()))
    rates = f"{gemm_rate():.0f} GFLOP and {decode_rate():.0f} JPEGs a CPU s"
    print(f"{cost(images):.1f} CPU ms a {SIDE}-px chip (bar {BAR_MS}); {rates}")


if __name__ == "__main__":
    main()
