"""The stage on products of makers: pairs, sensor models, metadata, tiles of one picture."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.warp import reproject

from cgeartheye.catalog import catalog
from cgeartheye.geometry.crs import transformer
from cgeartheye.rasters.reader import open_raster, read_window
from cgeartheye.rasters.scenes import Scene, read_scenes
from cgeartheye.settings.catalog import CatalogSettings, MetaSettings

NAME = "JL1GF03B02_PMS_20230101073000_200097070_101_0017_001"
PLACE = Affine(0.75, 0, 500_000, 0, -0.75, 5_000_000)
META = "<Product><Time><Start>2023-03-04 01:02:03</Start></Time><Cloud>12.5</Cloud></Product>"


def put(path: Path, values: np.ndarray, *, transform: Affine = PLACE, **profile: Any) -> Path:
    options = {"crs": "EPSG:32650", "dtype": values.dtype.name, **profile}
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=height, width=width, transform=transform, **options
    ) as file:
        file.write(values)
    return path


def noise(bands: int, side: int, seed: int = 0, *, low: int = 100, high: int = 3000) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (bands, side, side)).astype(np.uint16)


def run(folder: Path, **settings: Any) -> tuple[dict[str, Scene], Path]:
    out = catalog(CatalogSettings(scenes=(folder,), **settings), folder.parent / "catalog")
    return {scene.id: scene for scene in read_scenes(out / "catalog.parquet")}, out


def left_out(out: Path) -> dict[str, dict[str, str]]:
    return {Path(entry["path"]).name: entry for entry in json.loads((out / "left_out.json").read_text())}


def pair(folder: Path, level: str = "L3D") -> None:
    put(folder / f"{NAME}_{level}_PAN.tif", noise(1, 128))
    put(folder / f"{NAME}_{level}_MSS.tif", noise(4, 32, 1), transform=PLACE @ Affine.scale(4))


def test_a_pair_becomes_one_sharp_scene(tmp_path: Path) -> None:
    pair(tmp_path / "a")
    scenes, out = run(tmp_path / "a")
    (scene,) = scenes.values()
    assert scene.id == f"{NAME}_L3D_SHARP" and scene.gsd_m == 0.75 and (scene.width, scene.height) == (128, 128)
    assert scene.datetime == dt.datetime(2022, 12, 31, 23, 30, tzinfo=dt.UTC) and (scene.year, scene.quarter) == (2022, 4)
    assert scene.band_names[:3] == ("red", "green", "blue") and scene.count == 4 and scene.dtype == "uint16" and scene.nodata == 0
    assert "pan-sharpened from" in scene.notes[0] and left_out(out) == {}
    with rasterio.open(scene.path) as file, rasterio.open(tmp_path / "a" / f"{NAME}_L3D_MSS.tif") as coarse:
        sharp = file.read().reshape(4, 32, 4, 32, 4).mean(axis=(2, 4))
        wanted = coarse.read((3, 2, 1, 4)).astype(float)
        assert np.corrcoef(sharp.ravel(), wanted.ravel())[0, 1] > 0.9
    with open_raster(scene) as raster:
        assert read_window(raster)[1].all()


def test_a_sharp_file_is_kept_and_not_searched(tmp_path: Path) -> None:
    pair(tmp_path / "a")
    scenes, _ = run(tmp_path / "a", sharpened=tmp_path / "a" / "cache")
    (scene,) = scenes.values()
    before = scene.path.stat().st_mtime_ns
    out = catalog(CatalogSettings(scenes=(tmp_path / "a",), sharpened=tmp_path / "a" / "cache"), tmp_path / "again")
    assert read_scenes(out / "catalog.parquet") == [scene] and scene.path.stat().st_mtime_ns == before


def test_sharp_files_are_the_same_to_the_last_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(tmp_path / "a")
    monkeypatch.setattr("cgeartheye.rasters.sharpen.BLOCK_PX", 448)
    contents = []
    for number in range(2):
        cache = tmp_path / f"cache{number}"
        catalog(CatalogSettings(scenes=(tmp_path / "a",), sharpened=cache), tmp_path / f"out{number}")
        contents.append([path.read_bytes() for path in sorted(cache.iterdir())])
    assert contents[0] == contents[1] and len(contents[0]) == 1


def test_blocks_leave_no_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(tmp_path / "a")
    values = []
    for side in (48, 1792):
        monkeypatch.setattr("cgeartheye.rasters.sharpen.BLOCK_PX", side)
        scenes = read_scenes(
            catalog(CatalogSettings(scenes=(tmp_path / "a",), sharpened=tmp_path / f"c{side}"), tmp_path / f"o{side}")
            / "catalog.parquet"
        )
        with rasterio.open(scenes[0].path) as file:
            values.append(file.read().astype(int))
    assert np.abs(values[0] - values[1]).max() <= 1


def test_a_pair_that_does_not_fit_is_left_out_whole(tmp_path: Path) -> None:
    pair(tmp_path / "a")
    put(tmp_path / "a" / f"{NAME}_L3D_MSS.tif", noise(4, 32, 1), transform=Affine.translation(9e4, 0) @ PLACE @ Affine.scale(4))
    put(tmp_path / "a" / "good_20230101.tif", noise(3, 32), photometric="RGB")
    scenes, out = run(tmp_path / "a")
    assert list(scenes) == ["good_20230101"]
    told = left_out(out)
    assert set(told) == {f"{NAME}_L3D_PAN.tif", f"{NAME}_L3D_MSS.tif"}
    assert all("does not lie where" in entry["reason"] for entry in told.values())


def test_under_the_profile_generic_names_of_jilin_1_say_nothing(tmp_path: Path) -> None:
    pair(tmp_path / "a")
    scenes, _ = run(tmp_path / "a", profile="generic")
    assert {scene.datetime.isoformat() for scene in scenes.values()} == {"2023-01-01T07:30:00+00:00"} and len(scenes) == 2


def test_four_silent_bands_of_jilin_1_are_blue_green_red_and_near_infrared(tmp_path: Path) -> None:
    put(tmp_path / "a" / f"{NAME}_L3D_MSS.tif", noise(4, 32), photometric="MINISBLACK")
    (scene,) = run(tmp_path / "a")[0].values()
    assert scene.rgb_bands == (3, 2, 1) and "the order of Jilin-1" in scene.notes[0]


RPCS = RPC(
    err_bias=0, err_rand=0, height_off=100, height_scale=500, lat_off=43.9, lat_scale=0.01, line_off=64, line_scale=64,
    long_off=125.3,
    long_scale=0.01, samp_off=64, samp_scale=64, line_num_coeff=[0, 0, -1] + [0] * 17, line_den_coeff=[1] + [0] * 19,
    samp_num_coeff=[0, 1] + [0] * 18, samp_den_coeff=[1] + [0] * 19,
)  # fmt: skip


def write_rpc_text(path: Path) -> None:
    """The text form that Jilin-1 products carry beside their pictures (`*_rpc.txt`)."""
    head = {
        "LINE_OFF": RPCS.line_off, "SAMP_OFF": RPCS.samp_off, "LAT_OFF": RPCS.lat_off, "LONG_OFF": RPCS.long_off,
        "HEIGHT_OFF": RPCS.height_off, "LINE_SCALE": RPCS.line_scale, "SAMP_SCALE": RPCS.samp_scale, "LAT_SCALE": RPCS.lat_scale,
        "LONG_SCALE": RPCS.long_scale, "HEIGHT_SCALE": RPCS.height_scale,
    }  # fmt: skip
    lines = [f"{key}: {value}" for key, value in head.items()]
    for name, values in (
        ("LINE_NUM", RPCS.line_num_coeff), ("LINE_DEN", RPCS.line_den_coeff),
        ("SAMP_NUM", RPCS.samp_num_coeff), ("SAMP_DEN", RPCS.samp_den_coeff),
    ):  # fmt: skip
        lines += [f"{name}_COEFF_{number}: {value}" for number, value in enumerate(values, 1)]
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("located", [False, True])
def test_sensor_models_are_refused_with_the_very_command(tmp_path: Path, *, located: bool) -> None:
    folder = tmp_path / "a b"
    for kind, bands in (("PAN", 1), ("MSS", 4)):
        where = {} if located else {"transform": Affine.identity(), "crs": None}
        path = put(folder / f"{NAME}_L1_{kind}.tif", noise(bands, 128), **where)
        write_rpc_text(path.with_name(f"{path.stem}_rpc.txt"))
    put(folder / "good_20230101.tif", noise(3, 32), photometric="RGB")
    scenes, out = run(folder)
    told = left_out(out)
    assert list(scenes) == ["good_20230101"] and set(told) == {f"{NAME}_L1_PAN.tif", f"{NAME}_L1_MSS.tif"}
    for kind in ("PAN", "MSS"):
        path = folder / f"{NAME}_L1_{kind}.tif"
        command = (
            "gdalwarp -rpc -to RPC_DEM=DEM.tif -t_srs EPSG:32651 -r cubic -dstnodata 0 -co TILED=YES "
            f"'{path}' '{path.with_name(path.stem + '_ortho.tif')}'"
        )
        assert command in told[path.name]["remedy"] and "RPC" in told[path.name]["reason"]


def test_what_the_command_makes_is_a_pair_again(tmp_path: Path) -> None:
    """What `gdalwarp -rpc` does, by the same library: the orthorectified files are recognised by their names."""
    x, y = transformer("EPSG:4326", "EPSG:32651").transform(RPCS.long_off, RPCS.lat_off)
    for kind, bands, side in (("PAN", 1, 400), ("MSS", 4, 100)):
        target = np.zeros((bands, side, side), np.uint16)
        transform = Affine(1600 / side, 0, x - 800, 0, -1600 / side, y + 800)
        reproject(
            noise(bands, 128), target, rpcs=RPCS, src_crs="EPSG:4326", dst_crs="EPSG:32651", dst_transform=transform,
            resampling=Resampling.cubic, RPC_HEIGHT=100,
        )  # fmt: skip
        put(tmp_path / "a" / f"{NAME}_L1_{kind}_ortho.tif", target, transform=transform, crs="EPSG:32651", nodata=0)
    (scene,) = run(tmp_path / "a")[0].values()
    assert scene.id == f"{NAME}_L1_SHARP_ortho" and scene.gsd_m == pytest.approx(4) and scene.year == 2022
    lon, lat = scene.footprint.centroid.x, scene.footprint.centroid.y
    assert abs(lon - RPCS.long_off) < 0.02 and abs(lat - RPCS.lat_off) < 0.02


def test_elements_of_the_metadata_file_are_named_by_the_user(tmp_path: Path) -> None:
    pair(tmp_path / "a")
    (tmp_path / "a" / f"{NAME}_L3D_meta.xml").write_text(META)
    put(tmp_path / "a" / f"{NAME}_L3D_x.tif", noise(3, 16), photometric="RGB")
    (tmp_path / "a" / f"{NAME}_L3D_x_meta.xml").write_text(META.replace("12.5", "often"))
    meta = MetaSettings(datetime="Time/Start", cloud_percent="Cloud")
    scenes, out = run(tmp_path / "a", meta=meta)
    (scene,) = scenes.values()
    assert scene.datetime == dt.datetime(2023, 3, 3, 17, 2, 3, tzinfo=dt.UTC) and scene.date_source == "meta"
    assert scene.cloud_share == 0.125
    assert "'often' in Cloud" in left_out(out)[f"{NAME}_L3D_x.tif"]["reason"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<Product><Time/></Product>", "no element Time/Start"),
        ("<Product><Time><Start>noon</Start></Time></Product>", "no date"),
        ("<Product><Time>", "cannot be read"),
        ('<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]><Product>&c;</Product>', "cannot be read"),
    ],
)
def test_metadata_files_that_are_wrong_cost_their_scene_only(tmp_path: Path, text: str, words: str) -> None:
    put(tmp_path / "a" / "x_20230101.tif", noise(3, 16), photometric="RGB")
    (tmp_path / "a" / "x_20230101_meta.xml").write_text(text)
    put(tmp_path / "a" / "y_20230101.tif", noise(3, 16, 1), photometric="RGB")
    scenes, out = run(tmp_path / "a", meta=MetaSettings(datetime="Time/Start"))
    assert list(scenes) == ["y_20230101"] and words in left_out(out)["x_20230101.tif"]["reason"]


def test_airbus_tells_time_and_colours_in_its_dimap_file(tmp_path: Path) -> None:
    stem = "PHR1A_PMS_201511151132244_ORT_2025121101-001"
    put(tmp_path / "a" / f"IMG_{stem}_R1C1.TIF", noise(4, 16), photometric="MINISBLACK")
    (tmp_path / "a" / f"DIM_{stem}.XML").write_text(
        "<Dimap_Document><Raster_Data><Raster_Display><Band_Display_Order><RED_CHANNEL>B2</RED_CHANNEL><GREEN_CHANNEL>B1</GREEN_CHANNEL>"
        "<BLUE_CHANNEL>B0</BLUE_CHANNEL></Band_Display_Order></Raster_Display><Raster_Index_List>"
        + "".join(
            f"<Raster_Index><BAND_ID>B{b}</BAND_ID><BAND_INDEX>{n}</BAND_INDEX></Raster_Index>"
            for n, b in enumerate((2, 1, 0, 3), 1)
        )
        + "</Raster_Index_List></Raster_Data><Dataset_Sources><Source_Identification><Strip_Source>"
        "<IMAGING_DATE>2015-11-15</IMAGING_DATE>"
        "<IMAGING_TIME>11:32:25.3Z</IMAGING_TIME></Strip_Source></Source_Identification></Dataset_Sources></Dimap_Document>"
    )
    (scene,) = run(tmp_path / "a")[0].values()
    assert scene.rgb_bands == (1, 2, 3) and scene.datetime == dt.datetime(2015, 11, 15, 11, 32, 25, 300_000, tzinfo=dt.UTC)
    assert scene.acquisition == f"{stem}-sharpened"


def test_tiles_of_one_picture_share_name_and_stretch(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tiles = [rng.integers(low, high, (3, 64, 64)).astype(np.uint16) for low, high in ((0, 500), (200, 4000), (3000, 9000))]
    for number, tile in enumerate(tiles):
        where = PLACE @ Affine.translation(64 * number, 0)
        put(tmp_path / "a" / f"city_2023Q3_R1C{number + 1}.tif", tile, photometric="RGB", transform=where)
    put(tmp_path / "a" / "alone_20230101.tif", tiles[0], photometric="RGB", transform=PLACE @ Affine.translation(0, 99))
    scenes, _ = run(tmp_path / "a")
    mosaic = [scene for name, scene in scenes.items() if name.startswith("city")]
    assert {scene.acquisition for scene in mosaic} == {"city_2023Q3"} and {scene.quarter for scene in mosaic} == {3}
    assert {scene.year for scene in mosaic} == {2023} and "only its quarter is known" in " ".join(mosaic[0].notes)
    assert len({(scene.stretch_low, scene.stretch_high) for scene in mosaic}) == 1
    low, high = np.quantile(np.concatenate([tile.ravel() for tile in tiles]), (0.005, 0.995))
    assert mosaic[0].stretch_low == pytest.approx(low, abs=20) and mosaic[0].stretch_high == pytest.approx(high, abs=60)
    alone = scenes["alone_20230101"]
    assert alone.acquisition == alone.id and alone.stretch_high is not None and alone.stretch_high < 510


def test_masks_of_planet_are_no_scenes(tmp_path: Path) -> None:
    put(tmp_path / "a" / "20230703_194241_43_2427_3B_udm2.tif", noise(8, 16), photometric="MINISBLACK")
    put(
        tmp_path / "a" / "20230703_194241_43_2427_3B_AnalyticMS_SR.tif",
        noise(4, 16),
        photometric="MINISBLACK",
        transform=PLACE @ Affine.scale(4),
    )
    scenes, out = run(tmp_path / "a")
    (scene,) = scenes.values()
    assert scene.rgb_bands == (3, 2, 1) and scene.datetime == dt.datetime(2023, 7, 3, 19, 42, 41, tzinfo=dt.UTC)
    assert "mask" in left_out(out)["20230703_194241_43_2427_3B_udm2.tif"]["reason"]
