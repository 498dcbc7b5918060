"""Features of places, of which clusters are made: one chip a place, the best covered date."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
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

Features = NDArray[np.float16]


def embed_pieces(parts: Sequence[Path], out: Path, settings: CurateSettings, workers: Workers) -> dict[str, Any]:
    """Embed every place of the pieces whose index parts are ``parts``; those that ``out`` holds already are left as they are.

    A piece becomes one ``.npy`` (places, d) float16, rows of unit length, in order of place.

    Returns: what made the features (name, fingerprint, licence, readout, transform, blocks), for manifest and report.
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


def read_features(parts: Sequence[Path], out: Path, chosen: NDArray[np.bool_] | None = None) -> Features:
    """Return the features (P, d) of places in order of piece and place, mapped from one file that is made of the pieces once.

    Args:
        parts: index parts of the pieces.
        out: folder of their features.
        chosen: of all places of the pieces, the P that are wanted; None wants all.

    Nothing but the pages that are looked at lies in memory, so that P may be millions.
    """
    whole = out / ("features.npy" if chosen is None else "features_chosen.npy")
    if not whole.exists():
        pieces = [np.load(features_of(part, out), mmap_mode="r", allow_pickle=False) for part in parts]
        ends = np.cumsum([len(piece) for piece in pieces])
        chosen = np.ones(int(ends[-1]), bool) if chosen is None else chosen
        wanted = np.split(chosen, ends[:-1])
        filled = [(piece, these) for piece, these in zip(pieces, wanted, strict=True) if len(piece)]
        shape = (int(chosen.sum()), filled[0][0].shape[1] if filled else 0)
        with atomic_path(whole) as temporary, temporary.open("wb") as handle:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float16)), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(handle, header)
            for piece, these in filled:
                handle.write(np.ascontiguousarray(piece[these], np.float16).tobytes())
    return np.asanyarray(np.load(whole, mmap_mode="r", allow_pickle=False))


def level_widths(made: Mapping[str, Any]) -> list[int]:
    """Return the width of each level's part of a row, in order, from what :func:`embed_pieces` says."""
    widths: dict[int, int] = {}
    for block in made.get("blocks", ()):
        widths[block["level"]] = widths.get(block["level"], 0) + block["width"]
    return list(widths.values())


def features_of(part: Path, out: Path) -> Path:
    """Return where the features of a piece are kept."""
    return out / f"{part.stem}.npy"


def _embed_colour(part: Path, out: Path) -> None:
    rows = [joint_histogram(image) for image in anchor_chips(part)]
    save_array(features_of(part, out), np.stack(rows).astype(np.float16) if rows else np.zeros((0, 0), np.float16))


def anchor_rows(rows: pa.Table) -> pa.Table:
    """Return the row of each place's best covered date, ties to the earlier date, of index rows with places adjacent."""
    starts = np.flatnonzero(rows["date_index"].to_numpy() == 0)
    place = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(rows)))
    order = np.lexsort((np.arange(len(rows)), rows["q_nodata"].fill_null(0).to_numpy(), place))
    return rows.take(pa.array(order[starts], pa.int64()))


def anchor_chips(part: Path) -> Iterator[NDArray[np.uint8]]:
    """Decode each place's best covered date of one piece, (H, W, 3) uint8, one after the other."""
    rows = anchor_rows(pq.read_table(part))
    for data in read_rows(part.parent.parent / SHARD_FOLDER, rows):
        yield decode_chip(data)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array (any shape) as ``.npy``, atomically."""
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, array, allow_pickle=False)
