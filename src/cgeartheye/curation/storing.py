"""Copy the kept places out of their pieces into the final shards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cgeartheye.curation.embedding import save_array
from cgeartheye.curation.pieces import Workers
from cgeartheye.curation.selection import Selection
from cgeartheye.files import write_json
from cgeartheye.shards.format import INDEX_SCHEMA, POSITION_COLUMNS, SHARD_FOLDER, Chip, Place, shard_name
from cgeartheye.shards.reader import read_rows
from cgeartheye.shards.writer import plan_shards, write_index, write_shard, write_table
from cgeartheye.units import BYTES_PER_MB

_OF_PLACE: Final = ("crs", "x0", "y0", "lon", "lat", "cell", "region", "land_cover", "elevation_m", "stratum", "label", "gsd_m")
_OF_CHIP: Final = tuple(name for name in INDEX_SCHEMA.names if name not in {*_OF_PLACE, *POSITION_COLUMNS, "cluster"})


@dataclass(frozen=True)
class Store:
    """Where chips come from and where shards go."""

    pieces: Path
    work: Path
    out: Path
    shard_mb: float


def store_places(rows: pa.Table, selection: Selection, features: NDArray[np.floating], store: Store, workers: Workers) -> int:
    """Write ``shards/``, ``embeddings/`` and ``index.parquet``; shards whose index part exists are left as they are.

    Args:
        rows: of all chips of the pieces, places adjacent.
        selection: which of the P places are kept, in which order.
        features: (P, d), mapped or in memory.
        store: folders and sizes.
        workers: write the shards.

    Returns: number of shards.
    """
    starts = np.flatnonzero(rows["date_index"].to_numpy() == 0)
    ends = np.append(starts[1:], len(rows))
    lengths = rows["length"].to_numpy()
    sizes = [lengths[starts[i] : ends[i]].tolist() for i in selection.order]
    plan = plan_shards(sizes, round(store.shard_mb * BYTES_PER_MB))

    def shard(number: int) -> tuple[Any, ...]:
        chosen = selection.order[plan[number].start : plan[number].stop]
        positions = np.concatenate([np.arange(starts[i], ends[i]) for i in chosen])
        clusters = [int(selection.clusters[i]) for i in chosen]
        return store, number, rows.take(positions), clusters, features[chosen].astype(np.float16)

    workers.run(_store_shard, [_part(store, number) for number in range(len(plan))], shard, title="shards")
    write_index(store.out, (pq.read_table(_part(store, number)) for number in range(len(plan))))
    return len(plan)


def note_embeddings(out: Path, made: dict[str, Any], width: int) -> None:
    """Write ``embeddings/embeddings.json``: what made the arrays beside it."""
    array = {"dtype": "float16", "width": width, "rows": "places of the shard of the same number, in order"}
    write_json(out / "embeddings" / "embeddings.json", {"schema_version": 1, **made, **array})


def _part(store: Store, number: int) -> Path:
    return store.work / "index" / f"{number:06d}.parquet"


def _store_shard(store: Store, number: int, rows: pa.Table, clusters: Sequence[int], features: NDArray[np.float16]) -> None:
    table = write_shard(store.out / SHARD_FOLDER / shard_name(number), _places(rows, clusters, store.pieces / SHARD_FOLDER))
    save_array(store.out / "embeddings" / f"{number:06d}.npy", features)
    write_table(_part(store, number), table)


def _places(rows: pa.Table, clusters: Sequence[int], shards: Path) -> Iterator[Place]:
    records = rows.drop_columns(["shard", "offset", "length", "crc32"]).to_pylist()
    numbers = iter(clusters)
    chips: list[Chip] = []
    for position, (record, jpeg) in enumerate(zip(records, read_rows(shards, rows), strict=True)):
        chips.append(Chip(jpeg, {name: record[name] for name in _OF_CHIP if record[name] is not None}))
        if position + 1 == len(records) or records[position + 1]["date_index"] == 0:
            shared = {name: record[name] for name in _OF_PLACE if record[name] is not None}
            yield Place(record["place"], tuple(chips), {**shared, "cluster": next(numbers)})
            chips = []
