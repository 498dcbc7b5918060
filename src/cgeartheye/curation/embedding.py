"""Features of places, of which clusters are made: one chip a place, the best covered date."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cgeartheye.curation.pieces import Workers
from cgeartheye.files import atomic_path
from cgeartheye.probes.colour import joint_histogram
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import SHARD_FOLDER
from cgeartheye.shards.reader import decode_chip, read_rows

Features = NDArray[np.float32]


def embed_pieces(parts: Sequence[Path], out: Path, settings: CurateSettings, workers: Workers) -> dict[str, Any]:
    """Embed every place of the pieces whose index parts are ``parts``; those that ``out`` holds already are left as they are.

    Returns: what made the features (name, fingerprint, licence, readout, size), for manifest and report.
    """
    if settings.embedding.backbone == "colour":
        made = [features_of(part, out) for part in parts]
        workers.run(_embed_colour, made, lambda number: (parts[number], out), title="embeddings")
        return {"backbone": "colour", "readout": "root of the joint 8 x 8 x 8 colour histogram"}
    # loaded by name, so that a curation by colour and the processes that cut chips never load torch
    module = importlib.import_module("cgeartheye.curation.backbone_embedding")
    mine = [parts[number] for number in workers.mine(len(parts))]
    todo = [part for part in mine if not features_of(part, out).exists()]
    said: dict[str, Any] = module.embed_with_backbone(todo, out, settings, progress=workers.progress, done=len(mine) - len(todo))
    return said


def read_features(parts: Sequence[Path], out: Path) -> Features:
    """Return the features (P, d) float32 of all places, rows of unit length, in order of piece and place."""
    features = [np.load(features_of(part, out), allow_pickle=False) for part in parts]
    return np.concatenate([block for block in features if len(block)])


def features_of(part: Path, out: Path) -> Path:
    """Return where the features of a piece are kept."""
    return out / f"{part.stem}.npy"


def _embed_colour(part: Path, out: Path) -> None:
    save_array(features_of(part, out), _stack([joint_histogram(image) for image in anchor_chips(part)]))


def anchor_chips(part: Path) -> list[NDArray[np.uint8]]:
    """Decode each place's best covered date of one piece, (H, W, 3) uint8, ties to the earlier date."""
    rows: pa.Table = pq.read_table(part)
    places, nodata = rows["place"].to_pylist(), rows["q_nodata"].to_pylist()
    best: dict[str, int] = {}
    for row, place in enumerate(places):
        if place not in best or nodata[row] < nodata[best[place]]:
            best[place] = row
    return [
        decode_chip(data) for data in read_rows(part.parent.parent / SHARD_FOLDER, rows.take(pa.array(best.values(), pa.int64())))
    ]


def _stack(rows: Sequence[Features]) -> Features:
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array (any shape) as ``.npy``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)
