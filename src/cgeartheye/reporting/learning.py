"""What the training log says: curves, totals and throughput (pure)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

PARTS: Final = {
    "loss_global": "class token, global views",
    "loss_local": "class token, local views",
    "loss_season": "class token, seasonal views",
    "loss_patch": "masked patches",
}
"""Parts of the loss by their column in the log."""
READOUTS: Final = {"class": "class token", "patch": "patch mean + deviation"}
LINEAR: Final = {f"probe_{name}_linear": words for name, words in READOUTS.items()}
"""Accuracies of linear probes by their column."""
_NO_NEIGHBOURS: Final = {
    "probe_rank",
    "probe_chips",
    "probe_patch_similarity",
    "probe_retrieval",
    "probe_retrieval_places",
    *LINEAR,
}
_ALARM: Final = "alarm_"


@dataclass(frozen=True)
class Log:
    """The training log as arrays of equal length (n,), NaN where a line lacks a column; probes only have their own lines."""

    steps: NDArray[np.float64]
    columns: Mapping[str, NDArray[np.float64]]

    def has(self, name: str) -> bool:
        """Say whether any line recorded a finite ``name``."""
        return name in self.columns and bool(np.isfinite(self.columns[name]).any())

    def last(self, name: str) -> float | None:
        """Return the last finite value of a column, or None."""
        if not self.has(name):
            return None
        values = self.columns[name]
        return float(values[np.isfinite(values)][-1])

    @property
    def probes(self) -> tuple[str, ...]:
        """Names of the columns that hold accuracies of nearest neighbours."""
        names = (name for name in self.columns if name.startswith("probe") and self.has(name))
        return tuple(name for name in names if name not in _NO_NEIGHBOURS)

    @property
    def rolled_back(self) -> tuple[float, ...]:
        """First steps recorded after the run went back to a checkpoint, where the count of ``rollbacks`` has risen."""
        if "rollbacks" not in self.columns:
            return ()
        known = np.isfinite(self.columns["rollbacks"])
        counts = np.maximum.accumulate(np.concatenate([[0.0], self.columns["rollbacks"][known]]))
        return tuple(self.steps[known][np.diff(counts) > 0].tolist())

    def used(self, name: str) -> bool:
        """Say whether a column was ever anything but zero; a term that never took part is logged as zeros."""
        return self.has(name) and bool(np.nan_to_num(self.columns[name]).any())


def read_log(lines: Sequence[Mapping[str, Any]]) -> Log:
    """Return the log's lines as columns; nested objects become dotted columns.

    A step that occurs twice (written again after a resume) keeps its last line.
    """
    by_step: dict[float, dict[str, float]] = {}
    for line in lines:
        flat = dict(_numbers(line, ""))
        if "step" in flat:
            by_step.setdefault(flat["step"], {}).update(flat)
    rows = [by_step[step] for step in sorted(by_step)]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: np.array([row.get(name, math.nan) for row in rows], dtype=np.float64) for name in names}
    return Log(columns.get("step", np.empty(0)), columns)


@dataclass(frozen=True)
class AlarmSpan:
    """An alarm of the log: when it was raised first and last, on how many lines, and what it said last."""

    name: str
    first: float
    last: float
    lines: int
    sentence: str


def alarm_spans(lines: Sequence[Mapping[str, Any]]) -> tuple[AlarmSpan, ...]:
    """Return the alarms of a log (columns ``alarm_<name>``), by first step."""
    raised: dict[str, list[tuple[float, str]]] = {}
    for line in lines:
        for key, value in line.items():
            if key.startswith(_ALARM) and isinstance(value, str) and isinstance(line.get("step"), int | float):
                raised.setdefault(key.removeprefix(_ALARM), []).append((float(line["step"]), value))
    spans = (
        AlarmSpan(name.replace("_", " "), min(steps)[0], max(steps)[0], len(steps), max(steps)[1])
        for name, steps in raised.items()
    )
    return tuple(sorted(spans, key=lambda span: (span.first, span.name)))


def _numbers(value: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, float]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _numbers(inner, f"{prefix}{key}.")
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            yield f"{prefix}{key}", float(inner)


@dataclass(frozen=True)
class Throughput:
    """What was done in what time, from the last line of the log."""

    steps: float
    samples: float | None
    seconds: float | None
    cpu_seconds: float | None

    @property
    def samples_per_second(self) -> float | None:
        """Samples a second of wall time, or None if either is not recorded."""
        return None if not self.samples or not self.seconds else self.samples / self.seconds


def throughput(log: Log) -> Throughput:
    """Return the totals of the log; its counters grow from line to line."""
    return Throughput(
        float(log.steps[-1]) if log.steps.size else 0.0, *(log.last(n) for n in ("samples", "seconds", "cpu_seconds"))
    )


def probe_name(column: str) -> str:
    """Return a probe column's name as words: ``probe_class`` becomes ``class token``."""
    word = column.removeprefix("probe_")
    return READOUTS.get(word, word.replace("_", " "))
