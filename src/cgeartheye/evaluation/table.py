"""Result rows: every figure with its interval, and each trained one with its paired differences.

S training seeds, n pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cgeartheye.evaluation.networks import TRAINED, Networks
from cgeartheye.evaluation.store import SCHEMA_VERSION, write_arrow
from cgeartheye.files import write_json, write_text
from cgeartheye.metrics.bootstrap import Resamples, draw_resamples, estimate

SCHEMA: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("dataset", "protocol", "method", "backbone", "backbone_fingerprint", "readout")),
        *((name, pa.string()) for name in ("probe", "metric")),
        *((name, pa.float64()) for name in ("value", "low", "high")),
        *((name, pa.int64()) for name in ("seeds", "n_test")),
        ("against", pa.string()),
        *((name, pa.float64()) for name in ("difference", "difference_low", "difference_high", "chance")),
        ("licence", pa.string()),
        ("measured", pa.bool_()),
    ]
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Measured:
    """Scores of one way of describing pictures under one probe."""

    method: str
    readout: str
    probe: str
    metric: str
    scores: NDArray[np.float64]
    """(S, n), or (1, n) for what has no training seed."""


@dataclass(frozen=True)
class SetResult:
    """Everything measured on one set of pictures."""

    dataset: str
    protocol: str
    groups: tuple[str, ...]
    """(n,): pictures of one group are resampled together."""
    chance: float
    """What guessing reaches."""
    measured: tuple[Measured, ...]


def result_rows(result: SetResult, networks: Networks, *, replicates: int, seed: int) -> list[Row]:
    """Return the rows of a set; a figure with several paired differences stands in as many rows.

    Args:
        result: of the set.
        networks: that were measured.
        replicates: of the bootstrap.
        seed: of the bootstrap.
    """
    resamples = draw_resamples(result.groups, seeds=len(networks.known), replicates=replicates, seed=seed)
    rows: list[Row] = []
    for measured in result.measured:
        row = {**_figure(measured, networks, resamples), **_set_columns(result)}
        others = [m for m in result.measured if _compared(measured, m)]
        rows += [{**row, **_difference(measured, other, resamples)} for other in others] or [row]
    return [{name: row.get(name) for name in SCHEMA.names} for row in rows]


def _set_columns(result: SetResult) -> Row:
    return {"dataset": result.dataset, "protocol": result.protocol, "n_test": len(result.groups), "chance": result.chance}


def _figure(measured: Measured, networks: Networks, resamples: Resamples) -> Row:
    found = estimate(measured.scores, resamples)
    learnt = measured.method in networks.methods
    trained = measured.method == TRAINED
    return {
        "method": measured.method,
        "readout": measured.readout,
        "probe": measured.probe,
        "metric": measured.metric,
        "backbone": networks.name if learnt else "",
        "backbone_fingerprint": networks.fingerprint if trained else "",
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "seeds": len(networks.known) if learnt else None,
        "licence": networks.licence if trained else "none needed",
        "measured": True,
    }


def _compared(one: Measured, other: Measured) -> bool:
    """Say whether ``one`` is a trained row and ``other`` what it is held against: its untrained self or what needs no network."""
    if one.method != TRAINED or other.method == TRAINED or (one.probe, one.metric) != (other.probe, other.metric):
        return False
    return one.readout == other.readout or not other.method.startswith("untrained")


def _difference(one: Measured, other: Measured, resamples: Resamples) -> Row:
    found = estimate(one.scores - other.scores, resamples)
    values = {"difference": found.value, "difference_low": found.low, "difference_high": found.high}
    return {"against": other.method, **values}


def write_results(folder: Path, rows: Sequence[Row]) -> None:
    """Write ``results.parquet``, ``results.json`` and ``results.md``."""
    write_arrow(folder / "results.parquet", pa.Table.from_pylist(list(rows), schema=SCHEMA))
    write_json(folder / "results.json", {"schema_version": SCHEMA_VERSION, "rows": list(rows)})
    write_text(folder / "results.md", markdown(rows))


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as one Markdown table for each set and probe, values in per cent."""
    parts = []
    for key, members in _grouped(rows):
        dataset, probe, metric = key
        first = members[0]
        parts.append(f"## {dataset}: {probe}, {metric.replace('_', ' ')}\n")
        parts.append(f"{first['protocol']}; {first['n_test']} pictures; chance {_percent(first['chance'])} %.\n")
        parts.append("| method | readout | value [95 %] | trained minus this [95 %] |\n|---|---|---|---|")
        parts += [_line(row, members) for row in _once(members)]
        parts.append("")
    return "\n".join(parts) + "\n"


def _grouped(rows: Sequence[Row]) -> Iterable[tuple[tuple[str, str, str], list[Row]]]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["dataset"], row["probe"], row["metric"]), []).append(row)
    return groups.items()


def _once(rows: Sequence[Row]) -> list[Row]:
    return list({(row["method"], row["readout"]): row for row in reversed(rows)}.values())[::-1]


def _line(row: Row, members: Sequence[Row]) -> str:
    against = [
        f"{m['readout']} {_percent(m['difference'], sign=True)} "
        f"[{_percent(m['difference_low'], sign=True)}, {_percent(m['difference_high'], sign=True)}]"
        for m in members
        if m["against"] == row["method"] and (m["readout"] == row["readout"] or not row["method"].startswith("untrained"))
    ]
    value = f"{_percent(row['value'])} [{_percent(row['low'])}, {_percent(row['high'])}]"
    return f"| {row['method']} | {row['readout']} | {value} | {'; '.join(against)} |"


def _percent(share: float, *, sign: bool = False) -> str:
    return f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
