"""Tables beside the shards: one row a place, and what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import geopandas as gpd
import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from cgeartheye.curation.selection import Selection
from cgeartheye.files import atomic_path
from cgeartheye.geometry.crs import LONLAT, footprint
from cgeartheye.shards.writer import write_table

_COPIED: Final = ("lon", "lat", "cell", "region", "land_cover", "elevation_m", "stratum", "label", "gsd_m", "crs")


def write_places(out: Path, rows: pa.Table, selection: Selection, *, archive: bool) -> None:
    """Write ``places.parquet``: every good place, kept or not; GeoParquet with the chips' footprints for an archive."""
    starts = np.flatnonzero(rows["date_index"].to_numpy() == 0)
    ends = np.append(starts[1:], len(rows))
    first = rows.select(["place", *_COPIED, "x0", "y0", "width", "height"]).take(starts)
    dates = [[d.isoformat() for d in rows["date"][a:b].to_pylist() if d] for a, b in zip(starts, ends, strict=True)]
    columns = {
        "place": first["place"],
        "n_dates": pa.array(ends - starts, pa.int32()),
        "dates": pa.array(dates, pa.list_(pa.string())),
        **{name: first[name] for name in _COPIED},
        "cluster": pa.array(selection.clusters, pa.int32()),
        "kept": pa.array(selection.kept, pa.bool_()),
    }
    table = pa.table(columns).replace_schema_metadata({"schema_version": "1"})
    if not archive:
        write_table(out / "places.parquet", table)
        return
    frame = gpd.GeoDataFrame(table.to_pandas(), geometry=_footprints(first), crs=LONLAT)
    with atomic_path(out / "places.parquet") as temporary:
        frame.to_parquet(temporary, compression="zstd", index=False)


def _footprints(first: pa.Table) -> NDArray[np.object_]:
    found = np.empty(len(first), object)
    columns = (first[name].to_pylist() for name in ("crs", "x0", "y0", "gsd_m", "width", "height"))
    for number, (crs, x0, y0, gsd_m, width, height) in enumerate(zip(*columns, strict=True)):
        outline = footprint((gsd_m, 0.0, x0, 0.0, -gsd_m, y0), width, height, crs)
        found[number] = shapely.simplify(outline, 1e-9)
    return found


def write_rejected(out: Path, *rejected: pa.Table) -> int:
    """Write ``rejected.parquet``: place, scene, date and reason of everything that was left out; return the number of rows."""
    table = pa.concat_tables(rejected)
    write_table(out / "rejected.parquet", table)
    return len(table)
