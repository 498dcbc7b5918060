"""Features of places whose best covered date was cut: made anew from the best of the dates that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cgeartheye.curation.embedding import anchor_rows, embed_pieces, features_of, save_array
from cgeartheye.curation.pieces import Workers
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.writer import write_table

_TELLING: Final = ["date_index", "offset", "q_nodata"]


@dataclass(frozen=True)
class Embedded:
    """Pieces and their features: the index parts, and the folder of the features of all their dates."""

    parts: Sequence[Path]
    features: Path


def embed_anew(rows: pa.Table, shown: pa.Table, pieces: Embedded, settings: CurateSettings, workers: Workers) -> Path:
    """Return a folder of features in which no place is known by a date that was cut; ``pieces.features`` if none is.

    Features of pieces stay as they are, because another run may take them over.

    Args:
        rows: index rows of all chips of the pieces, places adjacent.
        shown: those of the same places that stay.
        pieces: of the places.
        settings: of the embedding.
        workers: embed.
    """
    before, after = (anchor_rows(table.select(_TELLING))["offset"] for table in (rows, shown))
    changed = pc.not_equal(before, after).to_numpy()
    if not changed.any():
        return pieces.features
    place = np.cumsum(shown["date_index"].to_numpy() == 0) - 1
    lengths = [len(np.load(features_of(part, pieces.features), mmap_mode="r")) for part in pieces.parts]
    starts = np.cumsum([0, *lengths])
    anew, whole = pieces.features / "anew", pieces.features / "shown"
    todo = []
    for part, first, stop in zip(pieces.parts, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if changed[first:stop].any():
            todo.append(part.parent.parent / "parts_anew" / part.name)
            inside = changed[place] & (place >= first) & (place < stop)
            write_table(todo[-1], shown.filter(pa.array(inside)))
    embed_pieces(todo, anew, settings, workers)
    for part, first, stop in zip(pieces.parts, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        features = np.load(features_of(part, pieces.features))
        if changed[first:stop].any():
            features[changed[first:stop]] = np.load(features_of(part, anew))
        save_array(features_of(part, whole), features)
    return whole
