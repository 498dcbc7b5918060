from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.features import shapes
from scene_makers import CLASSES, CRS, landscape, make_task, write_scene
from scipy import ndimage

from cgeartheye.errors import DataError, InputError
from cgeartheye.files import read_json
from cgeartheye.mapping import map_scenes
from cgeartheye.settings.map import MapSettings, PolygonSettings
from cgeartheye.tasks.segmentation import load_task


def run(out: Path, task: Path, *scenes: Path, **others: Any) -> Path:
    return map_scenes(MapSettings(task=task, scenes=scenes, **{"workers": 0, **others}), out)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in {"run.log", "stage.json", "manifest.json"})
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


ONE = 2**24


def in_memory(task: Path, picture: NDArray[np.uint8], window_px: int = 64, halo_px: int = 16) -> NDArray[np.int64]:
    """Summed probabilities of a whole picture in units of 2**-24: the same windows and weights, but all at once."""
    model, _ = load_task(task)
    torch.set_num_threads(1)  # as the workers; another number moves the last bits
    h, w = picture.shape[:2]
    core = window_px - 2 * halo_px
    rows, cols = -(-h // core), -(-w // core)
    pad = ((halo_px, rows * core - h + halo_px), (halo_px, cols * core - w + halo_px), (0, 0))
    padded = np.pad(picture, pad, mode="reflect")
    total = np.zeros((3, rows * core + 2 * halo_px, cols * core + 2 * halo_px), np.int64)
    ramp = ((np.arange(halo_px) + 0.5) / halo_px).astype(np.float32)

    def weight(index: int, count: int) -> NDArray[np.float32]:
        zero, one = np.zeros(halo_px // 2, np.float32), np.ones(window_px // 2, np.float32)
        rise = one if index == 0 else np.concatenate([zero, ramp, one])[: window_px // 2]
        fall = one if index == count - 1 else np.concatenate([zero, np.float32(1) - ramp[::-1], one])[: window_px // 2]
        return np.concatenate([rise, fall[::-1]])

    for i in range(rows):
        for j in range(cols):
            place = (slice(i * core, i * core + window_px), slice(j * core, j * core + window_px))
            with torch.inference_mode():
                images = torch.from_numpy(padded[place].copy()).permute(2, 0, 1)[None].repeat(8, 1, 1, 1)
                probabilities = torch.softmax(model(images), 1)[0].numpy()
            weights = weight(i, rows)[:, None] * weight(j, cols)
            total[:, *place] += np.rint(probabilities * weights * np.float32(ONE)).astype(np.int64)
    return total[:, halo_px : halo_px + h, halo_px : halo_px + w]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("scene") / "scene.tif", landscape(150, 231))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory, task: Path, scene: Path) -> Path:
    return run(tmp_path_factory.mktemp("maps") / "out", task, scene)


def test_map_equals_the_in_memory_reference_bit_by_bit(mapped: Path, task: Path) -> None:
    expected = in_memory(task, landscape(150, 231))
    np.testing.assert_allclose(expected.sum(0) / ONE, 1, atol=1e-6)  # the reference itself is a partition of one
    with rasterio.open(mapped / "scene" / "classes.tif") as classes, rasterio.open(mapped / "scene" / "confidence.tif") as sure:
        found, confidence = classes.read(1), sure.read(1)
    values = np.array([c.value for c in CLASSES])
    assert (found == values[expected.argmax(0)]).all()
    np.testing.assert_array_equal(confidence, (expected.max(0) * 254 + ONE // 2) // ONE)
    assert len(np.unique(found)) == 3  # a map of one class would prove nothing


@pytest.mark.parametrize("others", [{"superblock": 1}, {"superblock": 2, "workers": 2}, {"superblock": 3}])
def test_bytes_do_not_depend_on_superblocks_or_workers(
    tmp_path: Path, mapped: Path, task: Path, scene: Path, others: dict[str, int]
) -> None:
    assert hashes(run(tmp_path / "out", task, scene, **others)) == hashes(mapped)


def test_georeference_is_the_scenes_own(mapped: Path, scene: Path) -> None:
    with rasterio.open(scene) as source, rasterio.open(mapped / "scene" / "classes.tif") as classes:
        assert classes.crs == source.crs
        assert classes.transform == source.transform
        assert classes.shape == source.shape
        assert classes.nodata == 255
        assert classes.colormap(1)[7] == (0, 0x88, 0, 255)
        assert classes.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


def test_polygons_are_valid_whole_and_measured_on_the_ground(tmp_path: Path, task: Path, scene: Path) -> None:
    out = run(tmp_path / "out", task, scene, polygons=PolygonSettings(min_px=1, simplify_px=0), superblock=1)
    frame = gpd.read_parquet(out / "scene" / "polygons.parquet")
    with rasterio.open(out / "scene" / "classes.tif") as raster:
        whole = [(shapely.geometry.shape(g), v) for g, v in shapes(raster.read(1), connectivity=4, transform=raster.transform)]
    assert frame.geometry.is_valid.all()
    assert len(frame) == len(whole)
    assert frame.crs.to_epsg() == 32633
    by_place = {polygon.representative_point().wkt: (polygon, value) for polygon, value in whole}
    for row in frame.itertuples():
        polygon, value = by_place[row.geometry.representative_point().wkt]
        assert polygon.equals(row.geometry)
        assert value == row.value
    largest = frame.iloc[frame.area_m2.argmax()]
    lonlat = gpd.GeoSeries([largest.geometry.segmentize(5)], crs=CRS).to_crs(4326).iloc[0]
    assert largest.area_m2 == pytest.approx(abs(Geod(ellps="WGS84").geometry_area_perimeter(lonlat)[0]), rel=1e-5)


def test_simplified_polygons_are_a_coverage_of_the_same_area(mapped: Path) -> None:
    frame = gpd.read_parquet(mapped / "scene" / "polygons.parquet")
    assert frame.geometry.is_valid.all()
    assert shapely.coverage_is_valid(frame.geometry.to_numpy())
    with rasterio.open(mapped / "scene" / "classes.tif") as raster:
        classes = raster.read(1)
    for c in CLASSES:
        sizes = np.bincount(ndimage.label(classes == c.value)[0].ravel())[1:]
        outlined = sizes[sizes >= PolygonSettings().min_px].sum()  # smaller regions get no polygon
        area = frame.geometry[frame.value == c.value].area.sum()
        assert area == pytest.approx(outlined * 0.25, rel=0.05)  # holes of fewer pixels are filled


def test_no_data_of_the_scene_stays_empty(tmp_path: Path, task: Path) -> None:
    picture = np.maximum(landscape(150, 170), 1)
    picture[:, :90] = 0
    picture[60:70, 120:130] = 0
    scene = write_scene(tmp_path / "holed.tif", picture, nodata=0)
    out = run(tmp_path / "out", task, scene, superblock=2)
    with rasterio.open(out / "holed" / "classes.tif") as classes, rasterio.open(out / "holed" / "confidence.tif") as sure:
        assert ((classes.read(1) == 255) == (picture == 0).all(2)).all()
        assert ((sure.read(1) == 255) == (picture == 0).all(2)).all()
    record = read_json(out / "holed" / "scene.json")
    assert record["unmapped_share"] == pytest.approx((picture == 0).all(2).mean(), abs=1e-6)


def truncated(path: Path) -> Path:
    """A scene whose last third of bytes is gone; its header, at the front, still describes all of it."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3)).astype(np.uint8)
    write_scene(path, noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


@pytest.mark.parametrize("superblock", [1, 3])
def test_a_truncated_scene_loses_only_the_broken_windows(tmp_path: Path, task: Path, superblock: int) -> None:
    scene = truncated(tmp_path / "cut.tif")
    out = run(tmp_path / "out", task, scene, superblock=superblock)
    record = read_json(out / "cut" / "scene.json")
    with rasterio.open(out / "cut" / "classes.tif") as classes:
        found = classes.read(1)
    assert 0 < len(record["lost"]) < record["windows"]
    expected = np.zeros(found.shape, bool)
    for i, j in record["lost"]:
        expected[max(0, i * 32 - 8) : i * 32 + 40, max(0, j * 32 - 8) : j * 32 + 40] = True
    assert ((found == 255) == expected).all()
    assert read_json(out / "manifest.json")["summary"]["lost_windows"] == {"cut": len(record["lost"])}


def test_bad_scenes_are_left_out_with_their_reason_and_the_rest_is_mapped(tmp_path: Path, task: Path, scene: Path) -> None:
    placeless = write_scene(tmp_path / "placeless.tif", landscape(40, 40), crs=None, transform=None)
    (tmp_path / "text.tif").write_text("no picture")
    out = run(tmp_path / "out", task, placeless, scene, tmp_path / "text.tif")
    left = {Path(item["path"]).name: item for item in read_json(out / "left_out.json")}
    assert set(left) == {"placeless.tif", "text.tif"}
    assert "coordinate reference system" in left["placeless.tif"]["reason"]
    assert left["placeless.tif"]["remedy"]
    assert (out / "scene" / "classes.tif").exists()


def test_a_bad_truth_costs_no_map(tmp_path: Path, task: Path, scene: Path, mapped: Path) -> None:
    (tmp_path / "truth.tif").write_text("no raster")
    out = run(tmp_path / "out", task, scene, truth=(tmp_path / "truth.tif",))
    assert hashes(out)["scene/classes.tif"] == hashes(mapped)["scene/classes.tif"]
    assert not (out / "scene" / "scores.json").exists()
    assert [Path(item["path"]).name for item in read_json(out / "left_out.json")] == ["truth.tif"]


def test_nothing_usable_is_an_error(tmp_path: Path, task: Path) -> None:
    (tmp_path / "text.tif").write_text("no picture")
    with pytest.raises(DataError, match="no scene could be mapped"):
        run(tmp_path / "out", task, tmp_path / "text.tif")


def test_windows_off_the_lattice_are_refused(tmp_path: Path, task: Path, scene: Path) -> None:
    with pytest.raises(InputError, match="multiple of the model's patch"):
        run(tmp_path / "out", task, scene, window_px=60)


def test_a_scene_smaller_than_a_window_is_padded(tmp_path: Path, task: Path) -> None:
    small = landscape(20, 9)
    out = run(tmp_path / "out", task, write_scene(tmp_path / "small.tif", small))
    with rasterio.open(out / "small" / "classes.tif") as classes:
        found = classes.read(1)
    values = np.array([c.value for c in CLASSES])
    assert (found == values[in_memory(task, small).argmax(0)]).all()


def test_another_gsd_is_read_at_the_tasks(tmp_path: Path, task: Path) -> None:
    coarse = write_scene(tmp_path / "coarse.tif", landscape(60, 80), transform=(1.0, 0.0, 500000.0, 0.0, -1.0, 5200000.0))
    out = run(tmp_path / "out", task, coarse)
    record = read_json(out / "coarse" / "scene.json")
    with rasterio.open(out / "coarse" / "classes.tif") as classes:
        assert classes.res == (0.5, 0.5)
        assert classes.shape == (120, 160)
        assert classes.bounds == (500000.0, 5199940.0, 500080.0, 5200000.0)
    assert "task's 0.5 m" in record["resampled"]


def test_degrees_become_metres(tmp_path: Path, task: Path) -> None:
    scene = write_scene(tmp_path / "deg.tif", landscape(60, 80), crs="EPSG:4326", transform=(6e-6, 0, 15.0, 0, -4.5e-6, 47.0))
    out = run(tmp_path / "out", task, scene)
    with rasterio.open(out / "deg" / "classes.tif") as classes:
        assert classes.crs.to_epsg() in {32632, 32633}
        assert classes.res[0] == classes.res[1]
        assert (classes.read(1) != 255).mean() > 0.8


def test_baselines_are_scored_beside_the_map(tmp_path: Path, mapped: Path, task: Path, scene: Path) -> None:
    with rasterio.open(mapped / "scene" / "classes.tif") as classes:
        truth = classes.read(1)
    truth[:40] = 255
    truth[50:60, :50] = 0  # no class's value
    path = write_scene(tmp_path / "truth.tif", truth, count=1, nodata=255)
    out = run(tmp_path / "out", task, scene, truth=(path,), baselines=True, score_block_px=32)
    scores = read_json(out / "scene" / "scores.json")
    assert set(scores["methods"]) == {"trained", "untrained", "colour"}
    assert scores["methods"]["trained"]["miou"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert scores["methods"]["trained"]["pixels"] == 231 * 110 - 500
    assert scores["left_out_pixels"] == {"unlabelled": 231 * 40, "other_values": 500, "unmapped": 0}
    gain = scores["methods"]["colour"]["gain"]
    assert 0 < gain["low"] <= gain["value"] <= gain["high"]
    assert hashes(out)["scene/classes.tif"] == hashes(mapped)["scene/classes.tif"]
    assert {p.name for p in (out / "scene").glob("*.png")} == {"preview.png", "truth_preview.png", "scene_preview.png"}


def test_scenes_of_one_name_get_folders_of_their_own(tmp_path: Path, task: Path) -> None:
    scenes = [write_scene(tmp_path / side / "scene.tif", landscape(30, 30, seed)) for seed, side in enumerate("ab")]
    out = run(tmp_path / "out", task, *scenes)
    assert read_json(out / "manifest.json")["summary"]["scenes"] == ["scene", "scene_2"]


def test_another_backbone_is_refused(tmp_path: Path, scene: Path) -> None:
    own, other = make_task(tmp_path / "own"), make_task(tmp_path / "other", seed=3)
    (own.parent / "backbone").rename(tmp_path / "aside")
    (other.parent / "backbone").rename(own.parent / "backbone")
    with pytest.raises(DataError, match="another backbone"):
        run(tmp_path / "out", own, scene)


def test_killed_runs_end_with_the_same_bytes(tmp_path: Path, mapped: Path, task: Path, scene: Path) -> None:
    code = textwrap.dedent(f"""
        from pathlib import Path
        from cgeartheye.mapping import map_scenes
        from cgeartheye.settings.map import MapSettings
        settings = MapSettings(task=Path({str(task)!r}), scenes=(Path({str(scene)!r}),), workers=0, superblock=1)
        map_scenes(settings, Path({str(tmp_path / "out")!r}))
    """)
    state = tmp_path / "out" / "scene" / ".state" / "trained"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    deadline = time.monotonic() + 120
    while len(list(state.glob("*.npz"))) < 11 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 11 <= len(list(state.glob("*.npz"))) < 40
    assert hashes(run(tmp_path / "out", task, scene, superblock=1)) == hashes(mapped)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_scene(tmp_path: Path, task: Path) -> None:
    """Peak memory of a scene of sixteen times the pixels; polygons have a test of their own, as their blocks are larger."""
    code = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from cgeartheye.mapping import map_scenes
        from cgeartheye.settings.map import MapSettings
        task, scene, out = map(Path, sys.argv[1:])
        settings = MapSettings(task=task, scenes=(scene,), workers=0, superblock=8, polygons={"on": False})
        map_scenes(settings, out)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    """)
    peaks = []
    for side in (512, 2048):
        noise = np.random.default_rng(0).integers(0, 256, (side // 16, side // 16, 3)).astype(np.uint8)
        scene = write_scene(tmp_path / f"{side}.tif", np.kron(noise, np.ones((16, 16, 1), np.uint8)))
        arguments = [sys.executable, "-c", code, str(task), str(scene), str(tmp_path / f"out{side}")]
        peaks.append(int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < 1.1 * peaks[0] + 50e6
