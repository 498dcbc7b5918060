"""Which places leave the selection because they show what another place, or an excluded picture, shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cgeartheye.curation.duplicates import Shown, Stacked, find_duplicates, mean_directions
from cgeartheye.curation.embedding import anchor_rows
from cgeartheye.curation.exclusion import read_excluded
from cgeartheye.curation.pieces import LOOKED_AT, Workers
from cgeartheye.settings.curate import CurateSettings


@dataclass(frozen=True)
class Dropped:
    """What of P places is left.

    Args:
        same_as: (P,) int64, place that a dropped place repeats, P and up for an excluded picture; -1 for what is left.
        rejected: rows of ``rejected.parquet``.
        counts: of the funnel: ``near_duplicates``, ``excluded``.
        excluded: what the manifest and the model card say of excluded pictures; None if nothing is excluded.
    """

    same_as: NDArray[np.int64]
    rejected: list[dict[str, Any]]
    counts: Mapping[str, int]
    excluded: Mapping[str, int] | None

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(P,) bool, True for what is left."""
        return self.same_as < 0


def drop_same(
    rows: pa.Table, clusters: NDArray[np.int32], settings: CurateSettings, folders: tuple[Path, Path, Path], workers: Workers
) -> Dropped:
    """Find near duplicates and excluded pictures among places.

    Args:
        rows: index rows of all chips of the pieces, places adjacent.
        clusters: (P,) int32, leaf of each place.
        settings: of the stage.
        folders: of the pieces, of their features (with ``features.npy``), and for the work of this step.
        workers: do it.
    """
    pieces, features, work = folders
    n_places = int((rows["date_index"].to_numpy() == 0).sum())
    if not (settings.duplicates.enabled or settings.exclude):
        return Dropped(np.full(n_places, -1, np.int64), [], {}, None)
    n_dates = np.diff(np.flatnonzero(rows["date_index"].to_numpy() == 0), append=len(rows))
    places = Shown(pieces, anchor_rows(rows.select(LOOKED_AT)), n_dates, features / "features.npy", clusters)
    means = mean_directions(Stacked.of([places.features]), np.arange(n_places), clusters)
    excluded = read_excluded(settings, work / "excluded", means, workers)
    found = find_duplicates(places, excluded.shown if excluded else None, settings.duplicates, work, workers)
    shown = int(found.excluded.sum())
    counts = {"near_duplicates": int((~found.usable).sum()) - shown} if settings.duplicates.enabled else {}
    if not settings.exclude:
        return Dropped(found.same_as, found.rejected(), counts, None)
    known = {**(excluded.counts if excluded else {}), "places": shown}
    return Dropped(found.same_as, found.rejected(), {**counts, "excluded": shown}, known)
