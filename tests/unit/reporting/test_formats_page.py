"""The page on formats names every column that the code writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cgeartheye.evaluation.table import SCHEMA as RESULTS
from cgeartheye.rasters.scenes import Scene
from cgeartheye.shards.format import INDEX_SCHEMA
from cgeartheye.synthesis.world import TRUTH

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"


@pytest.fixture(scope="module")
def named() -> set[str]:
    """All words in code spans of the page."""
    spans = re.findall(r"`([^`]+)`", PAGE.read_text())
    return {word for span in spans for word in re.split(r"[,\s]+", span)}


@pytest.mark.parametrize("names", [INDEX_SCHEMA.names, RESULTS.names, [TRUTH]], ids=["index", "results", "world"])
def test_every_column_is_named(named: set[str], names: list[str]) -> None:
    assert not [name for name in names if name not in named]


def test_every_field_of_a_scene_is_named(named: set[str]) -> None:
    derived = {"transform": "proj:transform", "footprint": "geometry"}
    assert not [name for name in Scene.__dataclass_fields__ if derived.get(name, name) not in named]
