"""The catalogue and the reader on real files of many makers."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from cgeartheye.catalog import catalog
from cgeartheye.geometry.grid import Grid, local_grid
from cgeartheye.rasters.reader import open_raster, read_on_grid, read_window
from cgeartheye.rasters.scenes import Scene, read_scenes
from cgeartheye.settings.catalog import CatalogSettings

pytestmark = pytest.mark.imagery

NAIP = {"20100629": 2, "20150926": 3, "20160816": 3, "20180716": 3}
GRID = Grid("EPSG:26914", 486_000.0, 5_209_000.0, 5.0, 200, 150)
COLORADO = "geotiff/rio_tiler/my-bucket/hro_sources/colorado/201404_13SED190110_201404_0x1500m_CL_1"


@pytest.fixture(scope="module")
def everything(imagery: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Scene], dict[str, str]]:
    """All GeoTIFFs, each dated by a CSV file: scenes by name, and the reasons of the others."""
    folder = tmp_path_factory.mktemp("all")
    names = sorted(path.relative_to(imagery / "geotiff").as_posix() for path in (imagery / "geotiff").rglob("*.tif"))
    dates = folder / "dates.csv"
    dates.write_text("path,date,licence\n" + "".join(f"{name},2020-05-01,various\n" for name in names))
    out = catalog(CatalogSettings(scenes=(imagery / "geotiff",), dates=dates), folder / "catalog")
    reasons = {Path(entry["path"]).name: entry["reason"] for entry in json.loads((out / "left_out.json").read_text())}
    return {scene.path.name: scene for scene in read_scenes(out / "catalog.parquet")}, reasons


def test_what_is_no_picture_is_left_out_with_its_reason(everything: tuple[dict[str, Scene], dict[str, str]]) -> None:
    scenes, reasons = everything
    assert len(scenes) + len(reasons) == 26
    for name in ("QB_Toulouse_Ortho_PAN.tif", "QB_Toulouse_Ortho_XS.tif"):
        assert "uint32" in reasons[name] and "5 ground control points" in reasons[name]
    assert "1 ground control points" in reasons["ROI_QB_MUL_1.tif"]
    assert "float32" in reasons["srtm_41_19_4326.tif"] and "84.9" in reasons["srtm_41_19_4326.tif"]
    assert all("float32" in reasons[f"m_3907833_nw_17_1_landsat-leaf-{leaf}.tif"] for leaf in ("on", "off"))
    assert set(reasons) == {
        "QB_Toulouse_Ortho_PAN.tif", "QB_Toulouse_Ortho_XS.tif", "ROI_QB_MUL_1.tif", "srtm_41_19_4326.tif",
        "m_3907833_nw_17_1_landsat-leaf-on.tif", "m_3907833_nw_17_1_landsat-leaf-off.tif",
    }  # fmt: skip


def test_what_is_a_picture_is_read_right(everything: tuple[dict[str, Scene], dict[str, str]]) -> None:
    scenes, _ = everything
    masks = {name.removesuffix(".tif").split("CL_1")[-1]: s.mask_kind for name, s in scenes.items() if name.startswith("201404")}
    assert masks == {"": "none", "_alpha": "alpha", "_mask": "mask", "_extmask": "mask", "_nodata": "nodata"}
    square = scenes["m_3907833_nw_17_1_naip-new.tif"]
    assert square.mask_kind == "none" and any("near infrared" in note for note in square.notes)
    assert any("not square" in note for note in square.notes) and square.gsd_x_m == pytest.approx(23.592, abs=0.01)
    sixteen = scenes["tiff_3channel_uint16.tif"]
    assert sixteen.stretch_low == pytest.approx(135, abs=5) and sixteen.stretch_high == pytest.approx(948, abs=20)
    assert sixteen.gsd_m == pytest.approx(0.27, abs=0.01) and sixteen.crs == "EPSG:4326"
    assert scenes["odm_orthophoto.tif"].gsd_m == pytest.approx(0.05, rel=1e-3)
    assert scenes["pix4d_alpha_nodata.tif"].crs == "EPSG:32750" and scenes["pix4d_alpha_nodata.tif"].mask_kind == "alpha"
    assert "grey" in scenes["m_3907833_nw_17_1_nlcd.tif"].notes[0]


def test_every_kept_scene_can_be_read_on_a_metric_grid(everything: tuple[dict[str, Scene], dict[str, str]]) -> None:
    scenes, _ = everything
    for name, scene in scenes.items():
        centre = scene.footprint.centroid
        grid = local_grid(centre.x, centre.y, gsd_m=scene.gsd_m, size_px=64)
        colours, valid = read_on_grid(scene, grid)
        assert colours.shape == (64, 64, 3) and valid.mean() > 0.5, name
        with open_raster(scene) as raster:
            whole, known = read_window(raster)
        if scene.band_names[0] != "gray" or scene.count > 1:  # class rasters have no mean worth comparing
            assert abs(float(colours[valid].mean()) - float(whole[known].mean())) < 60, name


@pytest.mark.parametrize(
    ("variant", "share"), [("", 1.0), ("_alpha", 0.887), ("_mask", 0.969), ("_extmask", 0.969), ("_nodata", 0.973)]
)
def test_five_ways_to_say_where_the_data_is(imagery: Path, variant: str, share: float) -> None:
    with open_raster(imagery / f"{COLORADO}{variant}.tif") as raster, rasterio.open(raster.path) as file:
        colours, valid = read_window(raster)
        assert valid.mean() == pytest.approx(share, abs=0.001)
        np.testing.assert_array_equal(valid, file.dataset_mask() > 0)
        np.testing.assert_array_equal(colours, file.read((1, 2, 3)).transpose(1, 2, 0))


def test_four_naip_dates_by_csv_and_by_name(imagery: Path, tmp_path: Path) -> None:
    folder = imagery / "geotiff/opengeos_data/naip"
    dates = tmp_path / "dates.csv"
    rows = [f"m_4709963_se_14_1_{day}.tif,{day[:4]}-{day[4:6]}-{day[6:]},public domain" for day in NAIP]
    dates.write_text("name,date,licence\n" + "\n".join(rows) + "\n")
    by_csv = read_scenes(catalog(CatalogSettings(scenes=(folder,), dates=dates), tmp_path / "csv") / "catalog.parquet")
    by_name = read_scenes(catalog(CatalogSettings(scenes=(folder,)), tmp_path / "name") / "catalog.parquet")
    assert {f"{scene.date:%Y%m%d}": scene.quarter for scene in by_csv} == NAIP
    assert [scene.date for scene in by_csv] == [scene.date for scene in by_name]
    assert {scene.date_source for scene in by_csv} == {"csv"} and {scene.date_source for scene in by_name} == {"name"}
    assert {scene.licence for scene in by_csv} == {"public domain"} and {scene.gsd_m for scene in by_csv} == {5.0}
    assert all("first three" in scene.notes[0] and scene.mask_kind == "nodata" for scene in by_csv)
    frame = gpd.read_parquet(tmp_path / "csv" / "catalog.parquet")
    assert frame.to_crs("EPSG:26914").area.min() == pytest.approx(934 * 723 * 25, rel=0.001)


def test_naip_dates_on_one_grid(imagery: Path) -> None:
    """The two dates that lie on the grid are copied, the two whose geotransforms are off by up to 0.6 px are warped."""
    seen = {}
    for day in NAIP:
        with open_raster(imagery / f"geotiff/opengeos_data/naip/m_4709963_se_14_1_{day}.tif") as raster:
            seen[day], valid = read_on_grid(raster, GRID)
            assert valid.all()
            window = Window(20, 49, 200, 150)
            assert np.array_equal(seen[day], read_window(raster, window)[0]) == (day in {"20100629", "20150926"})
    grey = {day: colours.mean(axis=2) for day, colours in seen.items()}
    assert np.corrcoef(grey["20150926"].ravel(), grey["20160816"].ravel())[0, 1] > 0.3


def test_a_truncated_copy_of_a_real_file(imagery: Path, tmp_path: Path) -> None:
    source = imagery / "geotiff/opengeos_data/naip/m_4709963_se_14_1_20180716.tif"
    archive = tmp_path / "archive"
    archive.mkdir()
    for name, share in (("cut_20180716.tif", 0.9), ("whole_20180716.tif", 1.0)):
        content = source.read_bytes()
        (archive / name).write_bytes(content[: int(len(content) * share)])
    out = catalog(CatalogSettings(scenes=(archive,)), tmp_path / "catalog")
    (entry,) = json.loads((out / "left_out.json").read_text())
    assert entry["path"].endswith("cut_20180716.tif") and ("cut short" in entry["reason"] or "damaged" in entry["reason"])
    assert [scene.id for scene in read_scenes(out / "catalog.parquet")] == ["whole_20180716"]
