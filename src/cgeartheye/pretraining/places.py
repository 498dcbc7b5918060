"""Which chips a sample is made of: an anchor date and other dates of the same place, a function of the sample number.

M microbatches of a step, B samples and S season slots each; V seasonal views a sample at most; n places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.settings.pretrain_sections import SeasonSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.shards.sampler import WindowOrder, sample_index
from cgeartheye.transforms.draws import uniforms

_NO_DAY: Final = -(2**40)  # further from any date, and from none, than any gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The chips of a microbatch as rows of the index.

    Args:
        samples: (B,) int64 running sample numbers.
        anchors: (B,) int64 rows, one date a sample.
        season: (S,) int64 rows of other dates; filled slots come first, an empty one repeats the first anchor.
        place: (S,) int64, the sample in 0 .. B-1 that a slot belongs to.
        order: (S,) int64, which of its sample's seasonal views a slot is.
        weight: (S,) float32, 0 where a slot is empty; see :class:`cgeartheye.pretraining.batch.ViewBatch`.
    """

    samples: NDArray[np.int64]
    anchors: NDArray[np.int64]
    season: NDArray[np.int64]
    place: NDArray[np.int64]
    order: NDArray[np.int64]
    weight: NDArray[np.float32]

    @property
    def filled(self) -> NDArray[np.bool_]:
        """(S,) bool, True where a slot holds a seasonal view."""
        return self.weight > 0


class Places:
    """The places of a set of shards, and which of their dates may pair.

    Two dates pair if each is clear (``max_saturated``) and lies where the place's first date lies (``max_shift_px``), if they are
    of different quarters (``pair: quarter``), and no more than ``max_gap_days`` apart. A share or shift that the index does not
    know counts as 0; a date that it does not know is of no quarter and at no known gap, so it pairs only where neither is asked.

    Args:
        reader: the shards.
        season: what may pair; ``off`` pairs nothing.
        window: shards whose places are mixed at a time (:class:`cgeartheye.shards.sampler.WindowOrder`); None: all places.

    Raises:
        DataError: if there is no place.
    """

    def __init__(self, reader: ShardReader, season: SeasonSettings, *, window: int | None = None) -> None:
        if not len(reader):
            raise DataError(
                "there is no place to learn from", where=str(reader.folder), remedy="curate again with a wider selection"
            )
        self._reader = reader
        self._windows = None if window is None else WindowOrder(reader.shard_sizes(), window)
        self.starts, self.counts = reader.starts(), reader.n_dates()
        self.place_of_row: NDArray[np.int64] = np.repeat(np.arange(len(reader)), self.counts)
        self._views = season.views
        self._by_quarter, self._gap = season.pair == "quarter", season.max_gap_days
        table = reader.table(["quarter", "date", "shift_px", "shift_confidence", "q_saturated"])
        self.quarters: NDArray[np.int64] = table["quarter"].fill_null(0).to_numpy().astype(np.int64)
        self._days = table["date"].cast(pa.int32()).cast(pa.int64()).fill_null(_NO_DAY).to_numpy()
        self._fit = _sound(table, season) & (season.mode != "off")
        if self._by_quarter:
            self._fit &= self.quarters > 0
        if self._gap is not None:
            self._fit &= self._days != _NO_DAY
        self._partners = self._count_partners()

    def __len__(self) -> int:
        """Return the number of places."""
        return len(self.starts)

    @property
    def chips(self) -> int:
        """Number of chips of all places."""
        return len(self.place_of_row)

    def pairable(self) -> int:
        """Return the number of places in which some date has a partner."""
        return len(np.unique(self.place_of_row[self._partners > 0]))

    def slots(self, samples: int) -> int:
        """Return the season slots of so many samples: the expected seasonal views, rounded up, so that shapes never change."""
        views = np.minimum(self._partners, self._views) / self.counts[self.place_of_row]
        return math.ceil(float(samples * views.sum() / len(self)) - 1e-9)

    def draw(self, samples: NDArray[np.int64], *, seed: int, slots: int) -> tuple[Drawn, ...]:
        """Draw the chips of all microbatches of a step.

        Which chips a sample has depends on (seed, sample number) alone, how many of them find a slot also on its microbatch,
        their weight also on the step.

        Args:
            samples: (M, B) int64 running sample numbers, a row a microbatch.
            seed: the stage's seed.
            slots: S; if a microbatch has more seasonal views, the later ones of each place are left out first.

        Returns:
            M draws.
        """
        M, B = samples.shape
        places = self._at(samples.reshape(-1), seed=seed)
        dates = np.floor(uniforms(seed, "anchor", samples.reshape(-1), 1)[:, 0] * self.counts[places]).astype(np.int64)
        anchors = self.starts[places] + dates
        others = self._others(anchors, samples.reshape(-1), seed=seed)  # (M B, V)
        by_order = others.reshape(M, B, -1).transpose(0, 2, 1).reshape(M, -1)  # (M, V B): first views of all, then second ones
        slot = np.cumsum(by_order >= 0, axis=1) - 1
        piece, at = np.nonzero((by_order >= 0) & (slot < slots))
        order, place = np.divmod(at, B)
        season = np.repeat(anchors.reshape(M, B)[:, :1], slots, axis=1)
        parts = np.zeros((2, M, slots), dtype=np.int64)
        weight = np.zeros((M, slots), dtype=np.float32)
        where = (piece, slot[piece, at])
        season[where] = by_order[piece, at]
        parts[0][where], parts[1][where] = place, order
        weight[where] = _weights(piece * B + place, pieces=M)
        rows = zip(samples, anchors.reshape(M, B), season, *parts, weight, strict=True)
        names = ("samples", "anchors", "season", "place", "order", "weight")
        return tuple(Drawn(**dict(zip(names, row, strict=True))) for row in rows)

    def names(self, samples: NDArray[np.int64], *, seed: int) -> list[str]:
        """Return the names of the places of running sample numbers (n,) int64."""
        return [self._reader.place(place) for place in self._at(samples, seed=seed).tolist()]

    def _at(self, samples: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
        return sample_index(seed, samples, len(self)) if self._windows is None else self._windows.index(seed, samples)

    def _others(self, anchors: NDArray[np.int64], samples: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
        """Return (B, V) rows that may pair with ``anchors`` (B,), in random order, -1 where there is no more."""
        places = self.place_of_row[anchors]
        most = int(self.counts[places].max())
        column = np.arange(most)
        rows = np.minimum(self.starts[places][:, None] + column, self.chips - 1)
        fits = (column < self.counts[places][:, None]) & (rows != anchors[:, None]) & self._may_pair(anchors[:, None], rows)
        keys = np.where(fits, uniforms(seed, "season dates", samples, most), 2.0)
        order = np.argsort(keys, axis=1, kind="stable")[:, : self._views]
        chosen: NDArray[np.int64] = np.where(np.take_along_axis(fits, order, 1), np.take_along_axis(rows, order, 1), -1)
        return chosen

    def _may_pair(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows a and b, different dates of one place and of shapes that broadcast, may pair; symmetric."""
        fits = self._fit[a] & self._fit[b]
        if self._by_quarter:
            fits &= self.quarters[a] != self.quarters[b]
        if self._gap is not None:
            fits &= np.abs(self._days[a] - self._days[b]) <= self._gap
        return fits

    def _count_partners(self) -> NDArray[np.int64]:
        """Return for each chip the number of dates it may pair with, (chips,): every pair of a place is looked at once."""
        partners = np.zeros(self.chips, dtype=np.int64)
        last = (self.starts + self.counts - 1)[self.place_of_row]
        rows = np.arange(self.chips, dtype=np.int64)
        for step in range(1, int(self.counts.max())):
            rows = rows[rows + step <= last[rows]]
            pairs = rows[self._may_pair(rows, rows + step)]
            partners[pairs] += 1  # no row twice in `pairs`
            partners[pairs + step] += 1
        return partners


def _sound(table: pa.Table, season: SeasonSettings) -> NDArray[np.bool_]:
    """Return which chips neither lie surely elsewhere nor are saturated, (chips,)."""
    shift = table["shift_px"].fill_null(0.0).to_numpy()  # null where it is not certain
    saturated = table["q_saturated"].fill_null(0.0).to_numpy()
    sound: NDArray[np.bool_] = ~(shift > season.max_shift_px) & ~(saturated > season.max_saturated)
    return sound


def _weights(place: NDArray[np.int64], *, pieces: int) -> NDArray[np.float32]:
    """Return the weights of seasonal views by their place in the step, (views,): equal for places, summing to ``pieces``."""
    _, inverse, views = np.unique(place, return_inverse=True, return_counts=True)
    weights: NDArray[np.float32] = (pieces / max(len(views), 1) / views[inverse]).astype(np.float32)
    return weights
