"""The evaluation section: results with intervals and paired differences, confusion, features as colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.reporting.blocks import UNREADABLE, Block, Fact, Missing, Picture, Section, Table, attempt, reason_of
from cgeartheye.reporting.figures.intervals import Estimate, interval_chart
from cgeartheye.reporting.figures.matrix import confusion_chart
from cgeartheye.reporting.folders import Record, StageFolder, read_records
from cgeartheye.reporting.images import pattern, photograph
from cgeartheye.reporting.results import (
    PROBES,
    READOUTS,
    TRAINED,
    Comparable,
    Result,
    method_name,
    read_results,
    scored,
    statements,
)
from cgeartheye.reporting.wording import count, interval, listed, percent, points

MOST_MATRICES = 4
MOST_PAIRS = 12
FEATURE_PX = 192


@dataclass(frozen=True)
class FeaturePair:
    """A picture beside its features as colours."""

    picture: Picture
    colours: Picture
    name: str


@dataclass(frozen=True)
class Features:
    """All pairs, and what the colours are."""

    pairs: tuple[FeaturePair, ...]
    caption: str


def load_results(evaluated: StageFolder) -> tuple[Comparable, ...]:
    """Return the groups of comparable rows of an evaluated folder; raises :class:`DataError` if there are none."""
    return read_results(read_records(evaluated.path / "results.json"))


def evaluation_section(evaluated: StageFolder) -> Section:
    """Return the section on how good the frozen backbone is."""
    groups = load_results(evaluated)
    figures: list[Block] = []
    for group in groups:
        figures += [
            attempt(group.title, lambda g=group: _values(g)),  # type: ignore[misc]
            attempt(f"{group.title}, differences", lambda g=group: _differences(g)),  # type: ignore[misc]
        ]
    figures += _matrices(evaluated)
    content = {
        "figures": figures,
        "tables": [_table(g) for g in groups],
        "verdicts": [(g.title, statements(g)) for g in groups if g.trained],
        "features": _features(evaluated),
    }
    return Section("evaluation", "Evaluation", "evaluation.html.j2", content, _facts(groups))


def _facts(groups: tuple[Comparable, ...]) -> tuple[Fact, ...]:
    rows = [r for g in groups for r in g.rows]
    datasets = list(dict.fromkeys(g.dataset for g in groups))
    facts = [Fact(", ".join(datasets), "data sets"), Fact(count(len(rows)), "measured figures")]
    sizes = sorted({r.n_test for r in rows if r.n_test is not None})
    if sizes:
        facts.append(Fact(" and ".join(count(n) for n in sizes), "test pictures"))
    seeds = sorted({r.seeds for r in rows if r.method == TRAINED and r.seeds})
    if seeds:
        facts.append(Fact(" and ".join(seeds), "seeds of the trained backbone"))
    return tuple(facts)


def _values(group: Comparable) -> Block:
    rows = [
        Estimate(method_name(r.method), r.value * 100, _hundred(r.low), _hundred(r.high), r.method == TRAINED, r.readout_name)
        for r in sorted(group.rows, key=lambda r: -r.value)
    ]
    unit = f"{group.metric.replace('_', ' ')}, %"
    chance = group.rows[0].chance
    caption = "Values with 95 % intervals, the best first." + ("" if chance is None else f" Guessing reaches {percent(chance)}.")
    return interval_chart(group.title, rows, unit=unit, caption=caption)


def _hundred(share: float | None) -> float | None:
    return None if share is None else share * 100


def _differences(group: Comparable) -> Block:
    rows = [
        Estimate(method_name(c.against), c.difference * 100, c.low * 100, c.high * 100, c.verdict == "above", r.readout_name)
        for r in group.trained
        for c in r.comparisons
    ]
    if not rows:
        raise DataError("no paired comparison was recorded")
    caption = "Paired over the same pictures. Strong rows lie above zero with their whole interval."
    unit = "trained minus other, percentage points"
    return interval_chart(f"{group.title}, differences", rows, unit=unit, zero=True, caption=caption)


def _table(group: Comparable) -> Table:
    header = ("method", "readout", "value", "95 % interval", "paired difference, percentage points", "test", "seeds")
    licences = ", ".join(sorted({r.licence for r in group.rows}))
    caption = f"Protocol {group.protocol or 'not recorded'}; licences: {licences}."
    if any(not r.measured for r in group.rows):
        caption += " Values marked as copied were not measured here."
    title = f"{group.title}: all rows"
    return Table(title, header, tuple(_row(r) for r in group.rows), frozenset({2, 3, 5, 6}), caption)


def _row(r: Result) -> tuple[str, ...]:
    differences = "; ".join(
        f"{points(c.difference)} {interval(c.low, c.high, signed=True)} over {method_name(c.against)}" for c in r.comparisons
    )
    return (
        method_name(r.method) + ("" if r.measured else " (copied)"),
        READOUTS.get(r.readout, r.readout),
        percent(r.value),
        "not recorded" if r.low is None or r.high is None else interval(r.low, r.high),
        differences or "\N{EN DASH}",
        "" if r.n_test is None else count(r.n_test),
        r.seeds,
    )


def _matrices(evaluated: StageFolder) -> list[Block]:
    try:
        records = read_json(evaluated.path / "confusion.json")
    except DataError as error:
        return [Missing("Confusion", error.what)]
    found = _matrix_records(records)
    if not found:
        return [Missing("Confusion", "confusion.json holds no matrix")]
    chosen = [r for r in found if r.get("method") == TRAINED] or found
    return [attempt(_matrix_title(r), lambda r=r: _matrix(r)) for r in chosen[:MOST_MATRICES]]  # type: ignore[misc]


def _matrix_records(value: object) -> list[Record]:
    if isinstance(value, Mapping):
        if "classes" in value and ("counts" in value or "matrix" in value):
            return [dict(value)]
        return [r for inner in value.values() for r in _matrix_records(inner)]
    if isinstance(value, list):
        return [r for inner in value if isinstance(inner, Mapping) for r in _matrix_records(inner)]
    return []


def _matrix_title(record: Record) -> str:
    words = [
        record.get("dataset"),
        PROBES.get(str(record.get("probe")), record.get("probe")),
        READOUTS.get(str(record.get("readout")), record.get("readout")),
    ]
    known = [str(w) for w in words if w]
    return "Confusion" + (f": {', '.join(known)}" if known else "")


def _matrix(record: Record) -> Block:
    classes = [str(c) for c in record["classes"]]
    try:
        counts = np.asarray(record.get("counts", record.get("matrix")), dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("the confusion matrix holds something else than whole numbers") from error
    return confusion_chart(_matrix_title(record), classes, counts, caption="Per cent of each true class.")


def _features(evaluated: StageFolder) -> Features | Missing:
    try:
        return _pairs(evaluated)
    except UNREADABLE as error:
        return Missing("Features as colours", reason_of(error))


def _pairs(evaluated: StageFolder) -> Features:
    path = evaluated.path / "pca.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays: dict[str, NDArray[Any]] = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError("pca.npz is absent or cannot be read", where=f"{path} ({error})") from error
    pictures = next((arrays[n] for n in ("images", "pictures") if n in arrays), None)
    colours = next((arrays[n] for n in ("pca", "features", "colours") if n in arrays), None)
    if pictures is None or colours is None or len(pictures) != len(colours):
        raise DataError("pca.npz lacks the pictures or their features")
    names = arrays.get("names")
    pairs = tuple(
        _pair(pictures[i], colours[i], "" if names is None else str(names[i])) for i in range(min(len(pictures), MOST_PAIRS))
    )
    caption = (
        "Left the picture, right the first three principal components of its patch tokens as red, green and blue: "
        "patches of like colour are alike to the network. The colours themselves mean nothing."
    )
    return Features(pairs, caption)


def _pair(picture: NDArray[Any], colours: NDArray[Any], name: str) -> FeaturePair:
    for array in (picture, colours):
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            raise DataError(f"pca.npz holds an array of shape {array.shape} where a picture (H, W, 3) is expected")
    shown = photograph(_bytes(picture), FEATURE_PX, alt=f"Picture {name}".strip())
    return FeaturePair(shown, pattern(_bytes(colours), FEATURE_PX, alt=f"Features of picture {name} as colours".strip()), name)


def _bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    scaled = np.nan_to_num(array.astype(np.float64)) * 255
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def headline(groups: tuple[Comparable, ...]) -> tuple[str, ...]:
    """Return a sentence for each data set and probe: the best trained row, and what it is shown to be better than."""
    return tuple(_headline(g, g.trained[0]) for g in groups if g.trained and g.metric != "mean_reciprocal_rank")


def _headline(group: Comparable, best: Result) -> str:
    above = [method_name(c.against) for c in best.comparisons if c.verdict == "above"]
    others = [method_name(c.against) for c in best.comparisons if c.verdict != "above"]
    said = f"{group.title}: {scored(best)} with the {READOUTS.get(best.readout, best.readout)}"
    if above:
        said += f"; paired interval above zero over {listed(above)}"
    if others:
        said += f"; not above zero over {listed(others)}"
    return said + "."
