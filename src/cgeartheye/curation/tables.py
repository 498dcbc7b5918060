"""Tables beside the shards: one row a place, and what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from cgeartheye.curation.selection import Selection
from cgeartheye.files import atomic_path
from cgeartheye.geometry.crs import LONLAT, square_footprints
from cgeartheye.shards.writer import write_table
from cgeartheye.vectors.geoparquet import geo_metadata

_COPIED: Final = ("lon", "lat", "cell", "region", "land_cover", "elevation_m", "stratum", "label", "gsd_m", "crs")
_OF_GRID: Final = ("x0", "y0", "width", "height")
_BLOCK: Final = 16_384

Ints = NDArray[np.int64]


def write_places(out: Path, rows: pa.Table, selection: Selection, *, archive: bool) -> None:
    """Write ``places.parquet``: every good place, kept or not; GeoParquet with the chips' footprints for an archive.

    :data:`_BLOCK` places are in memory at a time.
    """
    starts = np.flatnonzero(rows["date_index"].to_numpy() == 0)
    schema, looked_at = _schema(rows.schema, archive=archive), rows.select(["place", "date", *_COPIED, *_OF_GRID])
    bounds, types = np.array([np.inf, np.inf, -np.inf, -np.inf]), set()
    with atomic_path(out / "places.parquet") as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for some in (slice(first, first + _BLOCK) for first in range(0, len(starts), _BLOCK)):
            low, high = int(starts[some][0]), int(starts[some.stop]) if some.stop < len(starts) else len(rows)
            part = looked_at.slice(low, high - low)
            first = part.take(starts[some] - low)
            columns = _columns(part, first, starts[some] - low)
            columns |= {"cluster": pa.array(selection.clusters[some], pa.int32()), "kept": pa.array(selection.kept[some])}
            if archive:
                outlines = _footprints(first)
                columns["geometry"] = pa.array(shapely.to_wkb(outlines, flavor="iso"), pa.binary())
                low_high = shapely.total_bounds(outlines)
                bounds[:2], bounds[2:] = np.fmin(bounds[:2], low_high[:2]), np.fmax(bounds[2:], low_high[2:])
                types |= {outline.geom_type for outline in outlines}
            writer.write_table(pa.table(columns, schema=schema))
        if archive:
            writer.add_key_value_metadata(geo_metadata(LONLAT, bounds, types, boxes=False))


def _schema(of_rows: pa.Schema, *, archive: bool) -> pa.Schema:
    copied = [of_rows.field(name) for name in _COPIED]
    dates = [pa.field("n_dates", pa.int32()), pa.field("dates", pa.list_(pa.string()))]
    chosen = [pa.field("cluster", pa.int32()), pa.field("kept", pa.bool_())]
    geometry = [pa.field("geometry", pa.binary())] if archive else []
    fields = [of_rows.field("place"), *dates, *copied, *chosen, *geometry]
    return pa.schema([field.with_metadata(None) for field in fields], metadata={"schema_version": "1"})


def _columns(rows: pa.Table, first: pa.Table, starts: Ints) -> dict[str, Any]:
    """Return what the rows of some places, which begin at ``starts``, say of each; ``first`` are their first rows."""
    known = rows["date"].to_pylist()
    ends = np.append(starts[1:], len(rows))
    dates = [[d.isoformat() for d in known[a:b] if d] for a, b in zip(starts, ends, strict=True)]
    copied = {name: first[name] for name in ("place", *_COPIED)}
    return {"n_dates": pa.array(ends - starts, pa.int32()), "dates": pa.array(dates, pa.list_(pa.string())), **copied}


def _footprints(first: pa.Table) -> NDArray[np.object_]:
    """Return the outlines of places' chips in degrees, (n,)."""
    systems = first["crs"].combine_chunks().dictionary_encode()
    number = systems.indices.to_numpy(zero_copy_only=False)
    x0, y0, gsd_m, width, height = (first[name].to_numpy() for name in ("x0", "y0", "gsd_m", "width", "height"))
    found = np.empty(len(first), object)
    for at, crs in enumerate(systems.dictionary.to_pylist()):
        own = np.flatnonzero(number == at)
        side = (gsd_m[own] * width[own], gsd_m[own] * height[own])
        found[own] = square_footprints(x0[own], y0[own], side, crs)
    return np.asarray(shapely.simplify(found, 1e-9))


def write_rejected(out: Path, *rejected: pa.Table) -> int:
    """Write ``rejected.parquet``: place, scene, date and reason of everything that was left out; return the number of rows."""
    table = pa.concat_tables(rejected)
    write_table(out / "rejected.parquet", table)
    return len(table)
