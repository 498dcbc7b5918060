from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from pystac.validation import validate_dict

from cgeartheye.errors import DataError
from cgeartheye.geometry.crs import footprint
from cgeartheye.geometry.grid import Grid
from cgeartheye.rasters.reader import open_raster, read_on_grid, read_window
from cgeartheye.rasters.scenes import Scene, read_scenes, write_scenes
from cgeartheye.rasters.writer import RasterSpec, write_geotiff

GRID = Grid("EPSG:32640", 340_000.0, 2_790_000.0, 0.5, 60, 40)
PLACE = {"crs": GRID.crs, "transform": GRID.transform, "width": 60, "height": 40}


def scene(path: Path, **changes: object) -> Scene:
    values: dict[str, object] = {
        "id": path.stem,
        "path": path,
        "datetime": dt.datetime(2018, 12, 31, 23, 59, tzinfo=dt.UTC),
        "date_source": "csv",
        "gsd_m": 0.5,
        "gsd_x_m": 0.5,
        "gsd_y_m": 0.5,
        "count": 3,
        "dtype": "uint8",
        "band_names": ("red", "green", "blue"),
        "rgb_bands": (1, 2, 3),
        "nodata": None,
        "mask_kind": "none",
        "stretch_low": None,
        "stretch_high": None,
        "crs_wkt": "WKT",
        "footprint": footprint(GRID.transform, 60, 40, GRID.crs),
        "licence": "CC0",
        "file_fingerprint": "f" * 64,
        **PLACE,
        **changes,
    }
    return Scene(**values)  # type: ignore[arg-type]  # every field is given


def test_a_catalogue_comes_back(tmp_path: Path) -> None:
    scenes = [scene(tmp_path / "a.tif"), scene(tmp_path / "b.jp2", nodata=0.0, mask_kind="nodata", notes=("one", "two"))]
    write_scenes(tmp_path / "c.parquet", scenes)
    assert read_scenes(tmp_path / "c.parquet") == scenes


def test_clouds_and_view_are_stac_columns_where_they_are_stated(tmp_path: Path) -> None:
    stated = scene(tmp_path / "a.tif", cloud_share=0.07, off_nadir_deg=-12.5)
    write_scenes(tmp_path / "c.parquet", [stated, scene(tmp_path / "b.tif")])
    assert read_scenes(tmp_path / "c.parquet")[0] == stated
    first, second = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert first["eo:cloud_cover"] == pytest.approx(7) and first["view:off_nadir"] == 12.5 and first["off_nadir_deg"] == -12.5
    assert second["eo:cloud_cover"] is None and len(first["stac_extensions"]) == len(second["stac_extensions"]) + 2


def test_december_belongs_to_its_own_year() -> None:
    found = scene(Path("a.tif"))
    assert (found.year, found.quarter, found.date) == (2018, 4, dt.date(2018, 12, 31))
    quarters = [scene(Path("a"), datetime=dt.datetime(2020, month, 1, tzinfo=dt.UTC)).quarter for month in range(1, 13)]
    assert quarters == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_every_row_is_a_stac_item(tmp_path: Path) -> None:
    write_scenes(tmp_path / "c.parquet", [scene(tmp_path / "a.tif"), scene(tmp_path / "b.tif", crs="WKT OF MY OWN")])
    frame = gpd.read_parquet(tmp_path / "c.parquet")
    assert frame.crs.to_epsg() == 4326 and len(frame) == 2
    boxes = pq.read_table(tmp_path / "c.parquet")["bbox"].to_pylist()
    for row, box in zip(frame.to_dict("records"), boxes, strict=True):
        assert row["type"] == "Feature" and row["stac_version"] == "1.1.0"
        assert row["id"] and list(row["links"]) == []
        assert tuple(box.values()) == row["geometry"].bounds
        assert row["geometry"].is_valid and row["geometry"].exterior.is_ccw
        assert row["datetime"].tzinfo is not None and row["datetime"].year == 2018
        assert row["assets"]["image"]["href"] == row["path"] and list(row["assets"]["image"]["roles"]) == ["data"]
        assert list(row["proj:shape"]) == [40, 60] and list(row["proj:transform"]) == list(GRID.transform)
        assert "projection" in row["stac_extensions"][0] and row["gsd"] == row["gsd_m"] == 0.5
        assert row["date"] == "2018-12-31" and row["quarter"] == 4
    assert frame["proj:code"].isna().tolist() == [False, True] and frame["proj:code"][0] == "EPSG:32640"


def stac_item(row: dict[str, Any]) -> dict[str, Any]:
    """A row as STAC readers of GeoParquet turn it: what is no top-level field of an item is a property, taken as it is."""
    top = ("type", "stac_version", "stac_extensions", "id", "links", "assets")
    item = {name: row.pop(name) for name in top}
    geometry, box, moment = shapely.from_wkb(row.pop("geometry")), row.pop("bbox"), row.pop("datetime")
    properties = {**row, "datetime": moment.isoformat().replace("+00:00", "Z")}
    return {**item, "geometry": shapely.geometry.mapping(geometry), "bbox": list(box.values()), "properties": properties}


def test_items_made_of_rows_are_valid_by_the_schemas_that_pystac_brings(tmp_path: Path) -> None:
    stated = scene(tmp_path / "a.tif", cloud_share=0.07, off_nadir_deg=-12.5, nodata=0.0, mask_kind="nodata")
    write_scenes(tmp_path / "c.parquet", [stated, scene(tmp_path / "b.tif", crs="WKT OF MY OWN")])
    for row in pq.read_table(tmp_path / "c.parquet").to_pylist():
        item = json.loads(json.dumps(stac_item(row)))
        assert validate_dict(item, extensions=[])  # schemas of extensions lie on the network
        assert validate_dict(pystac.Item.from_dict(item).to_dict(include_self_link=False), extensions=[])
        for name, wrong in (("datetime", "soon"), ("nodata", None)):
            with pytest.raises(pystac.STACValidationError):
                validate_dict({**item, "properties": {**item["properties"], name: wrong}}, extensions=[])


def test_stac_geoparquet_makes_items_of_it(tmp_path: Path) -> None:
    arrow = pytest.importorskip("stac_geoparquet.arrow", reason="stac-geoparquet is not installed")
    write_scenes(tmp_path / "c.parquet", [scene(tmp_path / "a.tif"), scene(tmp_path / "b.tif", nodata=0.0)])
    items = list(arrow.stac_table_to_items(pq.read_table(tmp_path / "c.parquet")))
    assert [item["id"] for item in items] == ["a", "b"]
    assert all(validate_dict(item, extensions=[]) for item in items)


def test_a_catalogue_of_the_version_before_opens(tmp_path: Path) -> None:
    scenes = [scene(tmp_path / "a.tif")]
    write_scenes(tmp_path / "c.parquet", scenes)
    table = pq.read_table(tmp_path / "c.parquet")
    metadata = dict(table.schema.metadata)
    days = table["date"].cast(pa.date32())
    table = table.set_column(table.schema.get_field_index("date"), "date", days)
    table = table.rename_columns(["nodata" if name == "nodata_value" else name for name in table.column_names])
    for version, known in (("1", True), ("3", False)):
        metadata[b"schema_version"] = version.encode()
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "old.parquet")
        if known:
            assert read_scenes(tmp_path / "old.parquet") == scenes
        else:
            with pytest.raises(DataError, match=r"schema_version b'3'(?s:.*)make the catalogue again"):
                read_scenes(tmp_path / "old.parquet")


def test_the_geoparquet_metadata_is_complete(tmp_path: Path) -> None:
    write_scenes(tmp_path / "c.parquet", [scene(tmp_path / "a.tif")])
    schema = pq.read_schema(tmp_path / "c.parquet")
    geo = json.loads(schema.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert geo["version"] == "1.1.0" and column["encoding"] == "WKB" and column["geometry_types"] == ["Polygon"]
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    np.testing.assert_allclose(column["bbox"], shapely.total_bounds([scene(tmp_path / "a.tif").footprint]))
    assert schema.metadata[b"schema_version"] == b"2" and schema.field("date").type == pa.string()


def test_equal_scenes_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("c", "d"):
        write_scenes(tmp_path / f"{name}.parquet", [scene(tmp_path / "a.tif")])
    assert (tmp_path / "c.parquet").read_bytes() == (tmp_path / "d.parquet").read_bytes()


def test_other_files_are_no_catalogue(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cgeartheye catalog"):
        read_scenes(tmp_path / "missing.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match=r"text\.parquet"):
        read_scenes(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="schema_version"):
        read_scenes(tmp_path / "other.parquet")


def test_a_scene_is_read_by_its_plan(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 2000, (4, 40, 60), dtype=np.uint16)
    write_geotiff(tmp_path / "a.tif", array, RasterSpec.on(GRID, count=4, dtype="uint16"))
    found = scene(tmp_path / "a.tif", count=4, rgb_bands=(4, 2, 1), stretch_low=100.0, stretch_high=1120.0, dtype="uint16")
    expected = np.clip(np.rint((array[[3, 1, 0]] - 100.0) / 4), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    with open_raster(found) as raster:
        np.testing.assert_array_equal(read_window(raster)[0], expected)
    np.testing.assert_array_equal(read_on_grid(found, GRID)[0], expected)
    with open_raster(replace(found, rgb_bands=(1, 2, 3))) as raster:
        assert raster.plan.bands == (1, 2, 3)
    for other in ({"count": 3}, {"width": 61}, {"dtype": "uint8"}):
        with (
            pytest.raises(DataError, match=r"not the file that was catalogued(?s:.*)again"),
            open_raster(replace(found, **other)),
        ):
            pass
