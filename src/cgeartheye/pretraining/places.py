"""Which chips a sample is made of: an anchor date and other dates of the same place, a function of the sample number.

B batch, S season slots, n places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.settings.pretrain import SeasonSettings
from cgeartheye.shards.reader import ShardReader
from cgeartheye.shards.sampler import sample_index
from cgeartheye.transforms.draws import ranks, uniforms

CERTAIN: Final = 1.4
"""Registration peaks this much above the second one are never wrong; below, a shift is unknown rather than large [ours]."""
_QUARTERS: Final = 5  # 0 is unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """The chips of a batch as rows of the index.

    Args:
        samples: (B,) int64 running sample numbers.
        anchors: (B,) int64 rows, one date a sample.
        season: (S,) int64 rows of other dates; an empty slot repeats the first anchor.
        place: (S,) int64, the sample in 0 .. B-1 that a slot belongs to.
        order: (S,) int64, which of its sample's seasonal views a slot is.
        filled: (S,) bool.
    """

    samples: NDArray[np.int64]
    anchors: NDArray[np.int64]
    season: NDArray[np.int64]
    place: NDArray[np.int64]
    order: NDArray[np.int64]
    filled: NDArray[np.bool_]


class Places:
    """The places of a set of shards, and which of their dates may pair.

    Args:
        reader: the shards.
        season: what may pair; ``off`` pairs nothing.

    Raises:
        DataError: if there is no place.
    """

    def __init__(self, reader: ShardReader, season: SeasonSettings) -> None:
        if not len(reader):
            raise DataError(
                "there is no place to learn from", where=str(reader.folder), remedy="curate again with a wider selection"
            )
        self.starts, self.counts = reader.starts(), reader.n_dates()
        self.place_of_row: NDArray[np.int64] = np.repeat(np.arange(len(reader)), self.counts)
        self._views = season.views
        self._by_quarter = season.pair == "quarter"
        table = reader.table(["quarter", "shift_px", "shift_confidence"])
        self.quarters: NDArray[np.int64] = table["quarter"].fill_null(0).to_numpy().astype(np.int64)
        shift = table["shift_px"].fill_null(0.0).to_numpy()
        sure = table["shift_confidence"].fill_null(np.inf).to_numpy() >= CERTAIN
        self._pairs: NDArray[np.bool_] = ~((shift > season.max_shift_px) & sure) & (season.mode != "off")
        if self._by_quarter:
            self._pairs &= self.quarters > 0
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

    def slots(self, batch: int) -> int:
        """Return the season slots of a batch: the expected number of seasonal views, rounded up, so that shapes never change."""
        views = np.minimum(self._partners, self._views) / self.counts[self.place_of_row]
        return math.ceil(float(batch * views.sum() / len(self)) - 1e-9)

    def draw(self, samples: NDArray[np.int64], *, seed: int, slots: int) -> Drawn:
        """Draw the chips of samples.

        Args:
            samples: (B,) int64 running sample numbers.
            seed: the stage's seed.
            slots: S; if more seasonal views exist, the later ones of each place are left out first.

        Returns:
            rows of the index.
        """
        places = sample_index(seed, samples, len(self))
        dates = np.floor(uniforms(seed, "anchor", samples, 1)[:, 0] * self.counts[places]).astype(np.int64)
        anchors = self.starts[places] + dates
        found = [
            (order, b, row)
            for b, anchor in enumerate(anchors)
            for order, row in enumerate(self._others(int(anchor), int(samples[b]), seed))
        ]
        found = sorted(found)[:slots] if slots else []
        empty = slots - len(found)
        order, place, season = np.array(found + [(0, 0, anchors[0])] * empty, dtype=np.int64).reshape(slots, 3).T
        filled = np.arange(slots) < len(found)
        return Drawn(samples=samples, anchors=anchors, season=season, place=place, order=order, filled=filled)

    def _others(self, anchor: int, sample: int, seed: int) -> NDArray[np.int64]:
        """Return up to ``season.views`` rows that may pair with ``anchor``, in random order."""
        if not self._partners[anchor]:
            return np.empty(0, dtype=np.int64)
        place = self.place_of_row[anchor]
        rows = np.arange(self.starts[place], self.starts[place] + self.counts[place], dtype=np.int64)
        fits = self._pairs[rows] & (rows != anchor)
        if self._by_quarter:
            fits &= self.quarters[rows] != self.quarters[anchor]
        order = ranks(seed, "season dates", np.array([sample]), len(rows))[0]
        chosen: NDArray[np.int64] = rows[order][fits[order]][: self._views]
        return chosen

    def _count_partners(self) -> NDArray[np.int64]:
        """Return for each chip the number of dates it may pair with."""
        place, pairs = self.place_of_row, self._pairs.astype(np.int64)
        all_of_place: NDArray[np.int64] = np.bincount(place, weights=pairs, minlength=len(self)).astype(np.int64)
        if not self._by_quarter:
            others: NDArray[np.int64] = (all_of_place[place] - 1) * pairs
            return others
        key = place * _QUARTERS + self.quarters
        same_quarter: NDArray[np.int64] = np.bincount(key, weights=pairs, minlength=len(self) * _QUARTERS).astype(np.int64)
        partners: NDArray[np.int64] = (all_of_place[place] - same_quarter[key]) * pairs
        return partners
