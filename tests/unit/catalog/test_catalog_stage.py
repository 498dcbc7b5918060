"""The stage on small archives: what is kept, what is left out and why, and that one bad file never costs another."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from pyproj import Geod
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from cgeartheye.catalog import catalog
from cgeartheye.errors import DataError, InputError, StaleStageError
from cgeartheye.progress import Progress
from cgeartheye.rasters.scenes import read_scenes
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.stage import read_manifest

PLACE = Affine(0.75, 0, 500_000, 0, -0.75, 5_000_000)
Write = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


@pytest.fixture
def write(archive: Path) -> Write:
    """Write a GeoTIFF of noise into the archive; keywords override its profile."""

    def written(name: str, *, seed: int = 0, high: int = 255, tags: dict[str, str] | None = None, **profile: Any) -> Path:
        options = {
            "width": 90, "height": 80, "count": 3, "dtype": "uint8", "crs": "EPSG:32632", "transform": PLACE,
            "photometric": "RGB",
        } | profile  # fmt: skip
        path = archive / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (options["count"], options["height"], options["width"])
        values = np.random.default_rng([seed, *name.encode()]).integers(0, high, shape)
        with rasterio.open(path, "w", driver="GTiff", **options) as file:
            if tags:
                file.update_tags(**tags)
            file.write(values.astype(options["dtype"]))
        return path

    return written


def run(archive: Path, **settings: Any) -> Path:
    return catalog(CatalogSettings(scenes=(archive,), **settings), archive.parent / "catalog")


def left_out(out: Path) -> dict[str, dict[str, str]]:
    entries = json.loads((out / "left_out.json").read_text())
    assert all(set(entry) == {"path", "reason", "remedy"} and entry["reason"] and entry["remedy"] for entry in entries)
    return {Path(entry["path"]).name: entry for entry in entries}


def test_a_scene_and_all_that_is_known_about_it(archive: Path, write: Write) -> None:
    write("a_20240215.tif", nodata=0)
    out = run(archive, licence="CC-BY-4.0")
    (scene,) = read_scenes(out / "catalog.parquet")
    assert (scene.id, scene.path, scene.date.isoformat(), scene.year, scene.quarter) == (
        "a_20240215", archive / "a_20240215.tif", "2024-02-15", 2024, 1,
    )  # fmt: skip
    assert (scene.width, scene.height, scene.count, scene.dtype, scene.nodata, scene.mask_kind) == (
        90,
        80,
        3,
        "uint8",
        0,
        "nodata",
    )
    assert scene.band_names == ("red", "green", "blue") and scene.rgb_bands == (1, 2, 3) and scene.licence == "CC-BY-4.0"
    assert (scene.gsd_m, scene.gsd_x_m, scene.gsd_y_m) == (0.75, 0.75, 0.75) and scene.crs == "EPSG:32632"
    assert scene.transform == tuple(PLACE[:6]) and scene.date_source == "name" and scene.notes == ()
    area, _ = Geod(ellps="WGS84").geometry_area_perimeter(scene.footprint)
    assert area == pytest.approx(90 * 80 * 0.75**2, rel=2e-3)
    assert scene.footprint.contains(gpd.points_from_xy([9.0003], [45.1533])[0])


def test_the_summary_counts_everything(archive: Path, write: Write) -> None:
    write("a_20240215.tif")
    write("b_20240815.tif", transform=PLACE @ Affine.translation(90, 0), dtype="uint16", high=3000)
    write("c_20230815.tif", seed=1)
    write("nodate.tif")
    (archive / "readme.txt").write_text("hello")
    out = run(archive)
    summary = read_manifest(out, "catalog")["summary"]
    assert (summary["found"], summary["kept"], summary["left_out"], summary["ignored"]) == (4, 3, 1, 1)
    assert summary["by_year"] == {"2023": 1, "2024": 2} and summary["by_quarter"] == {"Q1": 1, "Q2": 0, "Q3": 2, "Q4": 0}
    assert summary["by_year_and_quarter"] == {"2023 Q3": 1, "2024 Q1": 1, "2024 Q3": 1}
    assert summary["reasons"] == {"has no date": 1} and summary["dtypes"] == {"uint16": 1, "uint8": 2}
    assert summary["area_km2"] == pytest.approx(2 * 90 * 80 * 0.75**2 / 1e6, rel=2e-3)
    assert summary["area_of_scenes_km2"] == pytest.approx(3 / 2 * summary["area_km2"], rel=1e-3)
    assert "3 scenes of 2023-08-15 to 2024-08-15" in summary["headline"] and "1 left out" in summary["headline"]
    assert gpd.read_parquet(out / "catalog.parquet").shape[0] == 3


def test_reasons_of_one_kind_count_as_one(archive: Path, write: Write) -> None:
    for number in (1, 2):
        write(f"coarse{number}_20240101.tif", transform=Affine(1e3 * number, 0, 5e5, 0, -1e3 * number, 5e6))
        write(f"float{number}_20240101.tif", dtype="float32")
        write(f"square{number}_20240101.tif", transform=Affine(number, 0, 5e5, 0, -3, 5e6))
    (archive / "z_20240101.tif").write_bytes((archive / "square1_20240101.tif").read_bytes())
    summary = read_manifest(run(archive))["summary"]
    assert summary["reasons"] == {
        "has the same content as another file": 1,
        "its ground sample distance is # m, outside # to # m": 2,
        "its values are float32, not #- or #-bit unsigned": 2,
    }
    assert summary["notes"] == {"its pixels are not square; they are resampled when read": 2}


def test_the_csv_file_comes_first_then_the_tag_then_the_name(archive: Path, write: Write) -> None:
    write("a_20240215.tif", tags={"TIFFTAG_DATETIME": "2023:05:01 10:00:00"})
    write("b_20240215.tif", tags={"TIFFTAG_DATETIME": "2023:05:01 10:00:00"})
    write("c_20240215.tif", tags={"TIFFTAG_DATETIME": "rubbish"})
    write("deep/d.tif")
    write("deep/e.tif")
    dates = archive.parent / "dates.csv"
    dates.write_text(
        "path,date,licence\na_20240215.tif,2022-01-31,CC0\ndeep/d.tif,2022-02-01,\nnobody.tif,2022-02-01,\ndeep/e.tif,soon,\n"
    )
    out = run(archive, dates=dates, licence="mine")
    found = {
        scene.path.name: (scene.date.isoformat(), scene.date_source, scene.licence)
        for scene in read_scenes(out / "catalog.parquet")
    }
    assert found == {
        "a_20240215.tif": ("2022-01-31", "csv", "CC0"),
        "b_20240215.tif": ("2023-05-01", "tag", "mine"),
        "c_20240215.tif": ("2024-02-15", "name", "mine"),
        "d.tif": ("2022-02-01", "csv", "mine"),
    }
    assert "line 5 has 'soon'" in left_out(out)["e.tif"]["reason"]
    assert read_manifest(out)["summary"]["unused_csv_rows"] == 1


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no_crs_20240101.tif": ({"crs": None}, "no coordinate reference system", "gdal_edit"),
    "no_place_20240101.tif": ({"transform": Affine.identity()}, "no geotransform", "world file"),
    "float_20240101.tif": ({"dtype": "float32"}, "float32, not 8- or 16-bit", "-scale"),
    "flat16_20240101.tif": ({"dtype": "uint16", "high": 1}, "no range for 8 bits", "viewer"),
    "eight_20240101.tif": ({"dtype": "uint16", "count": 8, "photometric": "MINISBLACK"}, "has 8 bands", "catalog.rgb_bands"),
    "coarse_20240101.tif": ({"transform": Affine(100, 0, 5e5, 0, -100, 5e6)}, "sample distance is 100 m", "catalog.gsd_max_m"),
    "off_earth_20240101.tif": ({"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 0, 0, -1e-5, 95)}, "place on Earth", "gdalwarp"),
    "nodate.tif": ({}, "has no date", "catalog.dates"),
    "both.tif": (
        {"crs": None},
        "has no date (csv, item, meta, product, tag, name looked at); has no coordinate reference system",
        "catalog.dates",
    ),
}


def test_every_fault_has_its_reason_and_remedy_and_costs_no_other_file(archive: Path, write: Write) -> None:
    for name, (profile, _, _) in FAULTS.items():
        write(name, **profile)
    write("good_20240101.tif")
    out = run(archive)
    told = left_out(out)
    assert set(told) == set(FAULTS)
    for name, (_, reason, remedy) in FAULTS.items():
        assert reason in told[name]["reason"], name
        assert remedy in told[name]["remedy"], name
    assert [scene.id for scene in read_scenes(out / "catalog.parquet")] == ["good_20240101"]


@pytest.mark.parametrize(
    "layout", [{}, {"tiled": True, "blockxsize": 32, "blockysize": 32}, {"compress": "deflate"}, {"interleave": "band"}]
)
def test_a_file_cut_short_is_found_now(archive: Path, write: Write, layout: dict[str, Any]) -> None:
    path = write("cut_20240101.tif", **layout)
    write("good_20240101.tif", **layout)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    told = left_out(run(archive))
    assert list(told) == ["cut_20240101.tif"]
    assert "is cut short" in told["cut_20240101.tif"]["reason"]
    assert "copy or download" in told["cut_20240101.tif"]["remedy"]


def test_a_header_cut_off_and_damaged_pixels_are_found_now(archive: Path, write: Write) -> None:
    header = write("header_20240101.tif")
    header.write_bytes(header.read_bytes()[:100])
    pixels = write("pixels_20240101.tif", compress="deflate")
    content = bytearray(pixels.read_bytes())
    content[-4000:] = bytes(4000)
    pixels.write_bytes(bytes(content))
    write("good_20240101.tif")
    told = left_out(run(archive))
    assert set(told) == {"header_20240101.tif", "pixels_20240101.tif"}
    assert "header is damaged" in told["header_20240101.tif"]["reason"]
    assert "cannot be read in rows" in told["pixels_20240101.tif"]["reason"]


def test_pixels_are_not_looked_at_if_not_wanted(archive: Path, write: Write) -> None:
    path = write("cut_20240101.tif")
    path.write_bytes(path.read_bytes()[:-2000])
    out = run(archive, check_pixels=False)
    assert len(read_scenes(out / "catalog.parquet")) == 1 and left_out(out) == {}


def test_unusual_scenes_are_kept_with_a_note(archive: Path, write: Write) -> None:
    write("square_20240101.tif", transform=Affine(1, 0, 5e5, 0, -2, 5e6))
    write("turned_20240101.tif", transform=Affine.translation(5e5, 5e6) @ Affine.rotation(30) @ Affine.scale(1, -1))
    write("degrees_20240101.tif", crs="EPSG:4326", transform=Affine(1e-5, 0, 10, 0, -1e-5, 60))
    write("grey_20240101.tif", count=1, photometric="MINISBLACK")
    write("south_20240101.tif", transform=Affine(1, 0, 5e5, 0, 1, 5e6))
    scenes = {scene.path.name.split("_")[0]: scene for scene in read_scenes(run(archive) / "catalog.parquet")}
    assert "not square (1 x 2 m)" in scenes["square"].notes[0] and scenes["square"].gsd_m == pytest.approx(2**0.5)
    assert "turned" in scenes["turned"].notes[0] and scenes["turned"].gsd_m == pytest.approx(1)
    assert scenes["degrees"].gsd_x_m == pytest.approx(0.558, abs=0.002) and scenes["degrees"].gsd_y_m == pytest.approx(
        1.114, abs=0.002
    )
    assert "grey" in scenes["grey"].notes[0] and scenes["grey"].rgb_bands == (1, 1, 1)
    assert "north up" in scenes["south"].notes[0] and all(scene.footprint.is_valid for scene in scenes.values())


def test_ground_control_points_place_a_picture_where_a_plane_fits_them(archive: Path, write: Write) -> None:
    corners = {"plane": ((0, 0), (0, 90), (80, 0)), "line": ((0, 0), (10, 10), (80, 80))}
    for name, places in corners.items():
        path = write(f"{name}_20240101.tif", transform=Affine.identity(), crs=None)
        with rasterio.open(path, "r+") as file:
            points = [GroundControlPoint(r, c, 5e5 + c, 5e6 - r) for r, c in places]
            file.gcps = (points, rasterio.crs.CRS.from_epsg(32632))
    out = run(archive)
    told = left_out(out)["line_20240101.tif"]
    assert "3 ground control points do not fix a plane" in told["reason"] and "at least three" in told["remedy"]
    (scene,) = read_scenes(out / "catalog.parquet")
    assert scene.crs == "EPSG:32632" and scene.transform == pytest.approx((1, 0, 5e5, 0, -1, 5e6))


def test_near_infrared_marked_as_alpha_is_noted(archive: Path, write: Write) -> None:
    path = write("nir_20240101.tif", count=4)
    with rasterio.open(path, "r+") as file:
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    (scene,) = read_scenes(run(archive) / "catalog.parquet")
    assert scene.mask_kind == "none" and "near infrared" in scene.notes[0]


def test_what_is_no_scene_is_passed_over_or_refused(archive: Path, write: Write) -> None:
    good = write("good_20240101.tif")
    with zipfile.ZipFile(archive / "scenes.zip", "w") as bundle:
        bundle.write(good)
    (archive / "notes.pdf").write_bytes(b"%PDF")
    (archive / ".hidden_20240101.tif").write_bytes(good.read_bytes())
    (archive / "empty_20240101.tif").touch()
    (archive / "vrt_20240101.tif").write_text(f"<VRTDataset><SourceFilename>{good}</SourceFilename></VRTDataset>")
    (archive / "broken_20240101.tif").symlink_to(archive / "nowhere.tif")
    out = run(archive)
    told = left_out(out)
    assert set(told) == {"empty_20240101.tif", "vrt_20240101.tif", "broken_20240101.tif"}
    assert told["empty_20240101.tif"]["reason"] == "is empty" and "virtual raster" in told["vrt_20240101.tif"]["reason"]
    assert read_manifest(out)["summary"]["ignored"] == 2


def test_links_are_followed_but_loops_end(archive: Path, write: Write) -> None:
    write("sub/a_20240101.tif")
    (archive / "sub" / "loop").symlink_to(archive)
    (archive / "self").symlink_to(archive / "self")
    outside = archive.parent / "outside"
    outside.mkdir()
    (archive / "sub" / "a_20240101.tif").rename(outside / "b_20240101.tif")
    (archive / "linked").symlink_to(outside)
    write("sub/a_20240101.tif", seed=1)
    out = run(archive)
    assert [scene.id for scene in read_scenes(out / "catalog.parquet")] == ["b_20240101", "a_20240101"]


def test_a_folder_without_read_right_costs_only_itself(archive: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a/x_20240101.tif")
    write("closed/y_20240101.tif")
    write("z/z_20240101.tif")
    real, closed = os.scandir, "/closed"

    def scandir(path: Any) -> Any:
        if str(path).endswith(closed):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    out = run(archive)
    assert [scene.id for scene in read_scenes(out / "catalog.parquet")] == ["x_20240101", "z_20240101"]
    told = left_out(out)["closed"]
    assert told["path"] == str(archive / "closed") and "may not be read" in told["reason"] and "chmod" in told["remedy"]
    closed = "/archive"
    with pytest.raises(
        DataError, match=r"no scene can be used:\n  .*archive: the folder may not be read\n    -> change its rights"
    ):
        catalog(CatalogSettings(scenes=(archive,)), archive.parent / "other")


def test_a_file_without_read_right_costs_only_itself(archive: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("a_20240101.tif")
    write("b_20240101.tif")
    real = Path.open

    def opened(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "a_20240101.tif":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    out = run(archive)
    assert "may not be read" in left_out(out)["a_20240101.tif"]["reason"]
    assert [scene.id for scene in read_scenes(out / "catalog.parquet")] == ["b_20240101"]


@pytest.mark.parametrize("limit", [2**26, 1000])
def test_copies_are_named(archive: Path, write: Write, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr("cgeartheye.catalog.copies.WHOLE_LIMIT", limit)
    path = write("a_20240101.tif")
    (archive / "b").mkdir()
    (archive / "b" / "a_20240101.tif").write_bytes(path.read_bytes())
    other = archive / "c_20240101.tif"
    other.write_bytes(path.read_bytes())
    with rasterio.open(other, "r+") as file:
        file.write(np.full((80, 90), 3, np.uint8), 3)
    out = run(archive)
    assert [scene.path for scene in read_scenes(out / "catalog.parquet")] == [path, other]
    assert left_out(out)["a_20240101.tif"]["reason"] == f"has the same content as {path}"


def test_files_of_one_name_get_ids_of_their_own(archive: Path, write: Write) -> None:
    for number, folder in enumerate(("one", "two")):
        write(f"{folder}/a b_20240101.tif", seed=number)
    ids = [scene.id for scene in read_scenes(run(archive) / "catalog.parquet")]
    assert len(set(ids)) == 2 and all(name.startswith("a_b_20240101-") and len(name) == 21 for name in ids)


def test_nothing_usable_names_every_reason(archive: Path, write: Write) -> None:
    write("a.tif")
    write("b_20240101.tif", crs=None)
    with pytest.raises(DataError) as caught:
        run(archive)
    assert caught.value.exit_code == 3
    assert all(
        word in str(caught.value)
        for word in ("a.tif: has no date", "b_20240101.tif: has no coordinate", "gdal_edit", "left_out.json")
    )
    assert set(left_out(archive.parent / "catalog")) == {"a.tif", "b_20240101.tif"}


def test_an_empty_folder_and_wrong_settings(archive: Path) -> None:
    (archive / "a.png").touch()
    with pytest.raises(DataError, match=r"no file ends with \.jp2, \.tif, \.tiff \(1 others"):
        run(archive)
    with pytest.raises(InputError, match="--scenes"):
        catalog(CatalogSettings(), archive.parent / "x")
    with pytest.raises(InputError, match="no such file or folder") as caught:
        run(archive / "missing")
    assert caught.value.exit_code == 2


def test_single_files_count_once_and_with_any_ending(archive: Path, write: Write) -> None:
    path = write("a_20240101.tif")
    odd = write("b_20240101.geotiff")
    out = catalog(CatalogSettings(scenes=(path, odd, archive)), archive.parent / "catalog")
    assert [scene.path for scene in read_scenes(out / "catalog.parquet")] == [path, odd]


def test_a_finished_catalogue_stays_and_new_scenes_make_it_stale(archive: Path, write: Write) -> None:
    write("a_20240101.tif")
    out = run(archive)
    before = (out / "manifest.json").read_bytes()
    assert run(archive, workers=1) == out and (out / "manifest.json").read_bytes() == before
    write("b_20240101.tif")
    with pytest.raises(StaleStageError, match=r"inputs\.scenes"):
        run(archive)


def test_neither_workers_nor_an_interruption_change_a_byte(archive: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        write(f"s{number}_2024010{number + 1}.tif", crs=None if number == 3 else "EPSG:32632")
    first = run(archive, workers=1)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    out = archive.parent / "second"
    settings = CatalogSettings(scenes=(archive,), workers=5)
    with monkeypatch.context() as patched:
        patched.setattr("cgeartheye.catalog.build.write_scenes", killed)
        with pytest.raises(KeyboardInterrupt):
            catalog(settings, out)
    catalog(settings, out)
    for name in ("catalog.parquet", "left_out.json"):
        assert (first / name).read_bytes() == (out / name).read_bytes()


def test_stages_beside_the_catalogue_are_not_searched(archive: Path, write: Write) -> None:
    write("a_20240101.tif")
    write("out/maps/classes_20240101.tif")
    (archive / "out" / "maps" / "stage.json").write_text("{}")
    out = catalog(CatalogSettings(scenes=(archive,)), archive / "out" / "catalog")
    assert [scene.id for scene in read_scenes(out / "catalog.parquet")] == ["a_20240101"]
    assert catalog(CatalogSettings(scenes=(archive,)), archive / "out" / "catalog") == out


def test_progress_is_told(archive: Path, write: Write) -> None:
    write("a_20240101.tif")
    write("b.tif")
    told: list[tuple[str, int]] = []

    class Listener(Progress):
        def task(self, description: str, total: int, done: int = 0) -> Any:
            told.append((description, total))
            return super().task(description, total, done)

    catalog(CatalogSettings(scenes=(archive,)), archive.parent / "catalog", progress=Listener())
    assert told == [("fingerprints", 2), ("scenes", 2)]
    assert "b.tif is left out: has no date" in (archive.parent / "catalog" / "run.log").read_text()
