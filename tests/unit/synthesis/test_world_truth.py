"""The pictures show what the truth says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation

from cgeartheye.files import read_json
from cgeartheye.settings.world import WorldSettings
from cgeartheye.synthesis import COVERS, QUARTERS, render_world
from cgeartheye.synthesis.benchmark import Picture, list_places, write_chips
from cgeartheye.synthesis.world import mosaic_of

FAULTY = WorldSettings(seed=3, size_m=700)
CLEAN = FAULTY.model_copy(update={"faults": False})


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_world(FAULTY, tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_world(CLEAN, tmp_path_factory.mktemp("clean"))


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as raster:
        pixels = raster.read()
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)


def test_clouds_are_where_the_masks_say(faulty: Path, clean: Path) -> None:
    truth = read_json(faulty / "world.json")["quarters"]
    assert sum(len(quarter["clouds"]) == 0 for quarter in truth) == 1
    assert 0.005 < np.mean([quarter["cloud_share"] for quarter in truth]) < 0.06
    for index, quarter in enumerate(truth):
        mask = read(faulty / f"labels/clouds_{quarter['name']}.tif")
        assert np.mean(mask == 1) == pytest.approx(quarter["cloud_share"], abs=1e-5)
        if not quarter["clouds"]:
            continue
        seen, true = (mosaic_of(s, f, index).mean(axis=2) for s, f in ((FAULTY, faulty), (CLEAN, clean)))
        lost = seen == 0
        difference = seen - true
        assert np.median(difference[(mask == 1) & ~lost]) > 30 > abs(np.median(difference[(mask == 0) & ~lost]))
        if np.mean(mask == 2) > 0.002:
            assert np.median(difference[(mask == 2) & ~lost]) < np.median(difference[(mask == 0) & ~lost]) - 5


def test_no_data_corners_are_as_large_as_told(faulty: Path) -> None:
    wedges = 0
    for quarter in read_json(faulty / "world.json")["quarters"]:
        for scene in quarter["scenes"]:
            pixels = read(faulty / scene["file"])
            empty = ~pixels.any(axis=2)
            along, down = scene["no_data_legs_px"]
            assert empty.sum() == pytest.approx(0.5 * along * down, rel=0.05)
            assert empty.mean() == pytest.approx(scene["no_data_share"], abs=1e-5)
            assert pixels[~empty].min() >= 1
            wedges += along > 0
    assert wedges == 2


def test_shifts_are_recovered_by_phase_correlation(faulty: Path, clean: Path) -> None:
    lengths = []
    for quarter in read_json(faulty / "world.json")["quarters"]:
        for scene in quarter["scenes"]:
            seen, true = (read(folder / scene["file"])[..., 1].astype(float) for folder in (faulty, clean))
            told = scene["shift_px"]
            top = 120 if scene["row"] == 0 else 20
            left = 120 if scene["column"] == 0 else 20
            window = (slice(top, top + 320), slice(left, left + 320))
            # unweighted: high frequencies carry the sensor's noise and little else
            found, _, _ = phase_cross_correlation(seen[window], true[window], upsample_factor=20, normalization=None)
            assert found == pytest.approx([told["south"], told["east"]], abs=0.12)
            lengths.append(np.hypot(told["south"], told["east"]))
    assert max(lengths) <= 1.5
    assert np.mean(lengths) > 0.4


def test_pixels_look_like_their_classes(clean: Path) -> None:
    cover = read(clean / "labels/cover.tif")
    summer = mosaic_of(CLEAN, clean, 2).astype(float)
    brightness = {name: np.median(summer[cover == k].mean(axis=1)) for k, name in enumerate(COVERS)}
    red_less_blue = {name: np.median((summer[..., 0] - summer[..., 2])[cover == k]) for k, name in enumerate(COVERS)}
    assert brightness["water"] < brightness["field"]
    assert brightness["tree"] < brightness["grass"] < brightness["bare"]
    assert red_less_blue["water"] < min(red_less_blue[name] for name in ("field", "grass", "bare"))


def test_seasons_change_leaf_and_snow(clean: Path) -> None:
    cover = read(clean / "labels/cover.tif")
    pictures = [mosaic_of(CLEAN, clean, quarter).astype(float) for quarter in range(4)]
    grass, tree = cover == COVERS.index("grass"), cover == COVERS.index("tree")
    green = [np.median((p[..., 1] - 0.5 * p[..., 0] - 0.5 * p[..., 2])[tree]) for p in pictures]
    assert min(green[1], green[2]) > max(green[0], green[3]) + 3
    white = [np.mean(p[grass].min(axis=1) > 170) for p in pictures]
    assert white[0] > 0.1 > max(white[1:])


def test_a_dry_winter_has_no_snow(tmp_path: Path) -> None:
    dry = CLEAN.model_copy(update={"winter": "dry"})
    render_world(dry, tmp_path)
    grass = read(tmp_path / "labels/cover.tif") == COVERS.index("grass")
    assert np.mean(mosaic_of(dry, tmp_path, 0)[grass].min(axis=1) > 170) < 0.02


def test_changes_are_seen_and_nothing_else_is_labelled_as_one(clean: Path) -> None:
    change = read(clean / "labels/change_2024Q1_2024Q4.tif").astype(bool)
    area = sum(piece["area_m2"] for piece in read_json(clean / "world.json")["changes"])
    assert change.sum() * 0.75**2 == pytest.approx(area, rel=0.03)
    assert np.array_equal(read(clean / "labels/classes.tif")[change], np.full(change.sum(), 255))
    before, after = (mosaic_of(CLEAN, clean, quarter).astype(float) for quarter in (1, 3))
    difference = np.abs(after - before).mean(axis=2)
    assert difference[change].mean() > 15


def test_chips_under_cloud_are_left_out(faulty: Path, tmp_path: Path) -> None:
    classes = read(faulty / "labels/classes.tif")
    places = list_places(classes, (), 128)
    mosaic = mosaic_of(FAULTY, faulty, 0)
    bad = np.zeros(classes.shape, dtype=bool)
    bad[:, : 64 + 14] = True  # 61 % of the first column of chips
    chips = write_chips(tmp_path, places, Picture(QUARTERS[0], mosaic, bad), chip_px=128, gsd_m=0.75)
    assert {chip.name for chip in chips} == {
        f"{place.row:02d}_{place.column:02d}_{QUARTERS[0]}.png" for place in places if place.column > 0
    }
    assert len(chips) < len(places)
