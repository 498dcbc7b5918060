"""Small sets of shards that pre-training tests read."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.writer import write_shards

TINY: dict[str, Any] = {
    "threads": 1,
    "steps": 4,
    "batch": 4,
    "chip_px": None,
    "views": {"global_px": 24},
    "local": {"sizes_px": (16,), "views": 3},
    "head": {"prototypes": 16, "hidden": 32, "bottleneck": 16},
    "watch": {"log_every": 1, "checkpoint_every": 2, "probe_every": 2},
}
Maker = Callable[..., Path]


def picture(seed: int, side: int) -> bytes:
    """A smooth random picture as JPEG."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def place(name: str, quarters: Sequence[int], *, side: int = 32, seed: int = 0, **columns: Any) -> Place:
    """A place with one chip for each quarter; ``columns`` that are sequences belong to the chips, others to the place."""
    chips = []
    for number, quarter in enumerate(quarters):
        own = {key: value[number] for key, value in columns.items() if isinstance(value, list)}
        date = datetime.date(2020 + number, 3 * max(quarter, 1) - 1, 5)
        known = {"date": date, "year": date.year, "quarter": quarter} if quarter else {}
        size = {"width": side, "height": side, "gsd_m": 0.75, "licence": "CC0-1.0"}
        chips.append(Chip(picture(1000 * seed + number, side), {**known, **size, **own}))
    return Place(name=name, chips=tuple(chips), columns={k: v for k, v in columns.items() if not isinstance(v, list)})


@pytest.fixture(name="place")
def place_fixture() -> Callable[..., Place]:
    """The function :func:`place`."""
    return place


@pytest.fixture
def shards(tmp_path: Path) -> Maker:
    """A function that writes places to a new folder."""

    def make(places: Sequence[Place], name: str = "curated") -> Path:
        return write_shards(tmp_path / name, places)

    return make


@pytest.fixture
def curated(shards: Maker) -> Path:
    """Twelve places of 32 px: eight with four quarters, four with one date, two kinds of land cover."""
    cover = ["forest", "water"]
    many = [place(f"p{k}", (1, 2, 3, 4), seed=k, land_cover=cover[k % 2]) for k in range(8)]
    single = [place(f"s{k}", (2,), seed=50 + k, land_cover=cover[k % 2]) for k in range(4)]
    return shards([*many, *single])


@pytest.fixture
def tiny(curated: Path) -> PretrainSettings:
    """Settings of a run of four steps."""
    return PretrainSettings(curated=curated, **TINY)
