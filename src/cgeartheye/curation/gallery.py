"""Small pictures of what the clusters hold and of what was dropped, taken while the chips of all places are still there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from cgeartheye.curation.filtering import encode_jpeg
from cgeartheye.curation.selection import Selection
from cgeartheye.seeding import derive
from cgeartheye.shards.format import SHARD_FOLDER
from cgeartheye.shards.reader import decode_chip, read_rows
from cgeartheye.shards.writer import write_table

CLUSTERS: Final = 4
"""Clusters shown from each end of the order by size."""
PICTURES: Final = 6
"""Places shown of a cluster."""
DROPPED: Final = 24
_SIDE_PX: Final = 112
_QUALITY: Final = 80
SCHEMA: Final = pa.schema(
    [
        ("group", pa.string()),
        ("cluster", pa.int32()),
        ("size", pa.int64()),
        ("place", pa.string()),
        ("kept", pa.bool_()),
        ("jpeg", pa.binary()),
    ],
    metadata={"schema_version": "1"},
)


@dataclass(frozen=True)
class _Shown:
    """One picture: which group it stands in, and the number of its place."""

    group: str
    place: int


def write_gallery(out: Path, chips: Path, rows: pa.Table, selection: Selection, *, seed: int) -> None:
    """Write ``gallery.parquet``: places of the largest and the smallest clusters, and places that were dropped.

    Args:
        out: the stage's folder.
        chips: folder of all pieces.
        rows: of all chips, a place's adjacent.
        selection: of the places, in the same order.
        seed: decides which places of a cluster are shown.
    """
    starts = np.flatnonzero(rows["date_index"].to_numpy() == 0)
    names = rows["place"].take(pa.array(starts)).to_pylist()
    shown = list(_choose(selection, names, seed))
    sizes = np.bincount(selection.clusters[selection.clusters >= 0], minlength=1)
    pictures = read_rows(chips / SHARD_FOLDER, rows.take(pa.array([starts[one.place] for one in shown], pa.int64())))
    table = [_row(one, data, names, selection, sizes) for one, data in zip(shown, pictures, strict=True)]
    write_table(out / "gallery.parquet", pa.Table.from_pylist(table, schema=SCHEMA))


def _choose(selection: Selection, names: Sequence[str], seed: int) -> Iterator[_Shown]:
    clusters = selection.clusters
    sizes = np.bincount(clusters[clusters >= 0], minlength=1)
    by_size = [int(number) for number in np.argsort(-sizes, kind="stable") if sizes[number]]
    ends = (by_size[:CLUSTERS], by_size[max(CLUSTERS, len(by_size) - CLUSTERS) :])
    for group, members in zip(("largest", "smallest"), ends, strict=True):
        for number in members:
            yield from (_Shown(group, i) for i in _first(np.flatnonzero(clusters == number), names, seed)[:PICTURES])
    dropped = _first(np.flatnonzero(~selection.kept), names, seed)[:DROPPED]
    yield from (_Shown("dropped", i) for i in sorted(dropped, key=lambda i: (-sizes[clusters[i]], clusters[i], i)))


def _first(places: NDArray[np.int64], names: Sequence[str], seed: int) -> list[int]:
    """Return places (numbers) in an order that a hash of their names decides."""
    return sorted(places.tolist(), key=lambda i: derive(seed, "gallery", names[i]))


def _row(one: _Shown, data: bytes, names: Sequence[str], selection: Selection, sizes: NDArray[np.int64]) -> dict[str, Any]:
    cluster = int(selection.clusters[one.place])
    image = Image.fromarray(decode_chip(data))
    image.thumbnail((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
    return {
        "group": one.group,
        "cluster": cluster,
        "size": int(sizes[cluster]),
        "place": names[one.place],
        "kept": bool(selection.kept[one.place]),
        "jpeg": encode_jpeg(np.asarray(image), _QUALITY),
    }
