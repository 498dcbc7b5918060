"""Rank chips by blur, haze and cloud within their stratum and quarter, and cut the worst where a share is set.

No absolute threshold tells a pale city from cloud or a desert from haze; among chips of one land, elevation, region and
quarter the comparison is fair, winters with winters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cgeartheye.curation.pieces import LOOKED_AT, read_mapped, write_mapped
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.settings.curate_checks import Ranked

RANKS: Final[dict[Ranked, tuple[str, ...]]] = {"blur": ("q_reblur",), "haze": ("q_dark",), "cloud": ("q_cloud", "q_white")}
"""What is ranked -> the index column it is ranked by, and that which stands in where it is null."""
_BLOCK: Final = 65_536


@dataclass(frozen=True)
class RankedChips:
    """Chips after ranking.

    Args:
        rows: of the chips that stay, with the columns ``q_rank_blur``, ``q_rank_haze``, ``q_rank_cloud`` in (0, 1), 1 the worst.
        shown: rows of the same places and those that go, the former without what is cut: of columns at
            least those by which places are compared.
        places: (P,) bool, which of the places stay.
        rejected: rows of ``rejected.parquet``.
        counts: numbers for the funnel.
    """

    rows: pa.Table
    shown: pa.Table
    places: NDArray[np.bool_]
    rejected: list[dict[str, Any]]
    counts: dict[str, int]


def rank_chips(rows: pa.Table, settings: CurateSettings, work: Path) -> RankedChips:
    """Rank all chips and leave out the worst shares of ``settings.quality.cut_worst``, and places left with too few dates.

    Args:
        rows: of :data:`cgeartheye.shards.format.INDEX_SCHEMA`, a place's chips adjacent in order of date.
        settings: shares to cut; ``min_dates``.
        work: folder that receives files of what stays where some are cut, from which it is mapped.
    """
    groups = _groups(rows)
    ranks = {what: ranks_within(groups, _values(rows, columns)) for what, columns in RANKS.items()}
    for what, rank in ranks.items():
        name = f"q_rank_{what}"
        rows = rows.set_column(rows.schema.get_field_index(name), name, pa.array(np.round(rank, 6)))
    place = np.cumsum(rows["date_index"].to_numpy() == 0) - 1
    n_places = int(place[-1]) + 1 if len(place) else 0
    shares = settings.quality.cut_worst
    if not shares:
        return RankedChips(rows, rows, np.ones(n_places, bool), [], {})
    worst = {what: ranks[what] > 1 - share for what, share in shares.items()}
    keep = ~np.logical_or.reduce(list(worst.values()))
    n_dates = np.bincount(place[keep], minlength=n_places)
    places = n_dates >= max(1, settings.min_dates or 1)
    rejected = [_reason(rows, int(i), worst) for i in np.flatnonzero(~keep)]
    rejected += _too_few(rows, places, n_dates, settings)
    kept = _kept(rows, keep & places[place], work / "ranked.arrow")
    lost = int((~places).sum())
    counts = {"among_worst": int((~keep).sum()), "chips": len(kept) - len(rows)}
    if settings.source == "archive":
        counts |= {"places": -lost, "places_with_too_few_dates": lost}
    shown = _kept(rows.select(LOOKED_AT), keep | ~places[place], work / "shown.arrow")
    return RankedChips(_renumbered(kept), _renumbered(shown), places, rejected, counts)


def _kept(rows: pa.Table, chosen: NDArray[np.bool_], path: Path) -> pa.Table:
    """Return some of the rows, mapped from a file that they are written to block by block."""
    starts = range(0, len(rows), _BLOCK)
    some = (rows.slice(start, _BLOCK).filter(pa.array(chosen[start : start + _BLOCK])) for start in starts)
    write_mapped(path, rows.schema, some)
    return read_mapped(path)


def ranks_within(groups: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n,) each value's rank within its group, in (0, 1): the mean of its positions among equals, plus a half, over n.

    Args:
        groups: (n,) int64, in any order.
        values: (n,) float64, larger is worse.
    """
    order = np.lexsort((values, groups))
    group, value = groups[order], values[order]
    starts = _runs(group[1:] != group[:-1], len(order))
    equals = _runs((group[1:] != group[:-1]) | (value[1:] != value[:-1]), len(order))
    sizes = np.diff(starts, append=len(order))
    first = np.repeat(starts, sizes)
    lengths = np.diff(equals, append=len(order))
    middle = np.repeat(equals + (lengths - 1) / 2, lengths)
    ranks = np.empty(len(order), np.float64)
    ranks[order] = (middle - first + 0.5) / np.repeat(sizes, sizes)
    return ranks


def _runs(changes: NDArray[np.bool_], length: int) -> NDArray[np.int64]:
    starts = np.flatnonzero(changes) + 1
    return np.concatenate([np.zeros(min(1, length), np.int64), starts])


def _groups(rows: pa.Table) -> NDArray[np.int64]:
    """Return (n,) numbers of (stratum, quarter); plain pictures have their class folder for a stratum."""
    strata = pc.fill_null(pc.coalesce(rows["stratum"], rows["label"]), "")
    codes = strata.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    numbers: NDArray[np.int64] = codes * 5 + rows["quarter"].to_numpy().astype(np.int64)
    return numbers


def _values(rows: pa.Table, columns: tuple[str, ...]) -> NDArray[np.float64]:
    values = pc.fill_null(pc.coalesce(*(rows[name] for name in columns)), 0.0)
    return np.asarray(values.to_numpy(), np.float64)


def _reason(rows: pa.Table, row: int, worst: dict[Ranked, NDArray[np.bool_]]) -> dict[str, Any]:
    named = " and ".join(what for what, chosen in worst.items() if chosen[row])
    date = rows["date"][row].as_py()
    known = {"place": rows["place"][row].as_py(), "scene": rows["scene"][row].as_py()}
    return {
        **known,
        "date": date.isoformat() if date else None,
        "reason": f"among the worst of its stratum and quarter by {named}",
    }


def _too_few(
    rows: pa.Table, places: NDArray[np.bool_], n_dates: NDArray[np.int64], settings: CurateSettings
) -> list[dict[str, Any]]:
    names = rows["place"].take(np.flatnonzero(rows["date_index"].to_numpy() == 0))
    wanted = settings.min_dates or 1
    lost = np.flatnonzero(~places)
    return [{"place": names[int(i)].as_py(), "reason": f"{n_dates[i]} good dates, {wanted} wanted"} for i in lost]


def _renumbered(rows: pa.Table) -> pa.Table:
    """Return rows whose dates count from 0 again within each place."""
    names = rows["place"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    starts = _runs(names[1:] != names[:-1], len(names))
    lengths = np.diff(starts, append=len(names))
    index = np.arange(len(names)) - np.repeat(starts, lengths)
    return rows.set_column(rows.schema.get_field_index("date_index"), "date_index", pa.array(index, pa.int32()))
