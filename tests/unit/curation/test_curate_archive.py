from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.windows import from_bounds
from scipy import ndimage

from cgeartheye.catalog import catalog
from cgeartheye.curation import curate
from cgeartheye.curation.filtering import encode_jpeg
from cgeartheye.errors import DataError, InputError, StaleStageError
from cgeartheye.probes.colour import joint_histogram
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.settings.curate_chips import ChipSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import read_manifest

Make = Callable[..., CurateSettings]
Tif = Callable[..., Path]
ORIGIN = (500_000.0, 4_400_000.0)
CRS = "EPSG:32650"


def digests(folder: Path) -> dict[str, str]:
    files = [
        p for p in folder.rglob("*") if p.is_file() and p.name not in {"run.log", "stage.lock", "stage.json", "manifest.json"}
    ]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def curated(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = archive / "layers"
    settings = CurateSettings(
        catalog=archive / "catalog",
        land_cover=layers / "cover.tif",
        elevation=layers / "heights.tif",
        regions=layers / "regions.geojson",
        hold_out=layers / "held.geojson",
        cell_m=40,
        chip_px=32,
        workers=0,
        shard_mb=0.08,
    )
    return curate(settings, tmp_path_factory.mktemp("curated") / "out")


def test_every_date_is_a_bit_for_bit_copy_of_the_scenes(curated: Path, archive: Path) -> None:
    reader = ShardReader(curated)
    table = reader.table()
    assert len(reader) > 50
    for i in range(0, len(reader), 7):
        rows = [table.slice(r.row, 1).to_pylist()[0] for r in reader.dates(i)]
        assert [row["quarter"] for row in rows] == [1, 2, 3, 4]
        assert len({(row["crs"], row["x0"], row["y0"], row["gsd_m"]) for row in rows}) == 1
        for j, row in enumerate(rows):
            expected = np.zeros((32, 32, 3), np.uint8)
            for name in row["scene"].split("+"):
                with rasterio.open(archive / "scenes" / f"{name}.tif") as scene:
                    bounds = (row["x0"], row["y0"] - 32, row["x0"] + 32, row["y0"])
                    window = from_bounds(*bounds, scene.transform)
                    part = np.moveaxis(scene.read(window=window, boundless=True, fill_value=0), 0, -1)
                    expected = np.where(expected > 0, expected, part)
            assert reader.read(i, j) == encode_jpeg(expected, 90)


def test_tables_agree_with_one_another(curated: Path) -> None:
    index = pq.read_table(curated / "index.parquet").to_pandas()
    places = gpd.read_parquet(curated / "places.parquet")
    cells = pq.read_table(curated / "cells.parquet").to_pandas()
    strata = pq.read_table(curated / "strata.parquet").to_pandas()
    funnel = json.loads((curated / "funnel.json").read_text())["steps"]
    summary = read_manifest(curated, "curate")["summary"]
    assert len(index) == funnel["chips"] == summary["chips"]
    assert places["kept"].sum() == index["place"].nunique() == funnel["kept"]
    assert strata["drawn"].sum() == cells["drawn"].sum() == funnel["cells_drawn"]
    assert cells.groupby("stratum").size().to_dict() == strata.set_index("stratum")["cells"].to_dict()
    assert set(index["stratum"]) <= set(strata["stratum"])
    assert sorted(zip(index["shard"], index["offset"], strict=True)) == list(zip(index["shard"], index["offset"], strict=True))
    assert index["shard"].nunique() == summary["shards"] > 1
    assert (index["q_nodata"] == 0).all()
    assert set(index["licence"]) == {"CC0-1.0"}
    assert summary["embedding"]["backbone"] == "colour"
    assert "colour" in summary["headline"]
    footprints = places.to_crs(CRS).area
    assert footprints.to_numpy() == pytest.approx(32 * 32, rel=1e-4)
    embeddings = [np.load(p) for p in sorted((curated / "embeddings").glob("*.npy"))]
    assert sum(map(len, embeddings)) == len(places)
    assert np.linalg.norm(np.concatenate(embeddings).astype(float), axis=1) == pytest.approx(1, abs=2e-3)


def test_nothing_lies_near_the_hold_out(curated: Path, archive: Path) -> None:
    held = gpd.read_file(archive / "layers" / "held.geojson").to_crs(CRS).geometry.iloc[0]
    places = gpd.read_parquet(curated / "places.parquet").to_crs(CRS)
    assert places.distance(held).min() >= 32 - 0.1


def test_shards_are_in_hashed_order(curated: Path) -> None:
    reader = ShardReader(curated)
    names = [reader.place(i) for i in range(len(reader))]
    order = np.argsort(np.argsort(names))
    assert abs(np.corrcoef(order, np.arange(len(names)))[0, 1]) < 0.4
    assert not (curated / ".work").exists()


@pytest.mark.parametrize("workers", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_and_pieces_change_nothing(tmp_path: Path, archive_settings: Make, workers: int) -> None:
    alone = curate(archive_settings(shard_mb=0.08, work={"piece_places": 500}), tmp_path / "alone")
    many = curate(archive_settings(shard_mb=0.08, workers=workers, work={"piece_places": 12}), tmp_path / "many")
    assert digests(alone) == digests(many)


class _Killed(BaseException):
    pass


def test_stopped_at_any_write_it_goes_on_to_the_same_bytes(
    tmp_path: Path, archive_settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = archive_settings(shard_mb=0.2, places=60)
    whole = digests(curate(settings, tmp_path / "whole"))
    replace, left = Path.replace, [0]

    def stop(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] == 0:
            raise _Killed
        return replace(self, target)

    out, stops = tmp_path / "stopped", 0
    while not (out / "manifest.json").exists():
        stops += 1
        left[0] = stops  # one write further each time, so that every write is once the last one
        monkeypatch.setattr(Path, "replace", stop)
        with contextlib.suppress(_Killed):
            curate(settings, out)
        monkeypatch.setattr(Path, "replace", replace)
        assert stops < 60
    assert stops > 8
    assert digests(out) == whole


def test_finished_is_finished_and_other_settings_are_stale(tmp_path: Path, archive_settings: Make) -> None:
    out = curate(archive_settings(places=30), tmp_path / "out")
    before = digests(out)
    assert curate(archive_settings(places=30, workers=2), out) == out
    with pytest.raises(StaleStageError, match=r"settings\.places"):
        curate(archive_settings(places=31), out)
    assert digests(out) == before


def test_more_places_keep_every_chip_already_cut(tmp_path: Path, archive_settings: Make) -> None:
    few, more = (ShardReader(curate(archive_settings(places=n), tmp_path / str(n))) for n in (25, 50))
    smaller, larger = ({reader.place(i) for i in range(len(reader))} for reader in (few, more))
    assert smaller < larger


def test_balanced_selection_keeps_the_wanted_number(tmp_path: Path, archive_settings: Make) -> None:
    out = curate(archive_settings(clusters={"levels": [6], "keep_places": 30}), tmp_path / "out")
    assert len(ShardReader(out)) == 30
    clusters = pq.read_table(out / "clusters.parquet").to_pandas()
    assert clusters["kept"].sum() == 30
    cap = clusters["kept"].max()
    assert ((clusters["kept"] >= cap - 1) | (clusters["kept"] == clusters["places"])).all()


def _archive_of(root: Path, tif: Tif, images: dict[str, np.ndarray], **changed: object) -> CurateSettings:
    for name, image in images.items():
        tif(root / "scenes" / f"{name}.tif", image, *ORIGIN)
    catalog(CatalogSettings(scenes=(root / "scenes",), workers=1), root / "catalog")
    return CurateSettings.model_validate({"catalog": root / "catalog", "cell_m": 60, "chip_px": 48, "workers": 0, **changed})


def _texture(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.clip(120 + 40 * ndimage.gaussian_filter(random.normal(size=(240, 240, 3)), (1, 1, 0)) * 3, 1, 250).astype(np.uint8)


def test_of_three_dates_of_a_quarter_the_one_in_its_middle_stays_unless_more_are_wanted(tmp_path: Path, tif: Tif) -> None:
    image = _texture()
    images = {f"s_2023{month:02d}{day:02d}": image + np.uint8(month + day) for month, day in ((7, 1), (8, 3), (9, 30), (11, 1))}
    settings = _archive_of(tmp_path, tif, {**images, "s_20220810": image})
    reader = ShardReader(curate(settings, tmp_path / "out"))
    assert {tuple(r.date for r in reader.dates(i)) for i in range(len(reader))} == {
        (dt.date(2022, 8, 10), dt.date(2023, 8, 3), dt.date(2023, 11, 1))  # quarters of two years are not one
    }
    funnel = read_manifest(tmp_path / "out", "curate")["summary"]["funnel"]
    assert funnel["other_dates_of_a_quarter"] == 2 * len(reader)
    every = curate(settings.model_copy(update={"chips": ChipSettings(per_quarter=16)}), tmp_path / "every")
    assert {len(ShardReader(every).dates(i)) for i in range(len(reader))} == {5}


def test_a_missing_quarter_and_holes_cost_only_their_chips(tmp_path: Path, tif: Tif) -> None:
    first, second = _texture(), _texture()
    second[:100] = 0
    settings = _archive_of(tmp_path, tif, {"s_20230201": first, "s_20230801": second})
    out = curate(settings, tmp_path / "out")
    summary = read_manifest(out, "curate")["summary"]
    assert set(summary["dates_per_place"]) == {"1", "2"}
    assert summary["funnel"]["no_data"] == summary["dates_per_place"]["1"]
    rejected = pq.read_table(out / "rejected.parquet").to_pandas()
    assert rejected["reason"].str.startswith("no data in").all()
    assert set(rejected["date"]) == {"2023-08-01"}


def test_a_date_shifted_too_far_is_dropped_with_its_size(tmp_path: Path, tif: Tif) -> None:
    image = _texture()
    images = {"s_20230201": image, "s_20230501": np.roll(image, (2, 0), (0, 1)), "s_20230801": np.roll(image, (5, 0), (0, 1))}
    settings = _archive_of(tmp_path, tif, images)
    out = curate(settings, tmp_path / "out")
    table = ShardReader(out).table(["date", "shift_px"]).to_pandas()
    assert set(table["date"]) == {dt.date(2023, 2, 1), dt.date(2023, 5, 1)}
    assert table.groupby("date")["shift_px"].median().tolist() == pytest.approx([0, 2], abs=0.15)
    rejected = pq.read_table(out / "rejected.parquet").to_pandas()
    assert rejected["reason"].str.fullmatch(r"shifted by [45]\.\d px against 2023-02-01").all()
    assert set(rejected["date"]) == {"2023-08-01"}


def test_the_index_tells_direction_of_shifts_cloud_and_ranks(tmp_path: Path, tif: Tif) -> None:
    image = _texture()
    image[::16] = image[::16] // 2  # something dark is near everywhere
    cloudy = np.roll(image, (2, -1), (0, 1))
    cloudy[:120, :120] = 235
    images = {"s_20230201": image, "s_20230501": cloudy}
    out = curate(_archive_of(tmp_path, tif, images), tmp_path / "out")
    table = ShardReader(out).table(["date", "place", "lat", "q_cloud", "q_rank_cloud", "shift_rows", "shift_columns"]).to_pandas()
    second = table[table["date"] == dt.date(2023, 5, 1)]
    clear = second[second["q_cloud"] == 0]
    assert clear["shift_rows"].median() == pytest.approx(2, abs=0.1)
    assert clear["shift_columns"].median() == pytest.approx(-1, abs=0.1)
    assert second["q_cloud"].max() > 0.5
    assert table.loc[table["date"] == dt.date(2023, 2, 1), "q_cloud"].max() < 0.05
    assert second.loc[second["q_cloud"].idxmax(), "q_rank_cloud"] == second["q_rank_cloud"].max() > 0.8
    cut = _archive_of(tmp_path / "again", tif, images, quality={"cut_worst": {"cloud": 0.2}})
    summary = read_manifest(curate(cut, tmp_path / "cut"), "curate")["summary"]
    assert summary["funnel"]["among_worst"] > 0
    assert summary["chips"] == len(table) - summary["funnel"]["among_worst"] == summary["funnel"]["chips"]


def test_a_place_is_embedded_by_a_date_that_stays(tmp_path: Path, tif: Tif) -> None:
    """The first date, by which all places would be known, is under cloud in a corner and another colour everywhere."""
    image = _texture()
    cloudy = np.stack([image[..., 0], image[..., 1] // 2, image[..., 2] // 3], axis=-1)
    cloudy[:120, :120] = 235
    images = {"s_20230201": cloudy, "s_20230501": image}
    quality = {"cut_worst": {"cloud": 0.2}, "max_saturated_share": 1, "min_std": 0, "min_entropy": 0}
    settings = _archive_of(tmp_path, tif, images, quality=quality, work={"piece_places": 3})
    out = curate(settings, tmp_path / "out")
    reader, dates = ShardReader(out), Counter[dt.date | None]()
    features = np.concatenate([np.load(path) for path in sorted((out / "embeddings").glob("*.npy"))])
    assert len(features) == len(reader)
    for number, row in enumerate(features):
        dates[reader.dates(number)[0].date] += 1
        np.testing.assert_allclose(row, joint_histogram(reader.decode(number, 0)), atol=1e-3)
    assert min(dates.values()) >= 2 and len(dates) == 2  # some lost their first date, others kept it


def test_one_broken_scene_costs_only_its_date(tmp_path: Path, tif: Tif) -> None:
    image = _texture()
    settings = _archive_of(tmp_path, tif, {"s_20230201": image, "s_20230801": image + np.uint8(1)})
    (tmp_path / "scenes" / "s_20230801.tif").write_bytes(b"II*\0 cut short")
    out = curate(settings, tmp_path / "out")
    summary = read_manifest(out, "curate")["summary"]
    assert summary["dates_per_place"] == {"1": summary["places"]}
    rejected = pq.read_table(out / "rejected.parquet").to_pandas()
    assert rejected["reason"].str.contains(r"cannot be read: .*s_20230801\.tif").all()


def test_dates_that_never_meet_are_an_error_unless_wanted(tmp_path: Path, tif: Tif) -> None:
    image = _texture()
    tif(tmp_path / "scenes" / "s_20230801.tif", image[::-1], ORIGIN[0] + 5000, ORIGIN[1])
    settings = _archive_of(tmp_path, tif, {"s_20230201": image})
    with pytest.raises(DataError, match="2 dates of 2 scenes do not overlap"):
        curate(settings, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    out = curate(settings.model_copy(update={"min_dates": 1}), tmp_path / "out")
    assert read_manifest(out, "curate")["summary"]["places"] > 0


def test_no_valid_chip_is_an_error_with_the_counts(tmp_path: Path, tif: Tif) -> None:
    settings = _archive_of(tmp_path, tif, {"s_20230201": np.full((240, 240, 3), 255, np.uint8)})
    with pytest.raises(DataError, match=r"no valid chip is left \(.*saturated \d+") as caught:
        curate(settings, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert pq.read_table(tmp_path / "out" / "rejected.parquet").num_rows > 0


def test_chips_larger_than_the_scenes_are_an_error(tmp_path: Path, tif: Tif) -> None:
    settings = _archive_of(tmp_path, tif, {"s_20230201": _texture()}, chip_px=512)
    with pytest.raises(DataError, match=r"512 px \(512 m\)"):
        curate(settings, tmp_path / "out")


def test_no_catalogue_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"curate\.catalog"):
        curate(CurateSettings(), tmp_path / "out")


def test_a_block_without_a_good_place_is_no_obstacle(tmp_path: Path, tif: Tif) -> None:
    image = _texture()
    image[:120] = 0
    out = curate(_archive_of(tmp_path, tif, {"s_20230201": image}, work={"piece_places": 2}), tmp_path / "out")
    summary = read_manifest(out, "curate")["summary"]
    assert summary["funnel"]["places_with_too_few_dates"] > 2
    assert summary["places"] == len(ShardReader(out)) > 2
