"""Curation on real pictures: four NAIP dates of one place, season pairs at 0.1 m, and class folders."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from cgeartheye.catalog import catalog
from cgeartheye.curation import curate
from cgeartheye.geometry.grid import Grid
from cgeartheye.geometry.registration import Shift, measure_shift
from cgeartheye.metrics.quality import LUMA
from cgeartheye.rasters.reader import open_raster, read_on_grid, read_window
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.stage import read_manifest

pytestmark = pytest.mark.imagery

NAIP = Path("geotiff/opengeos_data/naip")
NEON = Path("detection/DeepForest_NEON/data/SJER")
RESISC = Path("classification/RESISC45_twelve_classes/NWPU-RESISC12/train")
DATES = [dt.date(2010, 6, 29), dt.date(2015, 9, 26), dt.date(2016, 8, 16), dt.date(2018, 7, 16)]


def grey(path: Path) -> np.ndarray:
    with open_raster(path) as raster:
        return np.asarray(read_window(raster)[0] @ LUMA, np.float32)


def shift_between(first: np.ndarray, second: np.ndarray) -> Shift:
    return measure_shift(first, second, valid=np.ones(first.shape, bool))


def planted(picture: np.ndarray, rows: float, columns: float) -> np.ndarray:
    """The picture's middle after a band-limited shift; the margin takes what wraps round."""
    moved = np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(picture), (rows, columns))).real
    return np.asarray(moved[16:-16, 16:-16], np.float32)


def recovered(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Share of planted shifts found within 0.2 px on real second dates, against the shift measured without planting."""
    good = []
    for first, second in pairs:
        before = shift_between(first[16:-16, 16:-16], planted(second, 0, 0))
        for amount in (0.3, 0.5, 1.0, 2.0, 5.0):
            found = shift_between(first[16:-16, 16:-16], planted(second, amount, -amount))
            error = np.hypot(found.rows - before.rows - amount, found.columns - before.columns + amount)
            good.append(error <= 0.2)
    return float(np.mean(good))


def test_planted_shifts_are_found_between_real_dates(imagery: Path) -> None:
    dates = [grey(path) for path in sorted((imagery / NAIP).glob("*.tif"))]
    spots = [(y, x) for y in (40, 400) for x in (60, 560)]
    pairs = []
    for (a, b), (y, x) in itertools.product(itertools.combinations(range(4), 2), spots):
        first, second = (dates[i][y : y + 288, x : x + 288] for i in (a, b))
        if shift_between(first[16:-16, 16:-16], second[16:-16, 16:-16]).certain:
            pairs.append((first, second))
    assert len(pairs) >= 12
    assert recovered(pairs) >= 0.9


def test_season_pairs_of_one_footprint_are_flagged(imagery: Path) -> None:
    """Eight pairs that are nominally one footprint differ by up to 7.5 px of 0.1 m."""
    lengths = []
    for path in sorted((imagery / NEON).glob("*.tif")):
        shift = shift_between(grey(path), grey(imagery / NEON / "2017" / path.name))
        if shift.certain:
            lengths.append(shift.length_px)
    assert len(lengths) >= 3
    assert sum(length > 1 for length in lengths) >= len(lengths) - 2
    assert max(lengths) < 16


@pytest.fixture(scope="module")
def naip(tmp_path_factory: pytest.TempPathFactory, imagery: Path) -> Path:
    root = tmp_path_factory.mktemp("naip")
    catalog(CatalogSettings(scenes=(imagery / NAIP,), workers=1), root / "catalog")
    settings = CurateSettings(catalog=root / "catalog", cell_m=325, chip_px=64, gsd_m=5, workers=0)
    return curate(settings, root / "curated")


def test_four_dates_of_which_three_share_a_quarter(naip: Path) -> None:
    reader = ShardReader(naip)
    assert len(reader) > 100
    whole = [i for i in range(len(reader)) if len(reader.dates(i)) == 4]
    assert len(whole) > 0.9 * len(reader)
    assert [r.date for r in reader.dates(whole[0])] == DATES
    assert [r.quarter for r in reader.dates(whole[0])] == [2, 3, 3, 3]
    assert {reader.decode(i, j).shape for i in whole[:20] for j in range(4)} == {(64, 64, 3)}


def test_dates_of_a_place_lie_on_one_grid(naip: Path) -> None:
    table = pq.read_table(naip / "index.parquet").to_pandas()
    assert table.groupby("place")[["crs", "x0", "y0", "gsd_m"]].nunique().to_numpy().max() == 1
    assert read_manifest(naip, "curate")["summary"]["funnel"].get("shifted", 0) < 0.02 * len(table)


def test_grids_that_differ_by_less_than_a_pixel_are_aligned(imagery: Path) -> None:
    """The geotransforms differ by up to 0.6 px; on one grid a residue of about half a pixel is left, less than as they came."""
    paths = sorted((imagery / NAIP).glob("*.tif"))
    with open_raster(paths[0]) as raster:
        (_, _, x0, _, _, y0), crs = raster.georeference
    grid = Grid(crs, x0 + 500, y0 - 500, 5.0, 512, 512)
    aligned = [np.asarray(read_on_grid_of(path, grid) @ LUMA, np.float32) for path in paths]
    raw = [grey(path)[100:612, 100:612] for path in paths]
    residues, offsets = [], []
    for a, b in ((1, 2), (1, 3), (2, 3)):
        found, before = shift_between(aligned[a], aligned[b]), shift_between(raw[a], raw[b])
        assert found.certain
        residues.append(found.length_px)
        offsets.append(before.length_px)
    assert max(residues) <= 0.5
    assert np.mean(residues) < np.mean(offsets)


def read_on_grid_of(path: Path, grid: Grid) -> np.ndarray:
    with open_raster(path) as raster:
        return read_on_grid(raster, grid)[0]


def test_class_folders_lose_no_good_picture(tmp_path: Path, imagery: Path) -> None:
    settings = CurateSettings(source="images", images=imagery / RESISC, split={"part": "test"}, workers=0)
    out = curate(settings, tmp_path / "out")
    funnel = read_manifest(out, "curate")["summary"]["funnel"]
    assert funnel["found"] == 1200
    assert funnel["kept"] == funnel["in_part"]
    assert 300 < funnel["in_part"] < 420
    reader = ShardReader(out)
    (record,) = reader.dates(0)
    assert reader.read(0, 0) == (imagery / RESISC / str(record.scene)).read_bytes()
    assert len({reader.dates(i)[0].label for i in range(len(reader))}) == 12
