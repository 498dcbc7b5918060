"""What the door to GDAL refuses."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.env import get_gdal_config
from rasterio.transform import from_origin

from cgeartheye.errors import DataError
from cgeartheye.rasters.opening import CACHE_BYTES, gdal_env
from cgeartheye.rasters.reader import open_raster, read_window


def picture(path: Path, *, driver: str = "GTiff", size: int = 32) -> Path:
    array = np.random.default_rng(1).integers(0, 255, (3, size, size), dtype=np.uint8)
    place = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 1, 1)} if driver != "PNG" else {}
    with rasterio.open(path, "w", driver=driver, width=size, height=size, count=3, dtype="uint8", **place) as file:
        file.write(array)
    return path


def refused(path: Path | str, *, plain: bool = False) -> str:
    with pytest.raises(DataError) as caught, open_raster(path, plain=plain):
        pass
    assert caught.value.where and caught.value.remedy
    return caught.value.what


VRT = """<VRTDataset rasterXSize="32" rasterYSize="32"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"""


def test_a_virtual_raster_that_calls_itself_tif(tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.tif")
    path = tmp_path / "innocent.tif"
    path.write_text(VRT.format(secret))
    assert "virtual raster" in refused(path)


@pytest.mark.parametrize("suffix", [".ovr", ".msk"])
def test_a_virtual_raster_as_sidecar(tmp_path: Path, suffix: str) -> None:
    path = picture(tmp_path / "a.tif")
    Path(f"{path}{suffix}").write_text(VRT.format("/etc/passwd"))
    assert "sidecar" in refused(path)


def test_a_sidecar_that_points_elsewhere(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.tif")
    Path(f"{path}.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">/x</MDI></Metadata></PAMDataset>'
    )
    assert "points at another file" in refused(path)


@pytest.mark.parametrize(
    "path", ["/vsicurl/http://127.0.0.1:9/a.tif", "http://127.0.0.1:9/a.tif", "s3://bucket/a.tif", "/vsizip/x.zip/a.tif"]
)
def test_nothing_is_read_over_the_network(path: str) -> None:
    assert "not a file on this machine" in refused(path)
    assert "not a file on this machine" in refused(Path(path))


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "zip.tif").write_bytes(b"PK\3\4" + bytes(100))
    assert refused(tmp_path / "empty.tif") == "is empty"
    assert "no GeoTIFF" in refused(tmp_path / "text.tif")
    assert "no GeoTIFF" in refused(tmp_path / "zip.tif")
    assert "no such file" in refused(tmp_path / "missing.tif")
    assert "no such file" in refused(tmp_path)


def test_png_only_where_asked_for(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", driver="PNG")
    assert "no GeoTIFF" in refused(path)
    with open_raster(path, plain=True) as raster:
        assert read_window(raster)[0].shape == (32, 32, 3)


def test_jpeg2000_is_read(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jp2", driver="JP2OpenJPEG", size=64)
    with open_raster(path) as raster:
        assert read_window(raster)[0].shape == (64, 64, 3) and raster.georeference[1] == "EPSG:32632"


def test_a_damaged_header(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.tif")
    path.write_bytes(path.read_bytes()[:8] + bytes(20))
    assert "header is damaged" in refused(path)


@pytest.mark.parametrize("name", ["with space.tif", "a#b.tif", "a?b.tif", "a!b.tif", "ä:ö.tif", "50%20.tif"])
def test_names_that_mean_something_elsewhere(tmp_path: Path, name: str) -> None:
    path = picture(tmp_path / "plain.tif").rename(tmp_path / name)
    with open_raster(path) as raster:
        assert raster.width == 32


def test_a_file_without_read_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "a.tif")

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert refused(path) == "may not be read"


def tiff(path: Path, tile: int) -> Path:
    """A header of a grey 8-bit TIFF that is one compressed tile of any size, which is never written."""
    tags = [(256, tile), (257, tile), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile), (324, 8), (325, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0))
    return path


def test_pictures_of_impossible_size(tmp_path: Path) -> None:
    with gdal_env(), rasterio.open(
        tmp_path / "huge.tif", "w", driver="GTiff", width=400_000, height=400_000, count=1, dtype="uint8", tiled=True,
        blockxsize=4096, blockysize=4096, sparse_ok=True, bigtiff="YES",
    ):  # fmt: skip
        pass
    assert (tmp_path / "huge.tif").stat().st_size < 10**6
    assert "declares 400000 x 400000 pixels" in refused(tmp_path / "huge.tif")


def test_a_picture_stored_as_one_giant_tile(tmp_path: Path) -> None:
    assert "blocks of 40000 x 40000 pixels, 1600 MB" in refused(tiff(tmp_path / "tile.tif", 40_000))


def test_the_cache_is_given_in_bytes() -> None:
    with gdal_env():
        assert int(get_gdal_config("GDAL_CACHEMAX")) == CACHE_BYTES >= 2**20
        assert str(get_gdal_config("GDAL_NUM_THREADS")) == "1"
