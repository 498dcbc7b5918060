"""The four NAIP dates and the eight NEON pairs, through the commands a user types, to aligned chips."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from cgeartheye.curation.filtering import encode_jpeg
from cgeartheye.geometry.grid import Grid
from cgeartheye.geometry.registration import measure_shift
from cgeartheye.metrics.quality import LUMA
from cgeartheye.rasters.reader import open_raster, read_on_grid
from cgeartheye.shards.reader import ShardReader

pytestmark = pytest.mark.imagery

NAIP = Path("geotiff/opengeos_data/naip")
NEON = Path("detection/DeepForest_NEON/data/SJER")


def run(verb: str, project: Path) -> None:
    subprocess.run([sys.executable, "-m", "cgeartheye", verb, "-p", str(project), "--quiet"], check=True)


def curated(root: Path, text: str) -> ShardReader:
    (root / "project.yaml").write_text(text)
    run("catalog", root / "project.yaml")
    run("curate", root / "project.yaml")
    return ShardReader(next(root.rglob("index.parquet")).parent)


def test_the_naip_dates_lie_on_one_another(imagery: Path, tmp_path: Path) -> None:
    """Two of the scenes lie on whole multiples of 5 m and are copied; the other two are off by up to 0.6 px and warped."""
    text = f"""
catalog: {{scenes: [{imagery / NAIP}]}}
curate: {{cell_m: 900, chip_px: 160, gsd_m: 5, workers: 0, registration: {{enabled: false}}}}
"""
    reader = curated(tmp_path, text)
    rows = reader.table().to_pylist()
    assert len(reader) >= 12 and len(rows) == 4 * len(reader)  # three of the dates are a third quarter, of three years
    copied = 0
    for number in range(len(reader)):
        for date, record in enumerate(reader.dates(number)):
            row = rows[record.row]
            with rasterio.open(imagery / NAIP / f"{row['scene']}.tif") as scene:
                column, line = (row["x0"] - scene.transform.c) / 5, (scene.transform.f - row["y0"]) / 5
                if column == round(column) and line == round(line):
                    window = Window(round(column), round(line), 160, 160)
                    expected = np.ascontiguousarray(np.moveaxis(scene.read((1, 2, 3), window=window), 0, -1))
                    assert reader.read(number, date) == encode_jpeg(expected, 90)
                    copied += 1
    assert copied == 2 * len(reader)


def test_the_residue_of_aligned_naip_dates_is_less_than_half_a_pixel(imagery: Path) -> None:
    """Geotransforms honoured; what they do not tell (notes: 0.1 to 0.4 px) is left, between the dates of like season."""
    paths = sorted((imagery / NAIP).glob("*.tif"))
    grid = Grid("EPSG:32614", 486_500.0, 5_208_700.0, 5.0, 512, 512)
    greys = []
    for path in paths:
        with open_raster(path) as raster:
            colours, valid = read_on_grid(raster, grid)
        assert valid.all()
        greys.append(np.asarray(colours @ LUMA, np.float32))
    whole = np.ones((512, 512), bool)
    for a, b in ((1, 2), (1, 3), (2, 3)):
        found = measure_shift(greys[a], greys[b], valid=whole)
        assert found.certain and found.length_px <= 0.5


def test_the_neon_pairs_become_places_of_two_dates(imagery: Path, tmp_path: Path) -> None:
    """Pixels of 0.1 m, pictures of 40 m; both dates on whole decimetres, hence copies."""
    folder = imagery / NEON
    with (tmp_path / "dates.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "date"])
        for path in sorted(folder.glob("*.tif")):
            table.writerows([[path, "2018-03-15"], [folder / "2017" / path.name, "2017-03-15"]])
    text = f"""
catalog: {{scenes: [{folder}], dates: dates.csv, gsd_min_m: 0.05}}
curate: {{cell_m: 20, chip_px: 192, gsd_m: 0.1, workers: 0, registration: {{drop_px: 20}}}}
"""
    reader = curated(tmp_path, text)
    rows = reader.table().to_pylist()
    assert len(reader) == 8 and len(rows) == 16
    for row in rows:
        name = row["scene"].split("-")[0]
        path = folder / ("2017" if row["year"] == 2017 else "") / f"{name}.tif"
        grid = Grid(row["crs"], row["x0"], row["y0"], 0.1, 192, 192)
        with rasterio.open(path) as scene:
            column, line = (row["x0"] - scene.transform.c) / 0.1, (scene.transform.f - row["y0"]) / 0.1
            assert abs(column - round(column)) < 0.01 and abs(line - round(line)) < 0.01
            expected = np.moveaxis(scene.read((1, 2, 3), window=Window(round(column), round(line), 192, 192)), 0, -1)
        with open_raster(path) as raster:
            colours, _ = read_on_grid(raster, grid)
        np.testing.assert_array_equal(colours, expected)
    assert {row["crs"] for row in rows} == {"EPSG:32611"} and {row["year"] for row in rows} == {2017, 2018}
