"""Near duplicates planted among real deserts, forests and waters: all easy kinds are found, and nothing else is dropped."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cgeartheye.curation import curate
from cgeartheye.settings.curate import CurateSettings

pytestmark = pytest.mark.imagery

SMOOTH = ("desert", "forest", "lake", "river", "beach", "pond", "island", "bareland", "meadow")
ALWAYS = {"byte copy", "recompressed, q40", "halved", "brightened by 20 %"}


def test_planted_copies_are_found_and_no_desert_forest_or_water_is_dropped(
    imagery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "performance"))
    import duplicates  # type: ignore[import-not-found]

    planted, n = duplicates.plant(imagery, tmp_path / "bank", 40, lambda name: any(word in name.lower() for word in SMOOTH))
    assert n > 700
    settings = CurateSettings(source="images", images=tmp_path / "bank", workers=0)
    kinds, false = duplicates.found(curate(settings, tmp_path / "out"), tmp_path / "bank", planted)
    sys.modules.pop("duplicates")
    assert false == []
    assert {kind: missed for kind, (_, missed) in kinds.items() if kind in ALWAYS and missed} == {}
    assert {kind: missed for kind, (counted, missed) in kinds.items() if len(missed) > 0.1 * counted} == {}
