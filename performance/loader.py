"""What feeds pre-training costs, in CPU seconds of the whole process: decoding, beside Pillow; views, beside torchvision.

    OMP_NUM_THREADS=1 python performance/loader.py [--images FOLDER] [--chips 128] [--rounds 5]

Chips are 512-px JPEGs of quality 90 in shards, four dates a place: synthetic ones (noise with the spectrum of photographs, under
sharp-edged shapes), or the middle of the pictures of a folder that are large enough. Rates are medians of rounds in which the
contestants take turns. Bar: 250 chips a CPU second through ShardReader and Chips, with reading, checksum and stacking.
"""

from __future__ import annotations

import argparse
import datetime
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2 as T

from cgeartheye.pretraining import views
from cgeartheye.pretraining.chips import Chips, padded
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.reader import ShardReader, decode_chip
from cgeartheye.shards.writer import write_shards
from cgeartheye.transforms.crops import Boxes, crop

SIDE, DATES, BATCH = 512, 4, 16
BAR = 250


def synthetic(number: int) -> Image.Image:
    """A picture whose power falls as in photographs, with forty rectangles for roofs and roads; about 90 kB at quality 90."""
    random = np.random.default_rng(number)
    f = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None])
    f[0, 0] = 1
    noise = np.fft.rfft2(random.standard_normal((SIDE, SIDE))) / f**1.1
    grey = np.fft.irfft2(noise, s=(SIDE, SIDE))
    grey = (grey - grey.mean()) / grey.std() * 38 + 110
    picture = grey[..., None] + random.normal(0, 12, 3) + random.normal(0, 4, (SIDE, SIDE, 1))
    for _ in range(40):
        top, left = random.integers(0, SIDE - 8, 2)
        height, width = random.integers(6, 70, 2)
        picture[top : top + height, left : left + width] += random.normal(0, 35, 3)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def real(folder: Path, count: int) -> list[Image.Image]:
    found: list[Image.Image] = []
    for path in sorted(folder.rglob("*.jp*g")):
        with Image.open(path) as image:
            left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
            if min(left, top) >= 0 and len(found) < count:
                found.append(image.convert("RGB").crop((left, top, left + SIDE, top + SIDE)))
    if len(found) < DATES:
        raise SystemExit(f"{folder} has only {len(found)} JPEGs of {SIDE} px and more")
    return [found[k % len(found)] for k in range(count)]


def coded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def shards(folder: Path, jpegs: list[bytes]) -> Path:
    def chip(jpeg: bytes, quarter: int) -> Chip:
        date = datetime.date(2024, 3 * quarter + 2, 1)
        known = {"date": date, "year": 2024, "quarter": quarter + 1, "width": SIDE, "height": SIDE}
        return Chip(jpeg, {**known, "gsd_m": 0.75, "licence": "CC0-1.0"})

    groups = [jpegs[k : k + DATES] for k in range(0, len(jpegs) - DATES + 1, DATES)]
    chips = [tuple(chip(jpeg, quarter) for quarter, jpeg in enumerate(group)) for group in groups]
    return write_shards(folder / "curated", [Place(name=f"p{k}", chips=group, columns={}) for k, group in enumerate(chips)])


def cpu(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def take_turns(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median CPU seconds of each contestant; one round first, unmeasured."""
    measured = [{name: cpu(run) for name, run in contestants.items()} for _ in range(rounds + 1)][1:]
    return {name: statistics.median(one[name] for one in measured) for name in contestants}


def loaded(chips: Chips, rows: NDArray[np.int64], divisors: NDArray[np.int64] | None = None) -> None:
    """Fetch all rows in batches, the next one decoding meanwhile."""
    whole = np.ones(len(rows), dtype=np.int64) if divisors is None else divisors
    chips.ask(rows[:BATCH], whole[:BATCH])
    for k in range(0, len(rows), BATCH):
        chips.ask(rows[k + BATCH : k + 2 * BATCH], whole[k + BATCH : k + 2 * BATCH])
        pictures = chips.fetch(rows[k : k + BATCH], whole[k : k + BATCH])
        for divisor in np.unique(whole[k : k + BATCH]):  # stacked apart, as views are cut
            padded([pictures[at] for at in np.flatnonzero(whole[k : k + BATCH] == divisor)])


def plain(jpegs: list[bytes]) -> None:
    for jpeg in jpegs:
        np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def sequential(pictures: list[Image.Image], settings: PretrainSettings) -> None:
    """The same kinds of views by torchvision, one after the other, on Pillow's pictures (without quarter turns)."""
    view, local, season = settings.views, settings.local, settings.season
    colours = view.jitter
    flips = [T.RandomHorizontalFlip(), T.RandomVerticalFlip()]
    ratio = (1 / view.aspect, view.aspect)
    change = [
        T.RandomApply([T.GaussianBlur(9, view.blur.sigma_px)], p=view.blur.share),
        T.RandomApply([T.ColorJitter(colours.brightness, colours.contrast, colours.saturation)], p=colours.share),
    ]
    end = [T.ToImage(), T.ToDtype(torch.float32, scale=True)]

    def cut(side: int, scale: tuple[float, float]) -> list[Any]:
        return [T.RandomResizedCrop(side, scale, ratio, interpolation=T.InterpolationMode.BICUBIC), *flips]

    kinds = [
        (2, T.Compose([*cut(view.global_px, view.global_scale), *change, *end])),
        (local.views, T.Compose([*cut(local.sizes_px[0], local.scale), *change, *end])),
        (season.views, T.Compose([*cut(season.size_px or 98, season.scale), *end])),
    ]
    for picture in pictures:
        for count, transform in kinds:
            for _ in range(count):
                transform(picture)


def maker_of(folder: Path, settings: PretrainSettings, *, cache_mb: int) -> tuple[ViewMaker, Chips]:
    reader = ShardReader(folder)
    places = Places(reader, settings.season)
    chips = Chips(reader, places.place_of_row, shrink_px=None, cache_mb=cache_mb, decoders=2)
    return ViewMaker(places, chips, settings=settings, patch_px=14, device=torch.device("cpu")), chips


def decoding(folder: Path, jpegs: list[bytes], rounds: int) -> None:
    settings = PretrainSettings(backbone="small", batch=BATCH)
    maker, chips = maker_of(folder, settings, cache_mb=0)
    rows = np.arange(len(jpegs), dtype=np.int64)
    steps = range(-(-len(jpegs) // (3 * BATCH)))
    drawn = [maker._draw(step)[0] for step in steps]
    season = np.concatenate([draw.season[draw.filled] for draw in drawn])
    divisors = np.concatenate([maker._divisors(draw) for draw in drawn])
    found = take_turns(
        {
            "loader": lambda: loaded(chips, rows),
            "plain": lambda: plain(jpegs),
            "season": lambda: loaded(chips, season, divisors),
            "season, full": lambda: loaded(chips, season),
        },
        rounds,
    )
    chips.close()
    ours, theirs = len(rows) / found["loader"], len(rows) / found["plain"]
    print(f"{len(rows)} chips of {np.mean([len(jpeg) for jpeg in jpegs]) / 1e3:.0f} kB")
    print(f"decoded and stacked: {ours:.0f} chips a CPU second (bar {BAR}: {ours / BAR:.2f} of it)")
    print(f"Pillow alone, converted to RGB: {theirs:.0f}; ratio {ours / theirs:.2f}")
    less = found["season"] / found["season, full"]
    shares = ", ".join(f"1/{d}: {np.mean(divisors == d):.0%}" for d in np.unique(divisors))
    print(f"seasonal chips at the size they need ({shares}): {less:.2f} of full decoding's CPU seconds")


def margins(jpegs: list[bytes], side: int = 98) -> None:
    """Print how views from half-size decoding differ from full decoding, by how many times their side the half-size box has."""
    zero = np.zeros((1, 1), dtype=np.int64)

    def view(jpeg: bytes, divisor: int, length: int) -> torch.Tensor:
        start, extent = zero + (SIDE - length) // (2 * divisor), zero + length // divisor
        box = Boxes(top=start, left=start, height=extent, width=extent, turn=zero)
        return crop(torch.tensor(decode_chip(jpeg, divisor=divisor)).permute(2, 0, 1)[None], box, side=side)[0, 0]

    def sharpness(image: torch.Tensor) -> float:
        return float(image.diff(dim=1).abs().mean())

    for times in (1.0, 1.25, 1.5, 2.0, 2.5):
        length = round(side * times / 2) * 4  # both box and margin are whole pixels of the smaller version
        pairs = [(view(jpeg, 1, length), view(jpeg, 2, length)) for jpeg in jpegs[:64]]
        mean = statistics.mean(255 * float((a - b).abs().mean()) for a, b in pairs)
        gradient = statistics.mean(sharpness(b) / sharpness(a) for a, b in pairs)
        print(f"box of {times} times the side at half size: differs by {mean:.2f} of 255, gradients {gradient:.3f} of full")


def augmentation(folder: Path, pictures: list[Image.Image], rounds: int) -> None:
    settings = PretrainSettings(backbone="small", batch=BATCH)
    maker, chips = maker_of(folder, settings, cache_mb=2000)
    for step in range(8):
        maker(step, 0)  # the chips of steps 0 to 7 are decoded and kept
    steps = iter(int(k) % 8 for k in range(1000))
    found = take_turns(
        {"ours": lambda: maker(next(steps), 0), "torchvision": lambda: sequential(pictures[:BATCH], settings)}, rounds
    )
    ours, theirs = (1e3 * found[name] / BATCH for name in ("ours", "torchvision"))
    kinds = f"2 x {settings.views.global_px} + {settings.local.views} x 98 + {settings.season.views} x 98"
    print(f"views ({kinds}): {ours:.1f} CPU ms a sample; torchvision {theirs:.1f}, {theirs / ours:.1f} times as much")
    scaled = [maker(step, 0).season for step in range(4)]
    views.ROOM = float("inf")  # type: ignore[misc] # full decoding
    full = [maker(step, 0).season for step in range(4)]
    chips.close()
    differs = torch.cat([(a - b).abs() for a, b in zip(scaled, full, strict=True)])
    print(f"seasonal views from scaled against full decoding: mean difference {255 * float(differs.mean()):.2f} of 255")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--chips", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    count = max(arguments.chips, DATES * BATCH)
    pictures = real(arguments.images, count) if arguments.images else [synthetic(k) for k in range(count)]
    jpegs = [coded(picture) for picture in pictures]
    with tempfile.TemporaryDirectory() as scratch:
        folder = shards(Path(scratch), jpegs)
        decoding(folder, jpegs, arguments.rounds)
        augmentation(folder, pictures, arguments.rounds)
        margins(jpegs)


if __name__ == "__main__":
    main()
