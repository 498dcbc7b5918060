"""Which date of a quarter is kept, and what one chip is made of."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from cgeartheye.curation.places import PlaceBlock, Spot, cut_places
from cgeartheye.geometry.crs import LONLAT, footprint, transformer
from cgeartheye.rasters.scenes import Scene
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import Place
from cgeartheye.shards.reader import decode_chip

CRS = "EPSG:32650"
X0, Y0 = 500_000.0, 4_400_000.0
SIDE = 96


def texture(seed: int = 0) -> np.ndarray:
    """Grey, so that JPEG's halved chroma loses nothing."""
    return np.random.default_rng(seed).integers(40, 160, (SIDE, SIDE, 1), dtype=np.uint8).repeat(3, axis=2)


@pytest.fixture
def make(tmp_path: Path, tif):  # noqa: ANN001, ANN201 - the writer of conftest
    def scene(name: str, date: str, image: np.ndarray, x0: float = X0, **more: object) -> Scene:
        path = tif(tmp_path / f"{name}.tif", image, x0, Y0)
        height, width = image.shape[:2]
        transform = (1.0, 0.0, x0, 0.0, -1.0, Y0)
        known = Scene(
            id=name, path=path, datetime=dt.datetime.fromisoformat(date).replace(tzinfo=dt.UTC), date_source="name", gsd_m=1.0,
            gsd_x_m=1.0, gsd_y_m=1.0, width=width, height=height, count=3, dtype="uint8", band_names=("red", "green", "blue"),
            rgb_bands=(1, 2, 3), nodata=0.0, mask_kind="nodata", stretch_low=None, stretch_high=None, crs=CRS, crs_wkt=CRS,
            transform=transform, footprint=footprint(transform, width, height, CRS), licence="CC0-1.0", file_fingerprint=name,
        )  # fmt: skip
        return replace(known, **more)

    return scene


def cut(scenes: list[Scene], **settings: object) -> tuple[Place, dict[str, int]]:
    lon, lat = transformer(CRS, LONLAT).transform(X0 + SIDE / 2, Y0 - SIDE / 2)
    spot = Spot("c1_1", lon, lat, 1, "none", "none", None, "none", tuple(range(len(scenes))))
    given = CurateSettings.model_validate({"chip_px": 64, "registration": {"enabled": False}, "jpeg_quality": 100, **settings})
    piece = cut_places(PlaceBlock((spot,), dict(enumerate(scenes)), given, 1.0))
    return piece.places[0], dict(piece.counts)


def kept(scenes: list[Scene]) -> object:
    place, _ = cut(scenes)
    assert len(place.chips) == 1
    return place.chips[0].columns["scene"]


def test_the_best_scene_of_a_quarter_by_each_reason_in_turn(make) -> None:  # noqa: ANN001
    plain, clouded = texture(), texture()
    clouded[20:60, 20:60] = 245
    holed = texture()
    holed[30:, 40:46] = 0  # above 1 % of the chip, were it alone it would be rejected
    middle = "2023-08-15"
    by_name = [make("b", middle, plain), make("a", middle.replace("15", "14"), plain)]
    assert kept(by_name) == "b"  # nearer to mid-quarter
    steep = [make("b", middle, plain, off_nadir_deg=30.0), make("c", "2023-07-01", plain, off_nadir_deg=-5.0)]
    assert kept(steep) == "c"
    stated = [make("c", "2023-07-01", plain, off_nadir_deg=5.0, cloud_share=0.3), make("d", "2023-09-30", plain, cloud_share=0.0)]
    assert kept(stated) == "d"
    seen = [make("d", "2023-09-30", clouded, cloud_share=0.0), make("e", "2023-07-02", plain, cloud_share=0.9)]
    assert kept(seen) == "e"
    limits = {"quality": {"max_nodata_share": 0.5}}
    covered = [make("f", middle, holed), make("g", "2023-07-02", clouded)]
    place, counts = cut(covered, **limits)
    assert [chip.columns["scene"] for chip in place.chips] == ["g"]
    assert counts["other_dates_of_a_quarter"] == 1
    assert kept([make("h", "2023-08-15", plain), make("g", "2023-08-16", plain)]) == "h"


def test_the_order_of_scenes_changes_nothing(make) -> None:  # noqa: ANN001
    scenes = [make(name, date, texture()) for name, date in (("p", "2023-08-14"), ("q", "2023-08-16"), ("r", "2023-08-17"))]
    assert kept(scenes) == kept(scenes[::-1]) == "p"  # as near as q, first by name


def test_a_date_of_two_scenes_names_both_and_both_licences(make) -> None:  # noqa: ANN001
    image = texture()
    west, east = image[:, :40].copy(), image[:, 40:].copy()
    scenes = [
        make("a", "2023-08-15", west, licence="CC-BY-4.0"),
        make("b", "2023-08-15", east, x0=X0 + 40, licence="CC0-1.0"),
    ]
    place, _ = cut(scenes)
    (chip,) = place.chips
    assert chip.columns["scene"] == "b+a"  # more of the chip is b's
    assert chip.columns["licence"] == "CC-BY-4.0 AND CC0-1.0"
    shown = decode_chip(chip.jpeg)
    row, column = round(Y0 - place.columns["y0"]), round(place.columns["x0"] - X0)
    assert np.abs(shown.astype(int) - image[row : row + 64, column : column + 64]).max() <= 3
    assert shapely.box(X0, Y0 - SIDE, X0 + SIDE, Y0).covers(
        shapely.box(place.columns["x0"], place.columns["y0"] - 64, place.columns["x0"] + 64, place.columns["y0"])
    )


def test_a_broken_scene_costs_its_own_pixels_only(make) -> None:  # noqa: ANN001
    image = texture()
    scenes = [make("a", "2023-08-15", image), make("b", "2023-08-15", image)]
    scenes[1].path.write_bytes(scenes[1].path.read_bytes()[:4000])
    place, counts = cut(scenes)
    assert place.chips[0].columns["scene"] == "a"
    assert counts["unreadable"] == 1


def test_the_grid_of_a_place_is_its_own(make) -> None:  # noqa: ANN001
    """UTM zone of the centre, origin on whole pixels, whatever the scenes are like."""
    one, _ = cut([make("a", "2023-08-15", texture())])
    off, _ = cut([make("b", "2023-08-15", texture(), x0=X0 + 0.4)])
    names = ("crs", "x0", "y0", "gsd_m")
    assert [one.columns[n] for n in names] == [off.columns[n] for n in names] == [CRS, X0 + 16, Y0 - 16, 1.0]
