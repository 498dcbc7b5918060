"""Classes and scores of maps (pure)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cgeartheye.errors import DataError

_COLOUR: Final = re.compile(r"#[0-9A-Fa-f]{6}")
METHODS: Final = {
    "model": "the task model",
    "map": "the map",
    "trained": "trained backbone",
    "colour": "colour regression",
    "untrained": "backbone untrained",
}
NOTES: Final = {"colour": "pixel by pixel", "untrained": "same head"}


@dataclass(frozen=True)
class Shown:
    """A class as maps show it; ``colour`` is #rrggbb, or empty if none is recorded."""

    name: str
    colour: str


@dataclass(frozen=True)
class Score:
    """A share in [0, 1] with its interval, where one was recorded."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class MethodScores:
    """What one method reached on one scene."""

    method: str
    miou: Score | None
    accuracy: Score | None
    by_class: tuple[tuple[str, Score], ...]
    gain: Score | None

    @property
    def note(self) -> str:
        """What else there is to know of the method."""
        return NOTES.get(self.method, "")

    @property
    def name(self) -> str:
        """The method as words."""
        return METHODS.get(self.method, self.method.replace("_", " "))


def read_classes(value: object) -> tuple[Shown, ...]:
    """Return the classes of a task: a list of records with a ``name`` and a colour as #rrggbb or three numbers."""
    records = value if isinstance(value, list) else []
    return tuple(Shown(str(r.get("name", "")), _colour(r)) for r in records if isinstance(r, Mapping))


def _colour(record: Mapping[str, Any]) -> str:
    for key in ("display", "colour", "color"):
        value = record.get(key)
        if isinstance(value, str) and _COLOUR.fullmatch(value):
            return value.lower()
        if isinstance(value, list) and len(value) >= 3 and all(isinstance(v, int) and 0 <= v <= 255 for v in value[:3]):
            return "#{:02x}{:02x}{:02x}".format(*value[:3])
    return ""


def read_scores(value: object) -> tuple[MethodScores, ...]:
    """Return the methods of a score table, the map's own first: the others have a ``gain``, what the map reaches beyond them.

    Raises:
        DataError: if there is no mIoU of any method.
    """
    table = _table(value)
    methods = tuple(sorted((_method(name, scores) for name, scores in table.items()), key=lambda m: m.gain is not None))
    if not methods:
        raise DataError("the scores hold no mIoU")
    return methods


def _table(value: object) -> dict[str, Mapping[str, Any]]:
    """Find the mapping of methods to scores, wherever the file keeps it."""
    if not isinstance(value, Mapping):
        return {}
    if "miou" in value:
        return {"map": value}
    found = {str(k): v for k, v in value.items() if isinstance(v, Mapping) and "miou" in v}
    if found:
        return found
    for inner in value.values():
        if deeper := _table(inner):
            return deeper
    return {}


def _method(name: str, scores: Mapping[str, Any]) -> MethodScores:
    iou = scores.get("iou")
    named = iou.items() if isinstance(iou, Mapping) else ()
    by_class = tuple((str(k), s) for k, v in named if (s := read_score(v)) is not None)
    return MethodScores(
        name, read_score(scores.get("miou")), read_score(scores.get("overall_accuracy")), by_class, read_score(scores.get("gain"))
    )


def read_score(value: object) -> Score | None:
    """Return a number, or a record of ``value``, ``low`` and ``high``, as a score; None if it is neither or undefined."""
    if isinstance(value, Mapping):
        main = _finite(value.get("value"))
        return None if main is None else Score(main, _finite(value.get("low")), _finite(value.get("high")))
    main = _finite(value)
    return None if main is None else Score(main, None, None)


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
