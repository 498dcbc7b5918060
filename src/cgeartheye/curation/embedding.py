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


def embed(folder: Path, out: Path, settings: CurateSettings, workers: Workers) -> tuple[Features, dict[str, Any]]:
    """Embed every place of a folder of pieces, piece by piece; pieces that ``out`` holds already are not embedded again.

    Returns: (P, d) float32 rows of unit length in order of piece and place, and what made them (name, fingerprint,
        licence, readout, size), for manifest and report.
    """
    parts = sorted((folder / "parts").glob("*.parquet"))
    todo = [part for part in parts if not features_of(part, out).exists()]
    done = len(parts) - len(todo)
    if settings.embedding.backbone == "colour":
        entries = [(part, out) for part in todo]
        workers.run(_embed_colour, entries, title="embeddings", done=done)
        made: dict[str, Any] = {"backbone": "colour", "readout": "root of the joint 8 x 8 x 8 colour histogram"}
    else:
        # loaded by name, so that a curation by colour and the processes that cut chips never load torch
        module = importlib.import_module("cgeartheye.curation.backbone_embedding")
        made = module.embed_with_backbone(todo, out, settings, progress=workers.progress, done=done)
    features = [np.load(features_of(part, out), allow_pickle=False) for part in parts]
    return np.concatenate([block for block in features if len(block)]), made


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
