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


Pair = tuple[np.ndarray, np.ndarray]
BORDER = 16


def recovered(pairs: list[Pair]) -> float:
    """Share of all planted shifts found within 0.2 px on real second dates; an uncertain answer is a miss.

    The truth is what was planted and the residue measured without planting.
    """
    good = []
    for first, second in pairs:
        inner = first[BORDER:-BORDER, BORDER:-BORDER]
        before = shift_between(inner, planted(second, 0, 0))
        for amount in (0.3, 0.5, 1.0, 2.0, 5.0):
            found = shift_between(inner, planted(second, amount, -amount))
            error = np.hypot(found.rows - before.rows - amount, found.columns - before.columns + amount)
            good.append(found.certain and before.certain and error <= 0.2)
    return float(np.mean(good))


def naip_dates(imagery: Path) -> list[np.ndarray]:
    """The four dates in grey on one grid: geotransforms are honoured first."""
    paths = sorted((imagery / NAIP).glob("*.tif"))
    with open_raster(paths[0]) as raster:
        (_, _, x0, _, _, y0), crs = raster.georeference
    return [np.asarray(read_on_grid_of(path, Grid(crs, x0 + 15, y0 - 15, 5.0, 926, 714)) @ LUMA, np.float32) for path in paths]


def naip_spots(dates: list[np.ndarray], side: int) -> list[list[np.ndarray]]:
    """Four spots, each at every date, ``side`` and a border wide."""
    full, (height, width) = side + 2 * BORDER, dates[0].shape
    corners = itertools.product((0, height - full), (0, width - full))
    return [[date[y : y + full, x : x + full] for date in dates] for y, x in corners]


def neon_pairs(imagery: Path) -> list[Pair]:
    return [(grey(path), grey(imagery / NEON / "2017" / path.name)) for path in sorted((imagery / NEON).glob("*.tif"))]


@pytest.mark.parametrize(("side", "least"), [(256, 0.92), (384, 0.95)])
def test_planted_shifts_are_found_between_all_real_dates(imagery: Path, side: int, least: float) -> None:
    spots = naip_spots(naip_dates(imagery), side)
    pairs = [(spot[a], spot[b]) for spot in spots for a, b in itertools.combinations(range(4), 2)]
    assert len(pairs) == 24
    assert recovered(pairs) >= least


def test_planted_shifts_are_found_between_all_seasons_at_a_decimetre(imagery: Path) -> None:
    pairs = neon_pairs(imagery)
    assert len(pairs) == 8
    assert recovered(pairs) >= 0.95


def test_pairs_of_different_places_are_unknown(imagery: Path) -> None:
    spots, neon = naip_spots(naip_dates(imagery), 384), neon_pairs(imagery)
    apart = [(i, j) for i, j in itertools.permutations(range(4), 2) if i % 2 != j % 2]  # one in the west, one in the east
    pairs = [(spots[i][a], spots[j][b]) for i, j in apart for a, b in itertools.combinations(range(4), 2)]
    pairs += [(first, second) for (first, _), (_, second) in itertools.permutations(neon, 2)]
    assert len(pairs) == 48 + 56
    assert np.mean([shift_between(first, second).certain for first, second in pairs]) <= 0.05


def test_residues_of_three_dates_sum_to_nothing(imagery: Path) -> None:
    """What was measured between dates is where they lie: going round a triangle of them ends where it began.

    At 512 px; chips of 384 px at the corners of this scene hold fields that changed, and two of them close by 3 and 5 px only.
    """
    sums = []
    for spot in naip_spots(naip_dates(imagery), 512 - 2 * BORDER):
        for a, b, c in itertools.combinations(range(4), 3):
            legs = [shift_between(spot[i], spot[j]) for i, j in ((a, b), (b, c), (c, a))]
            if all(leg.certain for leg in legs):
                sums.append(np.hypot(sum(leg.rows for leg in legs), sum(leg.columns for leg in legs)))
    assert len(sums) >= 12
    assert max(sums) < 0.6


def test_season_pairs_of_one_footprint_are_flagged(imagery: Path) -> None:
    """Eight pairs that are nominally one footprint differ by up to 7.5 px of 0.1 m."""
    lengths = []
    for path in sorted((imagery / NEON).glob("*.tif")):
        shift = shift_between(grey(path), grey(imagery / NEON / "2017" / path.name))
        if shift.certain:
            lengths.append(shift.length_px)
    assert len(lengths) == 8
    assert sum(length > 1 for length in lengths) >= 6
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
