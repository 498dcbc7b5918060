"""A catalogued scene, and the catalogue as STAC items in GeoParquet.

The file opens in geopandas, DuckDB and STAC readers (stac-geoparquet 1.1, GeoParquet 1.1). Beside the STAC columns it
has one column for every field of :class:`Scene`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from cgeartheye.errors import DataError
from cgeartheye.files import atomic_path
from cgeartheye.geometry.crs import LONLAT, Affine6
from cgeartheye.rasters.colours import Bands, ColourPlan, MaskKind
from cgeartheye.rasters.opening import address_of
from cgeartheye.rasters.stretch import Stretch

SCHEMA_VERSION: Final = 2
_READABLE: Final = {b"1", b"2"}
"""Items made of rows of version 1 were not valid: `date` was no JSON, `collection` named one that no link led to, and
`nodata_value` had the name of a STAC field that may not be null."""
DateSource = Literal["csv", "item", "meta", "product", "tag", "name"]
_PROJECTION: Final = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_CLOUDS: Final = "https://stac-extensions.github.io/eo/v2.0.0/schema.json"
_VIEW: Final = "https://stac-extensions.github.io/view/v1.0.0/schema.json"
_MEDIA: Final = {".jp2": "image/jp2"}
_GEOTIFF: Final = "image/tiff; application=geotiff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One georeferenced image of one date, as the catalogue knows it.

    Args:
        id: unique in its catalogue; letters, digits, dots, hyphens and underscores.
        path: the file, or GDAL's virtual path of one on the network.
        datetime: of acquisition, UTC; midnight where only the day is known.
        date_source: where the date came from.
        gsd_m: ground sample distance in metres, geometric mean of both axes.
        gsd_x_m: along a row.
        gsd_y_m: along a column.
        width: columns.
        height: rows.
        count: bands.
        dtype: "uint8" or "uint16".
        band_names: colour interpretation or description of every band.
        rgb_bands: bands (from 1) read as red, green, blue.
        nodata: the value of empty pixels, if there is one.
        mask_kind: where valid pixels are told.
        stretch_low: 16-bit value that becomes 0; None for 8-bit scenes.
        stretch_high: 16-bit value that becomes 255.
        crs: "EPSG:n" where there is a code, else WKT.
        crs_wkt: the system as WKT.
        transform: affine transform (a, b, c, d, e, f).
        footprint: outline in degrees, EPSG:4326.
        licence: of the picture.
        file_fingerprint: changes with the file.
        notes: what was assumed when reading it.
        acquisition: what the tiles of one picture share; the scene's own id for a picture in one file.
        cloud_share: cloud cover as its producer states it, [0, 1]; None: not stated.
        off_nadir_deg: angle of view from the vertical; None: not stated.
    """

    id: str
    path: Path
    datetime: dt.datetime
    date_source: DateSource
    gsd_m: float
    gsd_x_m: float
    gsd_y_m: float
    width: int
    height: int
    count: int
    dtype: str
    band_names: tuple[str, ...]
    rgb_bands: Bands
    nodata: float | None
    mask_kind: MaskKind
    stretch_low: float | None
    stretch_high: float | None
    crs: str
    crs_wkt: str
    transform: Affine6
    footprint: BaseGeometry
    licence: str
    file_fingerprint: str
    notes: tuple[str, ...] = ()
    acquisition: str = ""
    cloud_share: float | None = None
    off_nadir_deg: float | None = None

    def __post_init__(self) -> None:
        """Name the acquisition of a picture in one file."""
        if not self.acquisition:
            object.__setattr__(self, "acquisition", self.id)

    @property
    def date(self) -> dt.date:
        """Day of acquisition (UTC)."""
        return self.datetime.date()

    @property
    def year(self) -> int:
        """Calendar year; December belongs to its own year's fourth quarter."""
        return self.datetime.year

    @property
    def quarter(self) -> int:
        """Calendar quarter, 1 = January to March in both hemispheres."""
        return (self.datetime.month - 1) // 3 + 1

    @property
    def plan(self) -> ColourPlan:
        """How its values become 8-bit colours, the same for every window."""
        low, high = self.stretch_low, self.stretch_high
        stretch = None if low is None or high is None else Stretch(low, high)
        return ColourPlan(self.rgb_bands, self.mask_kind, stretch, self.notes)


def write_scenes(path: Path, scenes: Sequence[Scene]) -> None:
    """Write a catalogue atomically; equal scenes give equal bytes.

    Raises:
        ResourceError: if the disk is full or the folder may not be written.
    """
    table = pa.Table.from_pylist([_row(scene) for scene in scenes], schema=_schema(scenes))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_scenes(path: Path) -> list[Scene]:
    """Read a catalogue that :func:`write_scenes` has written, in its order.

    Raises:
        DataError: if the file is missing, no catalogue, or of an unknown schema version.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"cannot be read as a catalogue ({error})", where=str(path), remedy="make it: cgeartheye catalog"
        ) from error
    version = (table.schema.metadata or {}).get(b"schema_version")
    if version not in _READABLE:
        raise DataError(
            f"schema_version {version!r} is not known to this release", where=str(path), remedy="make the catalogue again"
        )
    return [_scene(row) for row in table.to_pylist()]


_STAC_FIELDS: Final = (
    ("type", pa.string()),
    ("stac_version", pa.string()),
    ("stac_extensions", pa.list_(pa.string())),
    ("id", pa.string()),
    ("geometry", pa.binary()),
    ("bbox", pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])),
    ("datetime", pa.timestamp("us", tz="UTC")),
    ("links", pa.list_(pa.struct([(name, pa.string()) for name in ("href", "rel", "type")]))),
    (
        "assets",
        pa.struct([("image", pa.struct([("href", pa.string()), ("type", pa.string()), ("roles", pa.list_(pa.string()))]))]),
    ),
    ("gsd", pa.float64()),
    ("proj:code", pa.string()),
    ("proj:shape", pa.list_(pa.int32())),
    ("proj:transform", pa.list_(pa.float64())),
    ("eo:cloud_cover", pa.float64()),
    ("view:off_nadir", pa.float64()),
)
_OUR_FIELDS: Final = (
    ("path", pa.string()),
    ("date", pa.string()),
    ("year", pa.int32()),
    ("quarter", pa.int32()),
    ("date_source", pa.string()),
    ("gsd_m", pa.float64()),
    ("gsd_x_m", pa.float64()),
    ("gsd_y_m", pa.float64()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("count", pa.int32()),
    ("dtype", pa.string()),
    ("band_names", pa.list_(pa.string())),
    ("rgb_bands", pa.list_(pa.int32())),
    ("nodata_value", pa.float64()),
    ("mask_kind", pa.string()),
    ("stretch_low", pa.float64()),
    ("stretch_high", pa.float64()),
    ("crs", pa.string()),
    ("crs_wkt", pa.string()),
    ("licence", pa.string()),
    ("file_fingerprint", pa.string()),
    ("notes", pa.list_(pa.string())),
    ("acquisition", pa.string()),
    ("cloud_share", pa.float64()),
    ("off_nadir_deg", pa.float64()),
)
_OURS_FROM_SCENE: Final = tuple(name for name, _ in _OUR_FIELDS if name not in {"path", "date", "nodata_value"})


def _schema(scenes: Sequence[Scene]) -> pa.Schema:
    bounds = shapely.total_bounds([scene.footprint for scene in scenes]).tolist() if scenes else []
    geometry = {
        "encoding": "WKB",
        "geometry_types": sorted({scene.footprint.geom_type for scene in scenes}),
        "crs": CRS.from_user_input(LONLAT).to_json_dict(),
        "edges": "planar",
        "bbox": bounds,
        "covering": {"bbox": {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}},
    }
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": geometry}}
    return pa.schema([*_STAC_FIELDS, *_OUR_FIELDS]).with_metadata(
        {
            "geo": json.dumps(geo, sort_keys=True),
            "stac-geoparquet": json.dumps({"version": "1.1.0"}),
            "schema_version": str(SCHEMA_VERSION),
        }
    )


def _row(scene: Scene) -> dict[str, Any]:
    ours = {name: getattr(scene, name) for name in _OURS_FROM_SCENE}
    media = _MEDIA.get(scene.path.suffix.lower(), _GEOTIFF)
    clouds, angle = scene.cloud_share, scene.off_nadir_deg
    return {
        **ours,
        "path": str(scene.path),
        "date": scene.date.isoformat(),
        "nodata_value": scene.nodata,
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_PROJECTION, *([_CLOUDS] if clouds is not None else []), *([_VIEW] if angle is not None else [])],
        "id": scene.id,
        "geometry": shapely.to_wkb(scene.footprint),
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), scene.footprint.bounds, strict=True)),
        "datetime": scene.datetime,
        "links": [],
        "assets": {"image": {"href": address_of(scene.path), "type": media, "roles": ["data"]}},
        "gsd": scene.gsd_m,
        "proj:code": scene.crs if scene.crs.startswith("EPSG:") else None,
        "proj:shape": [scene.height, scene.width],
        "proj:transform": list(scene.transform),
        "eo:cloud_cover": None if clouds is None else 100 * clouds,
        "view:off_nadir": None if angle is None else abs(angle),  # [0, 90] by its extension
    }


def _scene(row: dict[str, Any]) -> Scene:
    special: dict[str, Any] = {
        "path": Path(row["path"]),
        "band_names": tuple(row["band_names"]),
        "rgb_bands": tuple(row["rgb_bands"]),
        "notes": tuple(row["notes"]),
        "nodata": row["nodata_value"] if "nodata_value" in row else row["nodata"],
        "transform": tuple(row["proj:transform"]),
        "footprint": shapely.from_wkb(row["geometry"]),
        "acquisition": row.get("acquisition") or row["id"],
    }
    values: dict[str, Any] = {field.name: special.get(field.name, row.get(field.name)) for field in fields(Scene)}
    return Scene(**values)
