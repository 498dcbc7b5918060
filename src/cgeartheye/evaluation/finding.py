"""Retrieval of the same place at another date, from shards with several dates.

P places, n queries (places x pairs), m gallery pictures of a pair (P).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.evaluation.describe import PIXELS, Described, Describer, PictureSet
from cgeartheye.evaluation.store import Column, load_column, piece
from cgeartheye.evaluation.table import Measured, SetResult
from cgeartheye.probes.retrieval import cosine, disturb, ranks, turned_thumbnails
from cgeartheye.seeding import hash_share
from cgeartheye.settings.evaluate import EvaluateSettings, RetrievalSet
from cgeartheye.shards.reader import ShardReader

TURNED = "pixels_turned"
"""Standardised grey pixels at the best of four turns."""
STANDARDISED = frozenset({"colour_mean_std"})


@dataclass(frozen=True)
class Asked:
    """Places and date pairs of a retrieval set."""

    reader: ShardReader
    places: tuple[int, ...]
    """Numbers of the places in the reader."""
    n_dates: tuple[int, ...]
    """Dates of each of the reader's places."""
    pairs: int
    seed: int
    disturbed: bool
    """Whether queries are turned and cropped."""

    def dates(self, place: int, pair: int) -> tuple[int, int]:
        """Return (date of the query, date of the gallery) of a place for a pair."""
        n = self.n_dates[place]
        return pair % n, (pair + 1) % n

    def name(self, place: int, date: int) -> str:
        """Return the name of one chip."""
        return f"{self.reader.place(place)}.d{date}"

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the gallery of every pair, then the queries of every pair, (H, W, 3) uint8."""
        for pair in range(self.pairs):
            for place in self.places:
                yield self.reader.decode(place, self.dates(place, pair)[1])
        for pair in range(self.pairs):
            for place in self.places:
                date = self.dates(place, pair)[0]
                image = self.reader.decode(place, date)
                yield disturb(image, seed=self.seed, name=self.name(place, date)) if self.disturbed else image


def find_places(wanted: RetrievalSet, settings: EvaluateSettings, out: Path, *, describer: Describer) -> SetResult:
    """Describe gallery and queries by every column and rank the gallery for each query.

    Raises:
        InputError, DataError: if the shards cannot be read or fewer than two places have two dates.
    """
    asked = ask(wanted, settings.seed)
    count = 2 * asked.pairs * len(asked.places)
    size_px = wanted.size_px or _smallest_side(asked)
    pictures = PictureSet(wanted.name, asked.pictures, count, size_px, wanted.thumbnail_px)
    described = describer.describe(pictures, out / "features" / wanted.name)
    columns = [*describer.columns(pictures), Column(TURNED, PIXELS.readout, 0)]
    measured = _measure(columns, asked, described, out / "predictions" / wanted.name, thumbnail_px=wanted.thumbnail_px)
    groups = tuple(asked.reader.place(place) for _ in range(asked.pairs) for place in asked.places)
    how = "turned and cropped" if asked.disturbed else "as stored"
    told = f"{len(asked.places)} places, {asked.pairs} date pairs, {size_px} px, queries {how}, by place"
    return SetResult(wanted.name, told, groups, 1 / len(asked.places), measured)


def ask(wanted: RetrievalSet, seed: int) -> Asked:
    """Choose the places: those with two dates or more, the first ``places`` of them in the order of the hash of their names."""
    reader = ShardReader(wanted.curated or Path())
    n_dates = tuple(reader.n_dates().tolist())
    several = [i for i, n in enumerate(n_dates) if n >= 2]
    if len(several) < 2:
        raise DataError(
            "fewer than two places have two dates", where=str(wanted.curated), remedy="curate scenes of several dates"
        )
    chosen = sorted(several, key=lambda i: hash_share(reader.place(i), "retrieval"))[: wanted.places]
    return Asked(reader, tuple(sorted(chosen)), n_dates, wanted.pairs, seed, wanted.queries == "disturbed")


def _smallest_side(asked: Asked) -> int:
    shapes = [asked.reader.decode(place, asked.dates(place, 0)[1]).shape for place in asked.places[:16]]
    return min(int(side) for shape in shapes for side in shape[:2])


def _measure(
    columns: Sequence[Column], asked: Asked, described: Described, stem: Path, *, thumbnail_px: int
) -> tuple[Measured, ...]:
    found: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
    for column in columns:

        def make(column: Column = column) -> dict[str, object]:
            return _ranked(column, asked, described, thumbnail_px)

        path = piece(stem.with_name(f"{stem.name}.{column.stem}.retrieval.parquet"), make)  # type: ignore[arg-type] # columns
        found.setdefault((column.method, column.readout), []).append(np.array(load_column(path, "rank"), dtype=np.int64))
    measured = []
    for (method, readout), rows in found.items():
        rank = np.stack(rows)  # (S, n)
        measured.append(Measured(method, readout, "retrieval", "recall_at_1", (rank == 1).astype(np.float64)))
        measured.append(Measured(method, readout, "retrieval", "mean_reciprocal_rank", 1.0 / rank))
    return tuple(sorted(measured, key=lambda m: m.metric, reverse=True))


def _ranked(column: Column, asked: Asked, described: Described, thumbnail_px: int) -> dict[str, object]:
    places = len(asked.places)
    features = described.features(PIXELS if column.method == TURNED else column)
    gallery, queries = np.split(features, 2)  # each (pairs * P, d)
    if column.method in STANDARDISED:
        mean, scale = gallery.mean(axis=0), np.maximum(gallery.std(axis=0), 1e-12)
        gallery, queries = (gallery - mean) / scale, (queries - mean) / scale
    told: dict[str, list[object]] = {"name": [], "truth": [], "predicted": [], "rank": []}
    for pair in range(asked.pairs):
        part = slice(pair * places, (pair + 1) * places)
        turns = turned_thumbnails(queries[part], thumbnail_px) if column.method == TURNED else [queries[part]]
        similarity = np.max([cosine(turn, gallery[part]) for turn in turns], axis=0)  # (P, P)
        told["rank"] += ranks(similarity, np.arange(places)).tolist()
        told["name"] += [asked.name(place, asked.dates(place, pair)[0]) for place in asked.places]
        told["truth"] += [asked.reader.place(place) for place in asked.places]
        told["predicted"] += [asked.reader.place(asked.places[i]) for i in similarity.argmax(axis=1)]
    return dict(told)
