"""Small sets of shards that pre-training tests read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from synthetic_places import place

from cgeartheye.settings.pretrain import PretrainSettings
from cgeartheye.shards.format import Place
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
