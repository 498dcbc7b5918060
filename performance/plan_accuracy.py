"""Forecast over measured: FLOPs of a real step, peak memory, disk, and the time of a run after calibration.

    python performance/plan_accuracy.py [--cases nano sizes small] [--steps 60] [--threads 1]

Bars: FLOPs and disk within 5 %, memory within 15 %, time within 25 %. Chips are random noise of 256 px. Each case calibrates
(20 steps), then runs itself in a process of its own. PyTorch's counter leaves Sinkhorn's matrix-vector products out, so they
are taken out of the forecast too.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cgeartheye.files import read_json, write_text
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.pretraining.build import begin, pieces_of
from cgeartheye.pretraining.calibration import calibrate, measure
from cgeartheye.pretraining.chips import Chips
from cgeartheye.pretraining.forecast import Forecast, Machine, forecast, material, resident_bytes
from cgeartheye.pretraining.loop import rates_at, take_step
from cgeartheye.pretraining.phases import config_of
from cgeartheye.pretraining.places import Places
from cgeartheye.pretraining.views import ViewMaker
from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.reader import ShardReader
from cgeartheye.shards.writer import write_shards
from cgeartheye.training.distributed import World

CASES: dict[str, dict[str, Any]] = {
    "nano": {},
    "sizes": {"batch": 16, "microbatch": 8, "local": {"sizes_px": (16, 24), "views": 4}},
    "small": {"backbone": "small", "batch": 4, "head": {"prototypes": 4096}},
}


def make_shards(folder: Path) -> Path:
    """Write 64 places of four quarters."""
    random = np.random.default_rng(0)
    places = []
    for number in range(64):
        chips = []
        for quarter in range(1, 5):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=90)
            chips.append(Chip(buffer.getvalue(), {"quarter": quarter, "year": 2020, "width": 256, "height": 256}))
        places.append(Place(name=f"p{number}", chips=tuple(chips), columns={}))
    return write_shards(folder, places)


def counted_flops(settings: PretrainSettings, found: Forecast) -> int:
    reader, world = ShardReader(settings.curated or Path()), World()
    places = Places(reader, settings.season)
    chips = Chips(reader, places.place_of_row, shrink_px=settings.chip_px, cache_mb=100, decoders=1)
    config = config_of(SIZES[settings.backbone], settings)
    pieces = pieces_of(settings, 1)
    training = begin(settings, build(config, seed=0), prototypes=found.prototypes, places=len(places), world=world, pieces=pieces)
    training.pair.student.train()
    maker = ViewMaker(places, chips, settings=settings, patch_px=config.patch_px, device=world.device, pieces=pieces)
    views = [maker(0, piece) for piece in range(pieces)]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        take_step(training, settings, rates_at(settings, 0.9), lambda _, piece: views[piece])
    chips.close()
    return int(counter.get_total_flops())


def run_itself(settings: PretrainSettings, folder: Path) -> dict[str, float]:
    """Run in a process of its own; return seconds of the loop, peak memory and disk."""
    folder.mkdir()
    write_text(folder / "settings.json", settings.model_dump_json())
    subprocess.run([sys.executable, __file__, "--child", str(folder)], check=True)
    told: dict[str, float] = read_json(folder / "told.json")
    heavy = [*(folder / "run" / "checkpoints").rglob("*"), folder / "run" / "backbone.safetensors"]
    return {**told, "disk": sum(path.stat().st_size for path in heavy if path.is_file())}


def child(folder: Path) -> None:
    settings = PretrainSettings.model_validate(json.loads((folder / "settings.json").read_text()))
    before = time.perf_counter()
    found = measure(settings, folder / "run")
    wall = time.perf_counter() - before
    seconds = float(json.loads((folder / "run" / "metrics.jsonl").read_text().splitlines()[-1])["seconds"])
    write_text(folder / "told.json", json.dumps({"seconds": seconds, "peak": found.resident_bytes, "wall": wall}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", type=Path)
    given = parser.parse_args()
    if given.child:
        child(given.child)
        return
    machine = Machine(base_bytes=resident_bytes())
    with tempfile.TemporaryDirectory() as inner:
        folder = Path(inner)
        shards = make_shards(folder / "shards")
        for name in given.cases:
            watch = {"probe_every": 0, "checkpoint_every": 20}
            more = {"curated": shards, "steps": given.steps, "threads": given.threads, "device": "cpu", "watch": watch}
            settings = PretrainSettings.model_validate({**CASES[name], **more})
            found = material(settings, ShardReader(shards))
            told = forecast(settings, found, machine)
            (seen,) = calibrate(settings, prototypes=told.prototypes, folder=folder)
            timed = forecast(settings, found, machine, (seen.seconds_a_step,))
            real = run_itself(settings, folder / name)
            once = told.phases[0].step_flops
            ratios = {
                "FLOPs": (once.total - once.targets) / counted_flops(settings, told),
                "memory": told.memory_bytes / real["peak"],
                "disk": told.disk_bytes / real["disk"],
                "time": (timed.seconds or 0.0) / real["seconds"],
            }
            figures = (
                f"{told.memory_bytes / 1e6:.0f} of {real['peak'] / 1e6:.0f} MB, {timed.seconds:.1f} of {real['seconds']:.1f} s"
            )
            print(f"{name:6s}", ", ".join(f"{key} {ratio:.3f}" for key, ratio in ratios.items()), f"({figures})", flush=True)


if __name__ == "__main__":
    main()
