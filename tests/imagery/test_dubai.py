"""Adapting on real tiles with masks and mapping a part of another one, whose truth is known."""

from __future__ import annotations

import os
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.windows import Window

from cgeartheye.adaptation import adapt
from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.mapping import map_scenes
from cgeartheye.models.sizes import SIZES, build
from cgeartheye.settings.adapt import AdaptSettings, ClassSpec, HeadSettings, Pair
from cgeartheye.settings.map import MapSettings
from cgeartheye.weights.store import save_backbone

pytestmark = pytest.mark.imagery
SIDE = 768
CLASSES = tuple(
    ClassSpec(name=name, value=value, colour=colour)
    for value, (name, colour) in enumerate(
        [("water", "#E2A929"), ("land", "#8429F6"), ("road", "#6EC1E4"), ("building", "#3C1098"), ("vegetation", "#FEDD3A")], 1
    )
)


@pytest.fixture(scope="module")
def imagery() -> Path:
    folder = os.environ.get("CGEARTHEYE_IMAGERY")
    if not folder:
        pytest.skip("CGEARTHEYE_IMAGERY does not say where the real pictures are")
    return Path(folder)


def settings(imagery: Path, backbone: Path, ignore: tuple[str, ...]) -> AdaptSettings:
    tiles = [imagery / "segmentation" / "dubai_mbrsc" / f"Tile {number}" for number in (1, 2, 3, 5, 6)]
    return AdaptSettings(
        backbone=backbone,
        pairs=tuple(Pair(images=tile / "images", masks=tile / "masks", gsd_m=0.5) for tile in tiles),
        classes=CLASSES,
        ignore=ignore,
        windows=120,
        head=HeadSettings(steps=100),
        threads=1,
    )


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dubai") / "backbone"
    save_backbone(folder, build(SIZES["nano"], seed=0), {"name": "nano, untrained", "licence": "none needed", "init_seed": 1})
    return folder


def crop(source: Path, target: Path) -> Path:
    with rasterio.open(source) as raster:
        window = Window(900, 700, SIDE, SIDE)
        profile = {**raster.profile, "width": SIDE, "height": SIDE, "transform": raster.window_transform(window)}
        profile |= {"compress": "deflate", "photometric": None}
        with rasterio.open(target, "w", **{k: v for k, v in profile.items() if v is not None}) as out:
            out.write(raster.read(window=window))
    return target


def test_a_head_on_other_tiles_maps_tile_four_better_than_colour(imagery: Path, backbone: Path, tmp_path: Path) -> None:
    task = adapt(settings(imagery, backbone, ("#9B9B9B", "#000000")), tmp_path / "adapted")
    assert read_json(task / "left_out.json") == []
    scene = crop(imagery / "derived" / "dubai_tile4_image.tif", tmp_path / "scene.tif")
    truth = crop(imagery / "derived" / "dubai_tile4_mask.tif", tmp_path / "truth.tif")
    out = map_scenes(MapSettings(task=task, scenes=(scene,), truth=(truth,), baselines=True, workers=0), tmp_path / "maps")
    with rasterio.open(out / "scene" / "classes.tif") as classes, rasterio.open(scene) as source:
        assert (classes.transform, classes.crs, classes.shape) == (source.transform, source.crs, source.shape)
        assert set(np.unique(classes.read(1))) <= {1, 2, 3, 4, 5}
    methods = read_json(out / "scene" / "scores.json")["methods"]
    assert methods["trained"]["pixels"] == SIDE * SIDE
    assert methods["colour"]["gain"]["value"] > 0  # even without pre-training: neighbours say more than one pixel's colour
    polygons = gpd.read_parquet(out / "scene" / "polygons.parquet")
    assert polygons.geometry.is_valid.all()
    assert shapely.coverage_is_valid(polygons.geometry.to_numpy())
    assert polygons.area_m2.sum() <= (SIDE * 0.5) ** 2 * 1.001


def test_a_colour_that_the_legend_lacks_is_named(imagery: Path, backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"#000000 \(1,675 px\)"):
        adapt(settings(imagery, backbone, ("#9B9B9B",)), tmp_path / "adapted")
