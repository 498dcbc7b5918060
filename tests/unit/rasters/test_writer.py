from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from cgeartheye.errors import DataError, ResourceError, ShapeError
from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.reader import open_raster, read_on_grid, read_window
from cgeartheye.rasters.writer import RasterSpec, create_geotiff, write_cog, write_geotiff

GRID = Grid("EPSG:32640", 340_000.0, 2_790_000.0, 0.5, 1000, 700)
RED_GREEN = {0: (255, 0, 0), 1: (0, 255, 0), 2: (0, 0, 255)}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def classes() -> np.ndarray[Any, np.dtype[np.uint8]]:
    array = np.kron(np.random.default_rng(0).integers(0, 3, (70, 100)), np.ones((10, 10))).astype(np.uint8)
    array[:50, :80] = 255
    return array


def test_colours_come_back_with_their_place(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 255, (700, 1000, 3), dtype=np.uint8)
    write_geotiff(tmp_path / "a.tif", array, RasterSpec.on(GRID, count=3), tags={"TIFFTAG_DATETIME": "2024:02:15 10:00:00"})
    with rasterio.open(tmp_path / "a.tif") as file:
        assert file.crs.to_epsg() == 32640 and tuple(file.transform[:6]) == GRID.transform
        assert file.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        assert file.block_shapes[0] == (448, 448) and file.tags()["TIFFTAG_DATETIME"] == "2024:02:15 10:00:00"
        np.testing.assert_array_equal(file.read(), array.transpose(2, 0, 1))
    with open_raster(tmp_path / "a.tif") as raster:
        np.testing.assert_array_equal(read_on_grid(raster, GRID)[0], array)


def test_windows_and_blocks_never_written(tmp_path: Path) -> None:
    spec = RasterSpec.on(GRID, nodata=255, block_px=64)
    with create_geotiff(tmp_path / "a.tif", spec) as file:
        file.write(np.full((1, 64, 64), 7, np.uint8), window=Window(64, 128, 64, 64))
    with rasterio.open(tmp_path / "a.tif") as file:
        array = file.read(1)
    assert (array == 7).sum() == 64 * 64 and (array == 255).sum() == array.size - 64 * 64
    assert (tmp_path / "a.tif").stat().st_size < 10_000


def test_a_class_map_becomes_a_cog(tmp_path: Path) -> None:
    array = classes()
    write_cog(
        tmp_path / "c.tif", array, spec=RasterSpec.on(GRID, nodata=255, colour_table=RED_GREEN), categorical=True, block_px=128
    )
    with rasterio.open(tmp_path / "c.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.block_shapes[0] == (128, 128)
        assert file.nodata == 255 and file.colormap(1)[2][:3] == (0, 0, 255)
        assert file.crs.to_epsg() == 32640 and tuple(file.transform[:6]) == GRID.transform
        np.testing.assert_array_equal(file.read(1), array)
        factors = file.overviews(1)
        assert factors and factors[0] == 2
    with rasterio.open(tmp_path / "c.tif", overview_level=0) as file:
        np.testing.assert_array_equal(file.read(1), array[::2, ::2])  # blocks of 10 px: the most frequent is any of the four


def test_overviews_of_classes_hold_only_classes_those_of_pictures_are_means(tmp_path: Path) -> None:
    array = np.tile(np.array([[0, 0], [0, 200]], np.uint8), (350, 500))
    for categorical, expected in ((True, 0), (False, 50)):
        write_cog(tmp_path / "o.tif", array, spec=RasterSpec.on(GRID), categorical=categorical)
        with rasterio.open(tmp_path / "o.tif", overview_level=0) as file:
            assert np.unique(file.read(1)).tolist() == [expected]


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    spec = RasterSpec.on(GRID, nodata=255, colour_table=RED_GREEN, band_names=("class",))
    first, second = tmp_path / "one" / "a.tif", tmp_path / "two" / "b.tif"
    for path in (first, second):
        write_geotiff(path, classes(), spec)
    assert digest(first) == digest(second)
    for path in (first, second):
        write_cog(path.with_name("cog.tif"), path, categorical=True)
    write_cog(tmp_path / "direct.tif", classes(), spec=spec, categorical=True)
    assert digest(first.with_name("cog.tif")) == digest(second.with_name("cog.tif")) == digest(tmp_path / "direct.tif")
    assert sorted(p.name for p in tmp_path.rglob("*.tif")) == ["a.tif", "b.tif", "cog.tif", "cog.tif", "direct.tif"]


def test_a_probability_raster(tmp_path: Path) -> None:
    array = np.random.default_rng(2).random((4, 700, 1000)).astype(np.float32)
    write_cog(tmp_path / "p.tif", array, spec=RasterSpec.on(GRID, count=4, dtype="float32"), categorical=False)
    with rasterio.open(tmp_path / "p.tif") as file:
        np.testing.assert_array_equal(file.read(), array)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with pytest.raises(ZeroDivisionError), create_geotiff(path, RasterSpec.on(GRID)):
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


def test_faults_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ShapeError, match="700"):
        write_geotiff(tmp_path / "a.tif", np.zeros((700, 999), np.uint8), RasterSpec.on(GRID))
    with pytest.raises(ShapeError, match="spec"):
        write_cog(tmp_path / "a.tif", np.zeros((700, 1000), np.uint8), categorical=True)
    (tmp_path / "bad.tif").write_text("no picture")
    with pytest.raises(DataError, match=r"bad\.tif"):
        write_cog(tmp_path / "c.tif", tmp_path / "bad.tif", categorical=True)

    def full(*_: object, **__: object) -> None:
        raise rasterio.errors.RasterioIOError("write failed: No space left on device")

    monkeypatch.setattr(rasterio.shutil, "copy", full)
    write_geotiff(tmp_path / "good.tif", np.zeros((700, 1000), np.uint8), RasterSpec.on(GRID))
    with pytest.raises(ResourceError, match="disk is full"):
        write_cog(tmp_path / "c.tif", tmp_path / "good.tif", categorical=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.tif", "good.tif"]


def test_four_bands_are_colours_and_one_unnamed(tmp_path: Path) -> None:
    write_geotiff(tmp_path / "a.tif", np.full((4, 700, 1000), 3, np.uint8), RasterSpec.on(GRID, count=4))
    with open_raster(tmp_path / "a.tif") as raster:
        assert read_window(raster)[1].all() and raster.plan.mask == "none"


def test_blocks_lost_on_closing_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full disk does to the blocks that GDAL still holds when the file is closed."""
    real = rasterio.io.DatasetWriter.__exit__

    def closed_on_a_full_disk(dataset: Any, *exception: object) -> object:
        result = real(dataset, *exception)
        path = Path(dataset.name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size - 1000])
        return result

    monkeypatch.setattr(rasterio.io.DatasetWriter, "__exit__", closed_on_a_full_disk)
    array = np.random.default_rng(0).integers(0, 255, (700, 1000), dtype=np.uint8)
    with pytest.raises(ResourceError, match="disk is full"):
        write_geotiff(tmp_path / "a.tif", array, RasterSpec.on(GRID))
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from rasterio.windows import Window
from cgeartheye.errors import ResourceError
from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.writer import RasterSpec, create_geotiff
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
noise = np.random.default_rng(0).integers(0, 255, (3, 200, 500), dtype=np.uint8)
try:
    with create_geotiff(Path(sys.argv[1]), RasterSpec.on(Grid("EPSG:32640", 5e5, 2e6, 1, 500, 200), count=3)) as file:
        for top in (0, 100):
            file.write(noise[:, top : top + 100], window=Window(0, top, 500, 100))
        wrote = True
except ResourceError as error:
    sys.exit(f"{wrote} {error}")
"""


def test_a_disk_that_fills_while_the_file_is_closed(tmp_path: Path) -> None:
    """GDAL holds the blocks until closing, and closes without an error; a limit on file sizes stands for the full disk."""
    ran = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "a.tif")], capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and "True" in ran.stderr and "a.tif: cannot be written, the disk is full" in ran.stderr
    assert list(tmp_path.iterdir()) == []
