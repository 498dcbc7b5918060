"""Windows as colours, against rasterio's own reads and closed forms."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin
from rasterio.windows import Window

from cgeartheye.errors import DataError, ShapeError
from cgeartheye.rasters.reader import open_raster, read_overview, read_values, read_window
from cgeartheye.rasters.stretch import MIN_SPAN, Stretch, measure_stretch

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def noise(bands: int, height: int, width: int, *, dtype: str = "uint8", high: int = 256) -> NDArray[Any]:
    return np.random.default_rng(7).integers(0, high, (bands, height, width)).astype(dtype)


def write(path: Path, array: NDArray[Any], colours: tuple[ColorInterp, ...] | None = None, **profile: Any) -> Path:
    count, height, width = array.shape
    options = {"crs": "EPSG:32632", "transform": from_origin(5e5, 5e6, 0.5, 0.5)} | profile
    with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=count, dtype=array.dtype, **options) as file:
        if colours:
            file.colorinterp = colours
        file.write(array)
    return path


def test_a_window_is_what_the_file_holds(tmp_path: Path) -> None:
    array = noise(3, 40, 50)
    path = write(tmp_path / "a.tif", array, photometric="RGB")
    with open_raster(path) as raster:
        colours, valid = read_window(raster, Window(10, 5, 20, 8))
        assert raster.plan.mask == "none" and raster.plan.notes == ()
    np.testing.assert_array_equal(colours, array[:, 5:13, 10:30].transpose(1, 2, 0))
    assert colours.flags.c_contiguous and valid.all()


def test_outside_is_empty_and_invalid(tmp_path: Path) -> None:
    array = noise(3, 6, 7)
    with open_raster(write(tmp_path / "a.tif", array, photometric="RGB")) as raster:
        colours, valid = read_window(raster, Window(-2, -3, 12, 14))
        far, none = read_window(raster, Window(100, 0, 3, 3))
    assert valid.sum() == 42 and valid[3:9, 2:9].all()
    np.testing.assert_array_equal(colours[3:9, 2:9], array.transpose(1, 2, 0))
    assert not colours[~valid].any() and not far.any() and not none.any()


@pytest.mark.parametrize("window", [Window(0.5, 0, 2, 2), Window(0, 0, 0, 1), Window(0, 0, 2**15, 2**15)])
def test_windows_that_cannot_be_read_are_the_callers_fault(tmp_path: Path, window: Window) -> None:
    with open_raster(write(tmp_path / "a.tif", noise(3, 4, 4), photometric="RGB")) as raster, pytest.raises(ShapeError):
        read_window(raster, window)


def test_colour_interpretation_decides_the_bands(tmp_path: Path) -> None:
    array = noise(4, 5, 5)
    order = (ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    with open_raster(write(tmp_path / "a.tif", array, order)) as raster:
        assert raster.plan.bands == (4, 3, 2) and raster.plan.notes == ()
        np.testing.assert_array_equal(read_window(raster)[0], array[[3, 2, 1]].transpose(1, 2, 0))


def test_band_descriptions_serve_where_there_is_no_interpretation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(5, 4, 4), photometric="MINISBLACK")
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("Blue", "Green", "Yellow", "Red", "NIR")
    with open_raster(path) as raster:
        assert raster.plan.bands == (4, 2, 1)


def test_rgbn_without_interpretation_gives_its_first_three_bands_and_says_so(tmp_path: Path) -> None:
    array = noise(4, 5, 5)
    colours = (ColorInterp.gray, *[ColorInterp.undefined] * 3)
    with open_raster(write(tmp_path / "a.tif", array, colours, photometric="MINISBLACK")) as raster:
        np.testing.assert_array_equal(read_window(raster)[0], array[:3].transpose(1, 2, 0))
        assert any("first three" in note for note in raster.plan.notes)


def test_grey_is_repeated(tmp_path: Path) -> None:
    array = noise(1, 5, 5)
    with open_raster(write(tmp_path / "a.tif", array)) as raster:
        colours, _ = read_window(raster)
        assert raster.plan.notes == ("one grey band is repeated as red, green and blue",)
    np.testing.assert_array_equal(colours, np.repeat(array[0][..., None], 3, axis=2))


def test_the_users_bands_win(tmp_path: Path) -> None:
    array = noise(8, 5, 5)
    path = write(tmp_path / "a.tif", array, photometric="MINISBLACK")
    with open_raster(path) as raster, pytest.raises(DataError, match=r"(?s)8 bands.*rgb_bands"):
        read_window(raster)
    with open_raster(path, rgb_bands=(5, 3, 2)) as raster:
        np.testing.assert_array_equal(read_window(raster)[0], array[[4, 2, 1]].transpose(1, 2, 0))
    with open_raster(path, rgb_bands=(9, 3, 2)) as raster, pytest.raises(DataError, match="has 8 bands"):
        read_window(raster)


def test_zero_in_one_band_is_data_zero_in_all_is_not(tmp_path: Path) -> None:
    array = np.full((3, 2, 3), 9, np.uint8)
    array[0, 0, 0] = 0
    array[:, 1, 2] = 0
    with open_raster(write(tmp_path / "a.tif", array, nodata=0, photometric="RGB")) as raster:
        _, valid = read_window(raster)
        assert raster.plan.mask == "nodata"
    assert valid.tolist() == [[True] * 3, [True, True, False]]


def test_an_alpha_band_tells_the_valid_pixels(tmp_path: Path) -> None:
    array = noise(4, 20, 20)
    array[3] = 255
    array[3, :5] = 0
    with open_raster(write(tmp_path / "a.tif", array, (*RGB, ColorInterp.alpha))) as raster:
        colours, valid = read_window(raster, Window(0, 3, 20, 4))
        assert raster.plan.mask == "alpha"
    assert valid.tolist() == [[False] * 20] * 2 + [[True] * 20] * 2
    np.testing.assert_array_equal(colours, array[:3, 3:7].transpose(1, 2, 0))


def test_near_infrared_that_calls_itself_alpha_hides_nothing(tmp_path: Path) -> None:
    array = noise(4, 20, 20)
    with open_raster(write(tmp_path / "a.tif", array, (*RGB, ColorInterp.alpha))) as raster:
        _, valid = read_window(raster)
        assert raster.plan.mask == "none" and "near infrared" in raster.plan.notes[0]
    assert valid.all()


@pytest.mark.parametrize("internal", [True, False])
def test_mask_bands_inside_and_beside_the_file(tmp_path: Path, *, internal: bool) -> None:
    path = write(tmp_path / "a.tif", noise(3, 10, 10), photometric="RGB")
    told = np.zeros((10, 10), bool)
    told[2:6, 3:9] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as file:
        file.write_mask(told)
    assert (tmp_path / "a.tif.msk").exists() is not internal
    with open_raster(path) as raster:
        assert raster.plan.mask == "mask"
        np.testing.assert_array_equal(read_window(raster)[1], told)


def test_sixteen_bits_are_stretched_alike_in_every_window(tmp_path: Path) -> None:
    array = noise(3, 64, 64, dtype="uint16", high=3000) + np.arange(64, dtype=np.uint16) * 10
    with open_raster(write(tmp_path / "a.tif", array.astype(np.uint16), photometric="RGB")) as raster:
        whole, _ = read_window(raster)
        part, _ = read_window(raster, Window(20, 10, 30, 40))
        low, high = np.quantile(array, (0.005, 0.995))
        assert raster.plan.stretch == Stretch(low, high)
    np.testing.assert_array_equal(part, whole[10:50, 20:50])
    expected = np.clip(np.round((array.astype(float) - low) / (high - low) * 255), 0, 255)
    assert np.abs(whole.transpose(2, 0, 1) - expected).max() <= 1  # ties of rounding


def test_empty_pixels_do_not_enter_the_stretch(tmp_path: Path) -> None:
    array = noise(3, 64, 64, dtype="uint16", high=500) + np.uint16(1000)
    array[:, :30] = 0
    with open_raster(write(tmp_path / "a.tif", array, nodata=0, photometric="RGB")) as raster:
        assert raster.plan.stretch is not None and raster.plan.stretch.low >= 1000


def test_black_borders_that_a_file_does_not_declare_do_not_enter_it_either(tmp_path: Path) -> None:
    array = noise(3, 64, 64, dtype="uint16", high=500) + np.uint16(1000)
    array[0] -= 1000  # zero in one band is a value
    array[:, :30] = 0
    with open_raster(write(tmp_path / "a.tif", array, photometric="RGB")) as raster:
        assert raster.plan.mask == "none" and raster.plan.stretch == measure_stretch(array[:, 30:].ravel())


@pytest.mark.parametrize(("value", "nodata", "why"), [(7, None, "equal"), (0, 0, "no valid pixel")])
def test_sixteen_bits_without_a_range_are_refused(tmp_path: Path, value: int, nodata: int | None, why: str) -> None:
    path = write(tmp_path / "flat.tif", np.full((3, 8, 8), value, np.uint16), nodata=nodata, photometric="RGB")
    with open_raster(path) as raster, pytest.raises(DataError, match=why) as caught:
        read_window(raster)
    assert "flat.tif" in str(caught.value) and caught.value.remedy


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=2, max_size=60))
def test_a_stretch_is_monotone_and_never_narrow(values: list[int]) -> None:
    stretch = measure_stretch(np.array(values, np.uint16))
    if len(set(values)) == 1:
        assert stretch is None
        return
    assert stretch is not None and stretch.high - stretch.low >= MIN_SPAN / 2
    ramp = stretch.apply(np.arange(65536, dtype=np.uint16))
    assert (np.diff(ramp.astype(int)) >= 0).all() and ramp[int(stretch.low)] == 0
    assert ramp.max() == 255 or stretch.high > 65535


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float32"])
def test_other_types_are_refused_as_pictures_but_read_as_layers(tmp_path: Path, dtype: str) -> None:
    array = noise(1, 6, 6, dtype=dtype)
    with open_raster(write(tmp_path / "a.tif", array, nodata=5)) as raster:
        with pytest.raises(DataError, match=f"{dtype}.*\n.*-scale"):
            read_window(raster)
        values, valid = read_values(raster, Window(1, 1, 4, 3))
    np.testing.assert_array_equal(values, array[0, 1:4, 1:5])
    np.testing.assert_array_equal(valid, array[0, 1:4, 1:5] != 5)
    assert values.dtype == dtype


@pytest.mark.parametrize("band", [0, 2])
def test_a_layer_has_only_its_bands(tmp_path: Path, band: int) -> None:
    with (
        open_raster(write(tmp_path / "a.tif", noise(1, 4, 4))) as raster,
        pytest.raises(DataError, match=f"1 bands, no band {band}"),
    ):
        read_values(raster, band=band)


def test_a_map_with_a_colour_table_is_no_picture(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1, 4, 4, high=3))
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (0, 0, 0, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 255)})
    with open_raster(path) as raster, pytest.raises(DataError, match="colour table"):
        read_window(raster)


def test_a_file_cut_short_names_itself_and_the_place(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.tif", noise(3, 200, 200), photometric="RGB")
    path.write_bytes(path.read_bytes()[:60_000])
    with open_raster(path) as raster:
        read_window(raster, Window(0, 0, 50, 20))
        with pytest.raises(DataError, match="rows 150 to 199, columns 10 to 19") as caught:
            read_window(raster, Window(10, 150, 10, 50))
    assert str(path) in str(caught.value) and "copy or download" in str(caught.value)


def test_the_overview_is_the_whole_picture_made_small(tmp_path: Path) -> None:
    array = np.repeat(np.repeat(noise(3, 10, 20), 8, axis=1), 8, axis=2)
    with open_raster(write(tmp_path / "a.tif", array, photometric="RGB")) as raster:
        colours, valid = read_overview(raster, 20)
        assert read_overview(raster, 1000)[0].shape == (80, 160, 3)
    np.testing.assert_array_equal(colours, array[:, ::8, ::8].transpose(1, 2, 0))
    assert valid.shape == (10, 20)


def test_a_large_picture_without_overviews_is_sampled_in_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cgeartheye.rasters.colours._WHOLE_READ_PX", 1000)
    array = np.broadcast_to(np.arange(600, dtype=np.uint16) * 5, (3, 500, 600))
    with open_raster(write(tmp_path / "a.tif", np.ascontiguousarray(array), photometric="RGB")) as raster:
        assert raster.plan.stretch is not None
        assert raster.plan.stretch.low == pytest.approx(15, abs=60)
        assert raster.plan.stretch.high == pytest.approx(2980, abs=60)


def test_a_handle_stays_in_its_thread(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def steal() -> None:
        try:
            read_window(raster)
        except RuntimeError as error:
            caught.append(error)

    with open_raster(write(tmp_path / "a.tif", noise(3, 4, 4), photometric="RGB")) as raster:
        thread = threading.Thread(target=steal)
        thread.start()
        thread.join()
    assert len(caught) == 1 and "another thread" in str(caught[0])
