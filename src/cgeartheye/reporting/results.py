"""What the result rows say, in words that follow from the numbers alone (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cgeartheye.errors import DataError
from cgeartheye.reporting.wording import interval, listed, percent, points

METHODS: Final = {
    "trained": "trained backbone",
    "untrained": "untrained network",
    "untrained_layerscale_1": "untrained, LayerScale 1",
    "colour_mean_std": "colour mean + deviation",
    "joint_histogram": "joint colour histogram",
    "pixels": "pixels as they come",
    "pixels_turned": "pixels, best turn",
}
READOUTS: Final = {
    "class": "class token",
    "patch": "patch mean + deviation",
    "mean": "patch mean",
    "colour": "colour",
    "pixels": "64 px, standardised",
}
PROBES: Final = {"knn": "kNN", "linear": "linear probe", "retrieval": "retrieval"}
TRAINED: Final = "trained"
HISTOGRAM: Final = "joint_histogram"


def method_name(method: str) -> str:
    """Return a method as words."""
    return METHODS.get(method, method.replace("_", " "))


@dataclass(frozen=True)
class Comparison:
    """A paired difference of shares, ours minus the other's, with its interval."""

    against: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``above``, ``below`` or ``open``: where zero lies relative to the interval."""
        return "above" if self.low > 0 else "below" if self.high < 0 else "open"


@dataclass(frozen=True)
class Result:
    """One measured figure, with every paired comparison that was made with it."""

    dataset: str
    protocol: str
    method: str
    readout: str
    probe: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n_test: int | None
    seeds: str
    licence: str
    measured: bool
    backbone: str
    chance: float | None
    comparisons: tuple[Comparison, ...]

    @property
    def name(self) -> str:
        """Method and readout as words; colour has but one readout."""
        return f"{method_name(self.method)}, {self.readout_name}" if self.readout_name else method_name(self.method)

    @property
    def readout_name(self) -> str:
        """The readout as words; empty for colour, which has but one."""
        return "" if self.readout == "colour" else READOUTS.get(self.readout, self.readout)


@dataclass(frozen=True)
class Comparable:
    """All rows that may be compared: one data set, protocol, probe and metric."""

    dataset: str
    protocol: str
    probe: str
    metric: str
    rows: tuple[Result, ...]

    @property
    def title(self) -> str:
        """What was measured, as words; accuracy is understood."""
        named = f"{self.dataset}: {PROBES.get(self.probe, self.probe)}"
        return named if self.metric in {"accuracy", "overall_accuracy"} else f"{named}, {self.metric.replace('_', ' ')}"

    @property
    def trained(self) -> tuple[Result, ...]:
        """The rows of the trained backbone, the best first."""
        return tuple(sorted((r for r in self.rows if r.method == TRAINED), key=lambda r: -r.value))


def read_results(records: Sequence[Mapping[str, Any]]) -> tuple[Comparable, ...]:
    """Return result rows grouped into what may be compared, in the order of the file.

    A figure that was compared with several others stands in several rows of the file; it becomes one result.

    Raises:
        DataError: if no row holds a finite value.
    """
    merged: dict[tuple[str, ...], Result] = {}
    for record in records:
        value = _finite(record.get("value"))
        if value is None:
            continue
        key = tuple(str(record.get(k, "")) for k in ("dataset", "protocol", "probe", "metric", "method", "readout", "backbone"))
        before = merged[key].comparisons if key in merged else ()
        merged[key] = _result(record, value, (*before, *_comparison(record)))
    if not merged:
        raise DataError("the results hold no finite value")
    groups: dict[tuple[str, str, str, str], list[Result]] = {}
    for r in merged.values():
        groups.setdefault((r.dataset, r.protocol, r.probe, r.metric), []).append(r)
    return tuple(Comparable(*key, tuple(rows)) for key, rows in groups.items())


def _result(record: Mapping[str, Any], value: float, comparisons: tuple[Comparison, ...]) -> Result:
    n_test = _finite(record.get("n_test"))
    return Result(
        **{k: str(record.get(k, "")) for k in ("dataset", "protocol", "method", "readout", "probe", "metric", "backbone")},
        value=value,
        low=_finite(record.get("low")),
        high=_finite(record.get("high")),
        n_test=None if n_test is None else round(n_test),
        seeds=_seeds(record.get("seeds")),
        chance=_finite(record.get("chance")),
        licence=str(record.get("licence") or "not recorded"),
        measured=bool(record.get("measured", True)),
        comparisons=comparisons,
    )


def _seeds(value: object) -> str:
    if isinstance(value, list | tuple):
        return str(len(value))
    return "" if value is None else str(value)


def _comparison(record: Mapping[str, Any]) -> Iterable[Comparison]:
    numbers = [_finite(record.get(k)) for k in ("difference", "difference_low", "difference_high")]
    if record.get("against") and all(n is not None for n in numbers):
        yield Comparison(str(record["against"]), *(n for n in numbers if n is not None))


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def statements(group: Comparable) -> tuple[str, ...]:
    """Return sentences on the trained rows: which paired intervals lie above zero, which do not, and the joint histogram."""
    said = [_statement(row) for row in group.trained]
    beside = _histogram(group)
    return tuple([*said, beside] if beside else said)


def _statement(row: Result) -> str:
    start = f"{READOUTS.get(row.readout, row.readout).capitalize()}: {scored(row)}"
    if not row.comparisons:
        return f"{start}; no paired comparison was recorded."
    by_verdict: dict[str, list[str]] = {}
    for c in row.comparisons:
        name = f"{method_name(c.against)} ({points(c.difference)} {interval(c.low, c.high, signed=True)})"
        by_verdict.setdefault(c.verdict, []).append(name)
    phrases = {
        "above": "better than {} (paired intervals above zero)",
        "open": "no difference shown to {} (paired intervals include zero)",
        "below": "worse than {} (paired intervals below zero)",
    }
    return f"{start}; " + "; ".join(phrases[v].format(listed(by_verdict[v])) for v in phrases if v in by_verdict) + "."


def _histogram(group: Comparable) -> str:
    rows = [r for r in group.rows if r.method == HISTOGRAM]
    if not rows or not group.trained:
        return ""
    histogram, best = rows[0], group.trained[0]
    relation = "lies above" if histogram.value > best.value else "equals" if histogram.value == best.value else "lies below"
    said = f"it {relation} the best trained row ({percent(best.value)})"
    return f"Beside them, the joint colour histogram reaches {scored(histogram)}: {said}."


def scored(row: Result) -> str:
    """Return a value with its interval: 62.2 % [57.2, 67.2]."""
    if row.low is None or row.high is None:
        return f"{percent(row.value)} (no interval recorded)"
    return f"{percent(row.value)} {interval(row.low, row.high)}"
