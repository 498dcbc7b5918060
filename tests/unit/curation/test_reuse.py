"""A growing archive: what an update takes from the earlier folder, and that this changes no byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from cgeartheye.catalog import catalog
from cgeartheye.curation import curate
from cgeartheye.curation.archive import begin_archive
from cgeartheye.curation.pieces import Workers
from cgeartheye.curation.reuse import fingerprints
from cgeartheye.errors import InputError
from cgeartheye.progress import SILENT
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import retire

Tif = Callable[..., Path]
Results = Callable[[Path], dict[str, str]]


def _scene(root: Path, tif: Tif, name: str, east: int) -> None:
    random = np.random.default_rng(len(name) + east)
    fine = ndimage.gaussian_filter(random.normal(size=(240, 240, 3)), (1, 1, 0))
    tif(root / "scenes" / f"{name}.tif", np.clip(120 + 120 * fine, 1, 250).astype(np.uint8), 500_000.0 + 240 * east, 4_400_000.0)


def _settings(root: Path, **changed: object) -> CurateSettings:
    work = {"piece_places": 4, "keep_pieces": True, **changed.pop("work", {})}  # type: ignore[dict-item]  # tests know their own
    given = {"catalog": root / "catalog", "cell_m": 40, "chip_px": 32, "min_dates": 1, "workers": 0, "work": work, **changed}
    return CurateSettings.model_validate(given)


@pytest.fixture
def growing(tmp_path: Path, tif: Tif) -> Path:
    """An archive of two scenes with its catalogue, to which :func:`_grow` adds a third beside them."""
    for east in (0, 1):
        _scene(tmp_path, tif, f"s_2023020{east + 1}", east)
    catalog(CatalogSettings(scenes=(tmp_path / "scenes",), workers=1), tmp_path / "catalog")
    return tmp_path


def _grow(root: Path, tif: Tif) -> None:
    _scene(root, tif, "s_20230305", 2)
    retire(root / "catalog")
    catalog(CatalogSettings(scenes=(root / "scenes",), workers=1), root / "catalog")


def test_an_update_cuts_only_what_is_new_and_equals_a_fresh_run(
    growing: Path, tif: Tif, listener: Any, results_of: Results
) -> None:
    out = curate(_settings(growing), growing / "out")
    before = {ShardReader(out).place(i) for i in range(len(ShardReader(out)))}
    _grow(growing, tif)
    retire(out)
    curate(_settings(growing), out, progress=listener)
    fresh = curate(_settings(growing, work={"keep_pieces": False}), growing / "fresh")
    assert results_of(out) == results_of(fresh)
    (said,) = [text for text in listener.said if "taken over" in text]
    taken, total = (int(word) for word in said.split() if word.isdecimal())
    assert 0.5 * total < taken < total
    assert before < {ShardReader(out).place(i) for i in range(len(ShardReader(out)))}


def test_taken_pieces_are_not_read_from_scenes_again(growing: Path, results_of: Results) -> None:
    out = curate(_settings(growing), growing / "out")
    for scene in (growing / "scenes").glob("*.tif"):
        scene.unlink()
    again = curate(_settings(growing, work={"reuse": out}), growing / "again")
    assert results_of(again) == results_of(out)


def test_other_features_are_made_again_from_the_same_chips(growing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = curate(_settings(growing), growing / "out")
    monkeypatch.setattr("cgeartheye.curation.places.open_raster", None)
    again = curate(_settings(growing, clusters={"levels": [2]}, work={"reuse": out}), growing / "again")
    assert len(ShardReader(again)) == len(ShardReader(out))


def test_a_folder_without_pieces_is_refused_by_name(growing: Path) -> None:
    out = curate(_settings(growing, work={"keep_pieces": False}), growing / "out")
    with pytest.raises(InputError, match="holds no pieces"):
        curate(_settings(growing, work={"reuse": out}), growing / "again")


def test_fingerprints_tell_scenes_and_cutting_settings_apart_and_nothing_else(growing: Path, tif: Tif) -> None:
    def made(**changed: object) -> list[str]:
        settings = _settings(growing, **changed)
        shutil.rmtree(growing / "draw", ignore_errors=True)
        return fingerprints(begin_archive(settings, growing / "draw", Workers(0, SILENT)).tasks, settings)

    first = made()
    assert made(shard_mb=1, clusters={"levels": [3]}) == first
    assert not set(made(jpeg_quality=80)) & set(first)
    assert not set(made(chip_px=36)) & set(first)
    (growing / "scenes" / "s_20230202.tif").unlink()
    _scene(growing, tif, "s_20230202", 1)
    retire(growing / "catalog")
    catalog(CatalogSettings(scenes=(growing / "scenes",), workers=1), growing / "catalog")
    assert made() == first
    (growing / "scenes" / "s_20230202.tif").unlink()
    _scene(growing, tif, "s_20230202", 1)
    with (growing / "scenes" / "s_20230202.tif").open("r+b") as handle:
        handle.seek(-1, 2)
        handle.write(b"\x07")
    retire(growing / "catalog")
    catalog(CatalogSettings(scenes=(growing / "scenes",), workers=1), growing / "catalog")
    changed = made()
    assert 0 < len(set(changed) & set(first)) < len(first)
