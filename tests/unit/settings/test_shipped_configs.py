"""The project files of `configs/` are valid for the release they are shipped with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgeartheye.settings.project import load_project

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_project_file_is_valid(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CGEARTHEYE_IMAGERY", str(tmp_path))
    assert load_project(path).name != "project"
