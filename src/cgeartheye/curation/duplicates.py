"""Places that show the same picture: an index finds candidates, pixels decide, the best one is kept.

P places, then E excluded pictures, are numbered as one list; the excluded ones are kept first and never stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cgeartheye.clustering import candidates as index
from cgeartheye.clustering.candidates import Candidates, distinct, keep_first
from cgeartheye.clustering.neighbours import CHUNK_ROWS
from cgeartheye.curation.embedding import anchor_rows, save_array
from cgeartheye.curation.pieces import Workers
from cgeartheye.geometry.overlap import overlapping_squares
from cgeartheye.metrics.likeness import INVERSE, compare, composed, grey_thumbnail, oriented, perceptual_hash
from cgeartheye.seeding import derive
from cgeartheye.settings.curate_duplicates import DuplicateSettings
from cgeartheye.shards.format import SHARD_FOLDER
from cgeartheye.shards.reader import decode_chip, read_rows

PAIRS_PER_PIECE: Final = 512
"""Candidates decided by one task: its pictures of 128 px take up to 64 MB."""
LEAVES_PER_PIECE: Final = 256
ROUNDS: Final = 4
"""Rounds of deciding: the index's candidates, then those that follow from what was found, until there are none [ours]."""
VISITED: Final = 2
"""Clusters beside its own in which a place is compared, those nearest to the place itself [ours]."""
AROUND: Final = 16
"""Clusters nearest to a cluster, of which those nearest to each of its places are chosen [ours]."""
_VISITING_ROWS: Final = 512
_DECODED_PX: Final = 256
"""The decoder itself shrinks chips while their shorter side stays above this: twice the side that is compared."""
_SIGNATURE: Final = np.dtype([("hash", "<u8"), ("digest", "<u8"), ("std", "<f4")])


@dataclass(frozen=True)
class Shown:
    """Pictures that are compared: a folder of pieces, the row of each place's best date, and its features.

    Args:
        folder: of pieces.
        rows: one index row a place, in order of piece and place.
        n_dates: (n,) dates of each place.
        features: file of (n, d) rows of unit length.
        clusters: (n,) leaf of each place.
    """

    folder: Path
    rows: pa.Table
    n_dates: NDArray[np.int64]
    features: Path
    clusters: NDArray[np.int32]


@dataclass(frozen=True)
class Duplicates:
    """Which of P places are dropped.

    Args:
        same_as: (P,) int64, the row of ``names`` that a dropped place shows again, -1 for kept places.
        likeness: (P,) float32, correlation with it; NaN for kept places and where the ground or the bytes decided.
        names: of P places, then of excluded pictures.
    """

    same_as: NDArray[np.int64]
    likeness: NDArray[np.float32]
    names: list[str]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(P,) bool, True for places that are kept."""
        return self.same_as < 0

    @property
    def excluded(self) -> NDArray[np.bool_]:
        """(P,) bool, True for places that show an excluded picture."""
        return self.same_as >= len(self.same_as)

    def rejected(self) -> list[dict[str, Any]]:
        """Return the rows of ``rejected.parquet``."""
        return [
            {"place": self.names[at], "scene": None, "date": None, "reason": self._reason(at)}
            for at in np.flatnonzero(~self.usable).tolist()
        ]

    def _reason(self, at: int) -> str:
        kind = "excluded: shows" if self.excluded[at] else "near duplicate of"
        how = "" if np.isnan(self.likeness[at]) else f", correlation {self.likeness[at]:.3f}"
        return f"{kind} {self.names[self.same_as[at]]}{how}"


def find_duplicates(
    places: Shown, excluded: Shown | None, settings: DuplicateSettings, work: Path, workers: Workers
) -> Duplicates:
    """Find places that show an excluded picture, or what a better place shows.

    Better is: more dates, more pixels, less without data, more bytes; ties go by a hash of the name. Every step is a list of
    pieces in ``work``, of which those that are there are not made again.

    Args:
        places: P places.
        excluded: E pictures whose likes are dropped whatever their quality; None: none.
        settings: limits.
        work: folder of the steps' results.
        workers: do the steps.
    """
    shown = [places] if excluded is None else [places, excluded]
    rows = pa.concat_tables([each.rows for each in shown])
    names, n, own = rows["place"].to_pylist(), len(rows), len(places.rows)
    rank = _rank(rows, np.concatenate([each.n_dates for each in shown]), own, names)
    signs = _signatures(shown, work / "signatures", workers)
    best = _best_of_bytes(signs["digest"], rank)  # copies of the same bytes share one fate, so that one of them is compared
    comparable = np.flatnonzero((best == np.arange(n)) & (signs["std"] >= settings.min_std))
    hashes = work / "hashes.npy"
    if not hashes.exists():
        save_array(hashes, signs["hash"][comparable])
    candidates = distinct(
        [_by_bands(hashes, settings, work, workers), _by_clusters(shown, hashes, comparable, settings, work, workers)]
    )
    candidates[:, :2] = comparable[candidates[:, :2]]
    candidates = candidates[(candidates[:, 0] < own) & (settings.enabled | (candidates[:, 1] >= own))]
    ground = _same_ground(places.rows, settings) if settings.enabled else np.empty((0, 2), np.int64)
    edges, strength = _same_pictures(shown, rows, candidates, settings, work / "decisions" / "0", workers)
    dropped_for = keep_first(np.concatenate([best[ground], edges[:, :2]]), rank)
    for number in range(1, ROUNDS):
        further = _through_dropped(edges, dropped_for, candidates)
        if not len(further):
            break
        candidates = np.concatenate([candidates, further])
        found = _same_pictures(shown, rows, further, settings, work / "decisions" / str(number), workers)
        edges, strength = np.concatenate([edges, found[0]]), np.concatenate([strength, found[1]])
        dropped_for = keep_first(np.concatenate([best[ground], edges[:, :2]]), rank)
    copies = np.flatnonzero((best != np.arange(n)) & (dropped_for[best] < 0) & (settings.enabled | (best >= own)))
    dropped_for = dropped_for[best]
    dropped_for[copies] = best[copies]
    known = {(i, j): value for (i, j), value in zip(edges[:, :2].tolist(), strength.tolist(), strict=True)}
    pairs = zip(best.tolist(), dropped_for.tolist(), strict=True)
    likeness = [known.get((min(i, j), max(i, j)), np.nan) for i, j in pairs]
    return Duplicates(dropped_for[:own], np.array(likeness[:own], np.float32), names)


def _same_pictures(
    shown: Sequence[Shown], rows: pa.Table, candidates: Candidates, settings: DuplicateSettings, work: Path, workers: Workers
) -> tuple[Candidates, NDArray[np.float32]]:
    """Return the candidates (m, 3) that are the same picture and their correlation (m,)."""
    measured = _decide(shown, rows, candidates, work, workers)
    same = (measured[:, 0] >= settings.correlation) & (measured[:, 1] >= settings.detail)
    return candidates[same], measured[same, 0]


def _through_dropped(edges: Candidates, dropped_for: NDArray[np.int64], compared: Candidates) -> Candidates:
    """Return candidates that the index did not name: a kept picture and the one for which a picture like it was dropped.

    A brightened and a shifted copy are each like the original, but too unlike each other for their hashes; pixels decide here
    too.
    """
    both = np.concatenate([edges, np.column_stack([edges[:, 1], edges[:, 0], np.array(INVERSE)[edges[:, 2]]])])
    turn = {(i, j): o for i, j, o in both.tolist()}  # picture j in orientation o is picture i
    known, found = set(map(tuple, compared[:, :2].tolist())), {}
    for middle, kept, o in both[(dropped_for[both[:, 0]] >= 0) & (dropped_for[both[:, 1]] < 0)].tolist():
        better = int(dropped_for[middle])
        pair = (min(better, kept), max(better, kept))
        if better != kept and pair not in known and (better, middle) in turn:
            way = composed(o, turn[better, middle])
            found[pair] = way if better < kept else INVERSE[way]
    return np.array([(*pair, o) for pair, o in sorted(found.items())], np.int64).reshape(-1, 3)


def _rank(rows: pa.Table, n_dates: NDArray[np.int64], own: int, names: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each row in the order of preference, excluded pictures first."""
    hashed = np.array([derive(0, "duplicates", name) for name in names], np.uint64)
    pixels = rows["width"].to_numpy().astype(np.int64) * rows["height"].to_numpy()
    nodata, coded = rows["q_nodata"].fill_null(0).to_numpy(), rows["length"].to_numpy()
    order = np.lexsort((hashed, -coded.astype(np.int64), nodata, -pixels, -n_dates, np.arange(len(rows)) < own))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows))
    return rank


def _signatures(shown: Sequence[Shown], out: Path, workers: Workers) -> NDArray[Any]:
    parts = [part for each in shown for part in sorted((each.folder / "parts").glob("*.parquet"))]
    made = [out / f"{number:06d}.npy" for number in range(len(parts))]
    _run(workers, _sign, list(zip(parts, made, strict=True)), title="hashes")
    return np.concatenate([np.empty(0, _SIGNATURE), *(np.load(path, allow_pickle=False) for path in made)])


def _run(workers: Workers, work: Any, entries: Sequence[tuple[Any, ...]], *, title: str) -> None:  # noqa: ANN401 - a function
    """Make the pieces that are not there; the last argument of each is the file it writes."""
    workers.run(work, [entry[-1] for entry in entries], lambda number: entries[number], title=title)


def _sign(part: Path, made: Path) -> None:
    rows = anchor_rows(pq.read_table(part))
    signs = np.empty(len(rows), _SIGNATURE)
    for at, (data, size) in enumerate(zip(read_rows(part.parent.parent / SHARD_FOLDER, rows), _short_sides(rows), strict=True)):
        grey = _thumbnail(data, size)
        digest = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
        signs[at] = (perceptual_hash(grey), digest, grey.std(dtype=np.float64))
    save_array(made, signs)


def _short_sides(rows: pa.Table) -> list[int]:
    return [min(size) for size in zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)]


def _thumbnail(data: bytes, short_side: int) -> NDArray[np.float32]:
    divisor = next((d for d in (8, 4, 2) if short_side >= d * _DECODED_PX), 1)
    return grey_thumbnail(decode_chip(data, divisor=divisor))


def _best_of_bytes(digests: NDArray[np.uint64], rank: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for every picture the best one of the same bytes, (n,) int64, itself if there is no other."""
    order = np.lexsort((rank, digests))
    _, first, which = np.unique(digests[order], return_index=True, return_inverse=True)
    best = np.empty(len(order), np.int64)
    best[order] = order[first[which]]
    return best


def _same_ground(rows: pa.Table, settings: DuplicateSettings) -> NDArray[np.int64]:
    lon, lat, gsd_m = (rows[name].to_numpy(zero_copy_only=False).astype(float) for name in ("lon", "lat", "gsd_m"))
    side_m = gsd_m * np.array(_short_sides(rows), float)
    known = np.flatnonzero(np.isfinite(lon) & np.isfinite(lat) & np.isfinite(side_m))
    return np.asarray(known[overlapping_squares(lon[known], lat[known], side_m[known], settings.overlap)], np.int64)


def _by_bands(hashes: Path, settings: DuplicateSettings, work: Path, workers: Workers) -> Candidates:
    made = [work / "bands" / f"{band}.npy" for band in range(index.BANDS)]
    _run(workers, _search_band, [(hashes, settings, band, path) for band, path in enumerate(made)], title="like hashes")
    return distinct([np.load(path, allow_pickle=False) for path in made])


def _search_band(hashes: Path, settings: DuplicateSettings, band: int, made: Path) -> None:
    mapped = np.load(hashes, mmap_mode="r", allow_pickle=False)
    save_array(made, index.band_candidates(mapped, band, radius=settings.radius, window=settings.window))


def _by_clusters(
    shown: Sequence[Shown], hashes: Path, comparable: NDArray[np.int64], settings: DuplicateSettings, work: Path, workers: Workers
) -> Candidates:
    """Return candidates inside clusters and their neighbours, numbered as the hashes are."""
    rows = Stacked.of([each.features for each in shown])
    leaves = np.concatenate([each.clusters for each in shown])[comparable]
    means = mean_directions(rows, comparable, leaves)
    compared = np.column_stack([leaves, visited_leaves(rows, comparable, leaves, means)])
    order = np.argsort(compared, axis=None, kind="stable")
    bounds = np.searchsorted(compared.ravel()[order], np.arange(len(means) + 1))
    groups = [(leaf, np.sort(order[a:b] // compared.shape[1])) for leaf, (a, b) in enumerate(pairwise(bounds))]
    blocks = [groups[start : start + LEAVES_PER_PIECE] for start in range(0, len(groups), LEAVES_PER_PIECE)]
    made = [work / "clusters" / f"{number:06d}.npy" for number in range(len(blocks))]
    entries = [
        (hashes, rows, [(at, leaves[at] == leaf, comparable[at]) for leaf, at in block], settings, path)
        for block, path in zip(blocks, made, strict=True)
    ]
    _run(workers, _search_leaves, entries, title="like places")
    return distinct([np.load(path, allow_pickle=False) for path in made])


def _search_leaves(
    hashes: Path,
    rows: Stacked,
    groups: Sequence[tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]],
    settings: DuplicateSettings,
    made: Path,
) -> None:
    mapped = np.load(hashes, mmap_mode="r", allow_pickle=False)
    close, found = index.Closeness(settings.cluster_radius, settings.alike_radius, settings.alike), []
    for at, own, numbers in groups:
        pairs = index.cluster_candidates(mapped[at], rows.take(numbers), own, close, window=4 * settings.window)
        pairs[:, :2] = at[pairs[:, :2]]  # ascending, so that the order within a pair stays
        found.append(pairs)
    save_array(made, distinct(found))


@dataclass(frozen=True)
class Stacked:
    """Several ``.npy`` files of rows (n, d) as one, mapped when read; a process gets the paths, not the rows."""

    paths: tuple[Path, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Stacked:
        """Number the rows of ``paths`` one file after the other."""
        lengths = [len(np.load(path, mmap_mode="r", allow_pickle=False)) for path in paths]
        return cls(tuple(paths), tuple(np.cumsum([0, *lengths]).tolist()))

    def take(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return rows by ascending numbers, (m, d) float32."""
        parts = []
        for path, start, end in zip(self.paths, self.starts, self.starts[1:], strict=False):
            inside = numbers[(numbers >= start) & (numbers < end)]
            if inside.size:
                parts.append(np.load(path, mmap_mode="r", allow_pickle=False)[inside - start].astype(np.float32))
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def mean_directions(rows: Stacked, numbers: NDArray[np.int64], leaves: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the mean of each of k leaves at unit length, (k, d) float32, 0 for an empty one; rows are streamed.

    Args:
        rows: of unit length.
        numbers: (n,) ascending, the rows that count.
        leaves: (n,) their leaf.
    """
    sums = np.zeros((int(leaves.max(initial=-1)) + 1, rows.take(numbers[:1]).shape[1]))
    for start in range(0, len(numbers), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        x, order = rows.take(numbers[chunk]).astype(np.float64), np.argsort(leaves[chunk], kind="stable")
        present, first = np.unique(leaves[chunk][order], return_index=True)
        sums[present] += np.add.reduceat(x[order], first, axis=0)
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), np.float32)


def visited_leaves(
    rows: Stacked, numbers: NDArray[np.int64], leaves: NDArray[np.int32], means: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return the leaves beside its own that are nearest to each row, (n, at most :data:`VISITED`), of those around its own.

    Two nearly equal rows on both sides of a border visit one another, however many borders their leaves have; the nearest leaves
    of a leaf as a whole miss some of them.

    Args:
        rows: of unit length.
        numbers: (n,) ascending, the rows that count.
        leaves: (n,) their leaf.
        means: (k, d) unit means of the leaves.
    """
    around, found = _nearest_leaves(means), [np.empty((0, min(VISITED, max(0, len(means) - 1))), np.int64)]
    for start in range(0, len(numbers), _VISITING_ROWS):
        chunk = slice(start, start + _VISITING_ROWS)
        near = around[leaves[chunk]]
        cosines = np.einsum("nd,nad->na", rows.take(numbers[chunk]), means[near])
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :VISITED]
        found.append(np.take_along_axis(near, nearest, axis=1))
    return np.concatenate(found)


def _nearest_leaves(means: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return for each of k unit means (k, d) the :data:`AROUND` others nearest to it, (k, at most that many)."""
    k, wanted = len(means), min(AROUND, len(means) - 1)
    near = []
    for start in range(0, k if wanted > 0 else 0, 1024):
        far = -(means[start : start + 1024] @ means.T)
        far[np.arange(len(far)), np.arange(len(far)) + start] = np.inf
        near.append(np.argpartition(far, wanted - 1, axis=1)[:, :wanted])
    return np.concatenate(near).astype(np.int64) if near else np.empty((k, 0), np.int64)


def _decide(shown: Sequence[Shown], rows: pa.Table, candidates: Candidates, out: Path, workers: Workers) -> NDArray[np.float32]:
    """Return correlation and detail of every candidate, (m, 2) float32."""
    blocks = [candidates[start : start + PAIRS_PER_PIECE] for start in range(0, len(candidates), PAIRS_PER_PIECE)]
    made = [out / f"{number:06d}.npy" for number in range(len(blocks))]
    ends = np.cumsum([len(each.rows) for each in shown])
    entries = []
    for block, path in zip(blocks, made, strict=True):
        needed = np.unique(block[:, :2])
        owner = np.searchsorted(ends, needed, side="right")
        sources = [(each.folder / SHARD_FOLDER, rows.take(needed[owner == at])) for at, each in enumerate(shown)]
        local = np.column_stack([np.searchsorted(needed, block[:, :2]), block[:, 2]])
        entries.append((sources, local, path))
    _run(workers, _compare, entries, title="pixels")
    return np.concatenate([np.empty((0, 2), np.float32), *(np.load(path, allow_pickle=False) for path in made)])


def _compare(sources: Sequence[tuple[Path, pa.Table]], candidates: Candidates, made: Path) -> None:
    greys = [
        _thumbnail(data, size)
        for folder, rows in sources
        for data, size in zip(read_rows(folder, rows), _short_sides(rows), strict=True)
    ]
    likeness = [compare(greys[i], oriented(greys[j], int(o))) for i, j, o in candidates.tolist()]
    save_array(made, np.array(likeness, np.float32).reshape(-1, 2))
