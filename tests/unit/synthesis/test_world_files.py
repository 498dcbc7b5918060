"""The rendered world as files: the same bytes from the same settings, whatever happened on the way."""

from __future__ import annotations

import hashlib
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from PIL import Image

import cgeartheye.synthesis.world as world_module
from cgeartheye.errors import InputError
from cgeartheye.files import read_json
from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis import CLASSES, COVERS, QUARTERS, render_world

SMALL = WorldSettings(seed=5, size_m=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_world(SMALL, tmp_path_factory.mktemp("world") / "a b")


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_killed_and_repeated_is_the_same_as_uninterrupted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written = world_module.write_raster, []

    def dies_at_the_eighth(path: Path, *rest: object) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path)
        real(path, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(world_module, "write_raster", dies_at_the_eighth)
        render_world(SMALL, tmp_path)
    assert not (tmp_path / "world.json").exists()
    (tmp_path / "scenes" / ".half.1234.tmp.tif").write_bytes(b"left by a killed call")
    render_world(SMALL, tmp_path)
    assert hashes(tmp_path) == hashes(folder)


def test_processes_do_not_change_the_bytes(folder: Path, tmp_path: Path) -> None:
    render_world(SMALL.model_copy(update={"workers": 2}), tmp_path)
    assert hashes(tmp_path) == hashes(folder)


def test_another_seed_is_another_world(folder: Path, tmp_path: Path) -> None:
    render_world(SMALL.model_copy(update={"seed": 6}), tmp_path)
    ours, theirs = hashes(tmp_path), hashes(folder)
    scenes = [name for name in theirs if name.startswith("scenes/")]
    assert len(scenes) == 16
    assert all(ours[name] != theirs[name] for name in scenes)


def test_a_folder_of_other_settings_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="other settings"):
        render_world(SMALL.model_copy(update={"seed": 6}), folder)


def test_a_finished_world_is_left_alone(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    render_world(SMALL, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_scenes_are_georeferenced_mosaics_with_dates(folder: Path) -> None:
    for quarter, tag in zip(QUARTERS, ("2024:02:14", "2024:05:20", "2024:08:11", "2024:11:05"), strict=True):
        paths = sorted((folder / "scenes" / quarter).glob("*.tif"))
        assert [path.stem[-4:] for path in paths] == ["r0c0", "r0c1", "r1c0", "r1c1"]
        boxes = []
        for path in paths:
            with rasterio.open(path) as scene:
                assert scene.crs.to_epsg() == 32650
                assert scene.dtypes == ("uint8",) * 3
                assert scene.nodata == 0
                assert scene.tags()["TIFFTAG_DATETIME"].startswith(tag)
                assert scene.res == (0.75, 0.75)
                assert tag.replace(":", "") in path.name
                boxes.append(scene.bounds)
        assert boxes[0].right - boxes[1].left == pytest.approx(32 * 0.75)
        assert boxes[0].bottom - boxes[2].top == pytest.approx(-32 * 0.75)
        assert boxes[3].right - boxes[0].left == pytest.approx(600)


def test_labels_and_layers_lie_on_the_world(folder: Path) -> None:
    with rasterio.open(folder / "labels/classes.tif") as labels:
        bounds, classes = labels.bounds, labels.read(1)
        assert labels.nodata == 255
        assert labels.colormap(1)[5] == (41, 121, 204, 255)
    assert set(np.unique(classes)) <= {*range(len(CLASSES)), 255}
    for name in ("cover", "change_2024Q1_2024Q4", "clouds_2024Q3", "classes_train", "cover_test"):
        with rasterio.open(folder / f"labels/{name}.tif") as raster:
            assert raster.bounds == bounds
    with rasterio.open(folder / "layers/land_cover.tif") as layer:
        assert layer.bounds == bounds
        assert set(np.unique(layer.read(1))) <= set(range(1, 8))
    with rasterio.open(folder / "layers/elevation.tif") as layer:
        assert np.ptp(layer.read(1)) > 5
    regions = geopandas.read_file(folder / "layers/regions.geojson")
    assert len(regions) == 3
    assert regions.crs.to_epsg() == 4326
    assert regions.to_crs(32650).area.sum() == pytest.approx(600**2, rel=1e-3)
    assert regions.geometry.is_valid.all()


def test_train_and_test_labels_part_the_whole(folder: Path) -> None:
    for name, count in (("classes", len(CLASSES)), ("cover", len(COVERS))):
        whole, train, test = (rasterio.open(folder / f"labels/{name}{part}.tif").read(1) for part in ("", "_train", "_test"))
        assert not np.any((train < 255) & (test < 255))
        for part in (train, test):
            assert np.array_equal(part[part < 255], whole[part < 255])
        assert len(np.unique(whole[whole < 255])) >= count - 3


def test_chips_are_whole_and_as_their_list_says(folder: Path) -> None:
    chips = read_json(folder / "benchmark/chips.json")["chips"]
    pictures = sorted(path.relative_to(folder / "benchmark").as_posix() for path in folder.glob("benchmark/t*/*/*.png"))
    assert pictures == sorted(f"{chip['part']}/{chip['label']}/{chip['name']}" for chip in chips)
    classes = rasterio.open(folder / "labels/classes.tif").read(1)
    for chip in chips:
        with Image.open(folder / "benchmark" / chip["part"] / chip["label"] / chip["name"]) as picture:
            assert picture.size == (128, 128)
        row, column = round(chip["y0"] / 0.75), round(chip["x0"] / 0.75)
        window = classes[row : row + 128, column : column + 128]
        assert np.mean(window == CLASSES.index(chip["label"])) >= 0.6


def test_buildings_say_when_they_appear(folder: Path) -> None:
    table = geopandas.read_parquet(folder / "labels/buildings.parquet")
    assert table.crs.to_epsg() == 32650
    assert set(table["appears"]) - {"2024Q1"}
    houses = table[table["kind"] == "house"]
    assert houses.area.between(20, 600).all()


def test_a_world_that_holds_no_chips_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 5 chips"):
        WorldSettings(size_m=600, gsd_m=2.0)
