"""Chips wherever the Earth or its maps have an edge, against the ground itself: a pattern of places in space.

The pattern is a function of the point's coordinates in three-dimensional space (EPSG:4978), which know neither zones, nor an
antimeridian, nor poles. A scene shows it at its pixels' centres, in whatever system; a chip must show it at its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from cgeartheye.catalog import catalog
from cgeartheye.curation import curate
from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import LONLAT, transformer, utm_crs
from cgeartheye.geometry.grid import Grid, local_grid
from cgeartheye.rasters.mosaic import read_mosaic
from cgeartheye.rasters.reader import open_raster
from cgeartheye.settings.catalog import CatalogSettings
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.reader import ShardReader

SPACE = "EPSG:4978"
DIRECTIONS = np.random.default_rng(4).normal(size=(2, 3))
DIRECTIONS *= 2 * np.pi / 55 / np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)


def ground(crs: str, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey values of the pattern, waves of 55 m, at points of a system."""
    in_space = np.stack(Transformer.from_crs(crs, SPACE, always_xy=True).transform(x, y, np.zeros_like(x)))
    phases = np.tensordot(DIRECTIONS, in_space, axes=1)
    return np.rint(128 + 50 * np.sin(phases[0]) + 50 * np.cos(phases[1])).astype(np.uint8)


def shown(transform: Affine, crs: str, height: int, width: int) -> NDArray[np.uint8]:
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = transform.a * column + transform.b * row + transform.c, transform.d * column + transform.e * row + transform.f
    return ground(crs, x, y)


class Piece(NamedTuple):
    """A scene: its system, the transform of its pixels, its size, and how its place is told."""

    crs: str
    transform: Affine
    height: int
    width: int
    told_by: str = "transform"


def centred(crs: str, lon: float, lat: float, pixel: tuple[float, float, float, float], size: tuple[int, int]) -> Piece:
    """A scene of ``size`` (height, width) around a point."""
    x, y = transformer(LONLAT, crs).transform(lon, lat)
    a, b, d, e = pixel
    height, width = size
    return Piece(crs, Affine(a, b, x - (a * width + b * height) / 2, d, e, y - (d * width + e * height) / 2), height, width)


def write(path: Path, piece: Piece) -> Path:
    grey = shown(piece.transform, piece.crs, piece.height, piece.width)
    bands = np.broadcast_to(grey, (3, *grey.shape))
    options = {"width": piece.width, "height": piece.height, "count": 3, "dtype": "uint8", "photometric": "RGB"}
    if piece.told_by == "transform":
        options |= {"transform": piece.transform, "crs": piece.crs}
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", **options) as file:
        file.write(bands)
        if piece.told_by == "points":
            spots = [(r, c) for r in (0, piece.height / 3, piece.height) for c in (0, piece.width / 2, piece.width)]
            at = [(r, c, *(piece.transform @ (c, r))) for r, c in spots]
            points = [GroundControlPoint(r, c, (x + 180) % 360 - 180 if piece.crs == LONLAT else x, y) for r, c, x, y in at]
            file.gcps = (points, rasterio.crs.CRS.from_user_input(piece.crs))
    return path


DEGREE_M = 111_319.49
ALONG = 1 / DEGREE_M
TURN = np.radians(33)
TURNED = (np.cos(TURN), np.sin(TURN), np.sin(TURN), -np.cos(TURN))
NORTH_UP = (1.0, 0.0, 0.0, -1.0)


def degrees(lat: float) -> tuple[float, float, float, float]:
    """Pixels of about a metre, in degrees."""
    return ALONG / np.cos(np.radians(lat)), 0.0, 0.0, -ALONG


def turned(piece: Piece) -> Piece:
    """The same scene, its longitudes a whole turn further."""
    return piece._replace(transform=Affine.translation(360, 0) @ piece.transform)


WHOLE = (420, 440)
STEP = 200 * ALONG
EDGES: dict[str, tuple[Piece, ...]] = {
    "its own zone": (centred("EPSG:32632", 9.2, 48.1, NORTH_UP, WHOLE),),
    "degrees over the antimeridian, from 179.99": (centred(LONLAT, 180.0, -16.8, degrees(-16.8), WHOLE),),
    "degrees over the antimeridian, from -180.01": (centred(LONLAT, -180.0, 52.3, degrees(52.3), WHOLE),),
    "degrees over the antimeridian, by control points": (
        centred(LONLAT, 180.0, 52.3, degrees(52.3), WHOLE)._replace(told_by="points"),
    ),
    "degrees counted from 0 to 360": (turned(centred(LONLAT, -160.0, 21.0, degrees(21.0), WHOLE)),),
    "two zones that meet at the antimeridian": (
        centred("EPSG:32660", 179.998, 12.0, NORTH_UP, WHOLE),
        centred("EPSG:32601", -179.998, 12.0, NORTH_UP, WHOLE),
    ),
    "zones 31 and 32, scenes in the other one": (centred("EPSG:32631", 6.0005, 45.0, NORTH_UP, WHOLE),),
    "the equator, from the southern system": (centred("EPSG:32733", 15.1, 0.0, NORTH_UP, WHOLE),),
    "32V, a scene in zone 31": (centred("EPSG:32631", 4.4, 60.4, NORTH_UP, WHOLE),),
    "31X, 33X, 35X, 37X from the zones between": (centred("EPSG:32634", 20.999, 78.2, NORTH_UP, WHOLE),),
    "37X from a polar system": (centred("EPSG:3413", 35.0, 80.9, NORTH_UP, WHOLE),),
    "between UTM and UPS": (centred("EPSG:32633", 15.0, 84.0, NORTH_UP, WHOLE),),
    "the North Pole": (centred("EPSG:32661", 0.0, 90.0, NORTH_UP, WHOLE),),
    "the North Pole from another polar system": (centred("EPSG:3413", 0.0, 90.0, NORTH_UP, WHOLE),),
    "the South Pole": (centred("EPSG:3031", 0.0, -90.0, NORTH_UP, WHOLE),),
    "near the South Pole on the antimeridian": (centred("EPSG:3031", 180.0, -84.0, NORTH_UP, WHOLE),),
    "web mercator": (centred("EPSG:3857", 25.0, 60.2, (2.0, 0.0, 0.0, -2.0), WHOLE),),
    "rotated": (centred("EPSG:32632", 9.2, 48.1, TURNED, (600, 600)),),
    "rotated, by control points": (centred("EPSG:32632", 9.2, 48.1, TURNED, (600, 600))._replace(told_by="points"),),
    "south up": (centred("EPSG:32632", 9.2, 48.1, (1.0, 0.0, 0.0, 1.0), WHOLE),),
    "mirrored": (centred("EPSG:32632", 9.2, 48.1, (-1.0, 0.0, 0.0, -1.0), WHOLE),),
    "not square": (centred("EPSG:32632", 9.2, 48.1, (0.7, 0.0, 0.0, -1.3), (340, 640)),),
    "US survey feet": (centred("EPSG:2263", -73.9, 40.8, (3.0, 0.0, 0.0, -3.0), WHOLE),),
    "four tiles of degrees, not quite on one lattice": tuple(
        centred(LONLAT, 30 + i * (STEP + off) / np.cos(np.radians(10)), 10 - j * (STEP + off), degrees(10), (200, 200))
        for i in (0, 1)
        for j, off in ((0, 0.0), (1, -0.3 * ALONG))
    ),
}  # fmt: skip


def cut(root: Path, pieces: tuple[Piece, ...], **more: object) -> Path:
    for number, piece in enumerate(pieces):
        write(root / "scenes" / f"s{number}_20230815.tif", piece)
    catalog(CatalogSettings(scenes=(root / "scenes",), workers=1), root / "catalog")
    given = {"catalog": root / "catalog", "cell_m": 120, "chip_px": 96, "gsd_m": 1.0, "workers": 0, "jpeg_quality": 100}
    given["quality"] = {"max_reblur": 1}  # waves of 55 m look like a blur
    given["duplicates"] = {"enabled": False}  # and like one another
    return curate(CurateSettings.model_validate({**given, **more}), root / "curated")


@pytest.mark.parametrize("name", EDGES)
def test_chips_show_the_ground_they_say(tmp_path: Path, name: str) -> None:
    reader = ShardReader(cut(tmp_path, EDGES[name]))
    rows = reader.table().to_pylist()
    assert len(reader) >= 3
    for i, row in enumerate(rows):
        grid = Grid(row["crs"], row["x0"], row["y0"], row["gsd_m"], row["width"], row["height"])
        expected = shown(Affine(*grid.transform), grid.crs, grid.height, grid.width)
        off = np.abs(reader.decode(i, 0)[..., 1].astype(int) - expected)
        # bicubic of the waves 2, of rounding and JPEG 2; a shift of one pixel would be 11
        assert off.max() <= 5 and off.mean() < 1, f"{name}: {row['place']} is off by {off.max()}"
        assert row["q_nodata"] == 0
        assert row["crs"] == utm_crs(row["lon"], row["lat"])
        assert row["x0"] == round(row["x0"]) and row["y0"] == round(row["y0"])


def test_places_on_both_sides_of_the_antimeridian_are_found(tmp_path: Path) -> None:
    out = cut(tmp_path, EDGES["degrees over the antimeridian, from 179.99"], chip_px=140, chips={"jitter": 0})
    lon = pq.read_table(out / "index.parquet")["lon"].to_numpy()
    assert (lon > 179).any() and (lon < -179).any()
    assert (np.abs(lon) > 180 - 70 * ALONG).any()  # its chip reaches over it


@pytest.mark.parametrize(("crs", "lat"), [("EPSG:32661", 90.0), ("EPSG:3031", -90.0)])
def test_the_pole_itself_is_in_a_chip(tmp_path: Path, crs: str, lat: float) -> None:
    path = write(tmp_path / "scenes" / "s.tif", centred(crs, 0.0, lat, NORTH_UP, WHOLE))
    grid = local_grid(77.0, lat, gsd_m=1.0, size_px=64)
    with open_raster(path) as raster:
        mosaic = read_mosaic([raster], grid)
    assert mosaic.valid.all()
    off = mosaic.colours[..., 0].astype(int) - shown(Affine(*grid.transform), grid.crs, 64, 64)
    assert np.abs(off).max() <= 3


def test_a_national_datum_that_has_the_coordinates_of_utm_is_copied(tmp_path: Path) -> None:
    """ETRS89 / UTM 32N: other name, same numbers as PROJ sees it; hence no warp."""
    x, y = transformer(LONLAT, "EPSG:25832").transform(9.2, 48.1)
    piece = Piece("EPSG:25832", Affine(1, 0, round(x) - 100, 0, -1, round(y) + 100), 200, 200)
    grid = local_grid(9.2, 48.1, gsd_m=1.0, size_px=64)
    with open_raster(write(tmp_path / "s.tif", piece)) as raster:
        mosaic = read_mosaic([raster], grid)
    assert grid.crs == "EPSG:32632"
    left, top = round(grid.x0 - piece.transform.c), round(piece.transform.f - grid.y0)
    whole = shown(piece.transform, piece.crs, 200, 200)
    np.testing.assert_array_equal(mosaic.colours[..., 0], whole[top : top + 64, left : left + 64])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lon=st.floats(-180, 180), lat=st.floats(-89.9, 89.9), turn=st.floats(0, 6.28),
    off=st.tuples(st.floats(-1, 1), st.floats(-1, 1)), size=st.sampled_from([0.6, 0.9, 1.3, 2.4]),
)  # fmt: skip
def test_any_scene_anywhere_is_shown_where_it_lies_or_not_at_all(
    tmp_path: Path, lon: float, lat: float, turn: float, off: tuple[float, float], size: float
) -> None:
    """Pixels that a chip calls valid are right, to the last one at the rim of the scene."""
    system = utm_crs(lon, lat)
    pixel = (size * np.cos(turn), size * np.sin(turn), size * np.sin(turn), -size * np.cos(turn))
    path = write(tmp_path / "any.tif", centred(system, lon, lat, pixel, (70, 60)))
    grid = local_grid(lon + off[0] * 30 * ALONG, min(90, max(-90, lat + off[1] * 30 * ALONG)), gsd_m=1.0, size_px=48)
    with open_raster(path) as raster:
        mosaic = read_mosaic([raster], grid)
    expected = shown(Affine(*grid.transform), grid.crs, 48, 48)
    off_by = np.abs(mosaic.colours[..., 0].astype(int) - expected)[mosaic.valid]
    assert off_by.size == 0 or off_by.max() <= (4 if size < 2 else 30)


def test_control_points_that_bend_are_refused_with_the_command(tmp_path: Path) -> None:
    piece = centred("EPSG:32632", 9.2, 48.1, NORTH_UP, (200, 200))
    path = write(tmp_path / "s.tif", piece._replace(told_by="points"))
    with rasterio.open(path, "r+") as file:
        points, crs = file.gcps
        points[4].x += 3.0
        file.gcps = (points, crs)
    with open_raster(path) as raster, pytest.raises(DataError, match=r"no affine transform \(misfit 2\.\d px\)") as caught:
        read_mosaic([raster], local_grid(9.2, 48.1, gsd_m=1.0, size_px=32))
    assert "gdalwarp -tps" in str(caught.value)
    with rasterio.open(path, "r+") as file:
        file.gcps = ([GroundControlPoint(k, k, 500_000 + k, 5_000_000 - k) for k in range(5)], crs)
    with open_raster(path) as raster, pytest.raises(DataError, match="5 ground control points do not fix a plane"):
        raster.georeference  # noqa: B018 - reading it is the test
