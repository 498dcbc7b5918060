from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from cgeartheye.settings.curate import CurateSettings


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"source": "images", "images": "x", "land_cover": "y"}, "does not use land_cover"),
        ({"images": "x"}, "add `source: images`"),
        ({"source": "images", "cell_m": 10}, "does not use cell_m"),
        ({"min_dates": 5, "max_dates": 3}, "min_dates"),
        ({"shares": {"woods": 1}}, "woods"),
        ({"land_cover_minimum": {"woods": 0.1}}, "woods"),
        ({"clusters": {"levels": [10, 100]}}, "shrink"),
        ({"shortage": "ignore"}, "redistribute"),
        ({"chip_pixels": 3}, "Extra inputs"),
    ],
)
def test_combinations_that_cannot_be_meant(given: dict[str, object], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        CurateSettings.model_validate(given)


def test_backbones_are_words_or_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTS", str(tmp_path))
    read = {
        text: CurateSettings.model_validate({"embedding": {"backbone": text}}, context={"base": tmp_path}).embedding.backbone
        for text in ("colour", "timm:vit_tiny", "hf:/x", "${WEIGHTS}/b", "b")
    }
    assert read == {
        "colour": "colour",
        "timm:vit_tiny": "timm:vit_tiny",
        "hf:/x": "hf:/x",
        "${WEIGHTS}/b": tmp_path / "b",
        "b": tmp_path / "b",
    }


def test_identity_ignores_paths_and_workers() -> None:
    first = CurateSettings(catalog=Path("a"), workers=1)
    assert first.identity() == CurateSettings(catalog=Path("b"), workers=9).identity()
    assert first.identity() != CurateSettings(catalog=Path("a"), chip_px=96).identity()
