"""Finished stage folders and the files in them, read with every fault named."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.files import fingerprint, read_json
from cgeartheye.stage import read_manifest

Columns = Mapping[str, NDArray[Any]]
"""A table in memory: arrays of equal length by column name."""

Record = dict[str, Any]


@dataclass(frozen=True)
class StageFolder:
    """A finished stage: its folder, its manifest and the fingerprint of its outputs."""

    name: str
    path: Path
    manifest: Record
    fingerprint: str

    @property
    def seconds(self) -> float | None:
        """Wall time of the stage over all its runs, or None if the manifest does not say."""
        value = self.manifest.get("seconds")
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None

    @property
    def settings(self) -> Record:
        """The settings that decided the result."""
        value = self.manifest.get("settings")
        return value if isinstance(value, dict) else {}

    @property
    def summary(self) -> Record:
        """The numbers the stage itself found worth quoting."""
        value = self.manifest.get("summary")
        return value if isinstance(value, dict) else {}


def finished_folder(name: str, path: Path | None) -> StageFolder:
    """Return the finished stage folder at ``path``.

    Raises:
        DataError: if no folder was given, or it is not finished, or of an unknown version.
    """
    if path is None:
        raise DataError("no folder was given")
    manifest = read_manifest(path)
    return StageFolder(name, path, manifest, fingerprint(path))


def read_columns(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Columns:
    """Return the named columns of a Parquet file; optional ones that it lacks are absent from the answer.

    Raises:
        DataError: if the file is absent or broken, or lacks a required column.
    """
    try:
        present = set(pq.read_schema(path).names)
        missing = [name for name in required if name not in present]
        if missing:
            raise DataError(f"{path.name} has no column {missing[0]}", where=str(path))
        names = [*required, *(name for name in optional if name in present and name not in required)]
        table = pq.read_table(path, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name} is absent or cannot be read", where=f"{path} ({error})") from error
    return {name: _array(table.column(name)) for name in names}


def column_names(path: Path) -> list[str]:
    """Return the names of a Parquet file's columns.

    Raises:
        DataError: if the file is absent or broken.
    """
    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path.name} is absent or cannot be read", where=f"{path} ({error})") from error


def _array(column: Any) -> NDArray[Any]:  # noqa: ANN401 - pyarrow is untyped
    if pa.types.is_nested(column.type) or pa.types.is_decimal(column.type):
        values = np.empty(len(column), dtype=object)
        values[:] = column.to_pylist()
        return values
    return np.asarray(column.to_numpy())


def read_records(path: Path) -> list[Record]:
    """Return a JSON file that holds a list of objects, or an object that holds one such list.

    Raises:
        DataError: if it holds neither.
    """
    value = read_json(path)
    if isinstance(value, dict):
        lists = [v for v in value.values() if isinstance(v, list)]
        value = lists[0] if len(lists) == 1 else None
    if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
        raise DataError(f"{path.name} holds no list of records", where=str(path))
    return value


def read_lines(path: Path) -> list[Record]:
    """Return the objects of a JSON-lines file; a last line cut short by a crash is left out.

    Raises:
        DataError: if the file is absent or holds no complete line.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path.name} is absent or cannot be read", where=f"{path} ({error})") from error
    lines = list(_parsed(text))
    if not lines:
        raise DataError(f"{path.name} holds no complete line", where=str(path))
    return lines


def _parsed(text: str) -> Iterator[Record]:
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def outlines(values: NDArray[Any], most: int) -> tuple[NDArray[np.float64], ...]:
    """Return the outer rings (n, 2) of at most ``most`` geometries given as WKB; what is no polygon is left out."""
    step = max(1, math.ceil(len(values) / most))
    geometries = shapely.from_wkb(values[::step], on_invalid="ignore")
    return rings(geometries)


def rings(geometries: Sequence[Any] | NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
    """Return the outer rings (n, 2) of polygons and multipolygons."""
    parts = shapely.get_parts(np.asarray([g for g in geometries if g is not None], dtype=object))
    polygons = [p for p in parts if shapely.get_type_id(p) == shapely.GeometryType.POLYGON and not shapely.is_empty(p)]
    return tuple(shapely.get_coordinates(shapely.get_exterior_ring(p)) for p in polygons)


def read_areas(path: Path) -> tuple[NDArray[np.float64], ...]:
    """Return the outer rings (n, 2) of a GeoJSON file in longitude and latitude.

    Raises:
        DataError: if it is no GeoJSON.
    """
    try:
        found = shapely.from_geojson(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, shapely.GEOSException) as error:
        raise DataError(f"{path.name} cannot be read as GeoJSON", where=f"{path} ({error})") from error
    return rings([found])
