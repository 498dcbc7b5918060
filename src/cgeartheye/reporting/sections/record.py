"""The record: times, versions, fingerprints, settings and licences of every stage that is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cgeartheye
from cgeartheye.errors import DataError
from cgeartheye.reporting.blocks import Block, Fact, Section, Table, attempt
from cgeartheye.reporting.figures.bars import Bars, bar_chart
from cgeartheye.reporting.folders import StageFolder
from cgeartheye.reporting.wording import count, duration, plain, size


def record_section(folders: Sequence[StageFolder], licences: Mapping[str, Sequence[str]]) -> Section:
    """Return the section on how everything was made; ``licences`` maps what is licensed to the licences recorded for it."""
    timed = [(f.name, f.seconds) for f in folders if f.seconds is not None]
    total = sum(seconds for _, seconds in timed)
    figures = [attempt("Times", lambda: _times(timed))]
    tables: list[Block] = [
        attempt("Stages", lambda: _stages(folders)),
        attempt("Licences", lambda: _licences(licences)),
        *(attempt(f"Settings: {f.name}", lambda f=f: _settings(f)) for f in folders),  # type: ignore[misc]
    ]
    facts = (Fact(duration(total), f"wall time of {len(timed)} stages"), Fact(cgeartheye.__version__, "release of this report"))
    return Section("record", "Times and record", "record.html.j2", {"figures": figures, "tables": tables}, facts)


def _times(timed: Sequence[tuple[str, float]]) -> Block:
    if not timed:
        raise DataError("no manifest records its seconds")
    names = [name for name, _ in timed]
    seconds = Bars("wall time", tuple(seconds for _, seconds in timed))
    return bar_chart("Times of the stages", names, [seconds], unit="wall time, resumed runs added up", write=duration)


def _stages(folders: Sequence[StageFolder]) -> Block:
    rows = []
    for folder in folders:
        outputs = folder.manifest.get("outputs")
        listed = outputs if isinstance(outputs, dict) else {}
        bytes_ = sum(o.get("bytes", 0) for o in listed.values() if isinstance(o, dict))
        rows.append(
            (
                folder.name,
                "not recorded" if folder.seconds is None else duration(folder.seconds),
                count(len(listed)),
                size(bytes_),
                plain(folder.manifest.get("package_version")),
                folder.fingerprint.removeprefix("stage ")[:16],
            )
        )
    header = ("stage", "wall time", "files", "size", "release", "fingerprint of its outputs")
    return Table("Stages", header, tuple(rows), frozenset({1, 2, 3}))


def _licences(licences: Mapping[str, Sequence[str]]) -> Block:
    rows = tuple((what, ", ".join(names)) for what, names in licences.items() if names)
    if not rows:
        raise DataError("no stage recorded a licence")
    return Table("Licences", ("of what", "licences"), rows, caption="As recorded by the catalogue, the backbone and the benchmarks.")


def _settings(folder: StageFolder) -> Block:
    rows = tuple((key, plain(value)) for key, value in flat(folder.settings))
    if not rows:
        raise DataError("the manifest records no settings")
    return Table(f"Settings: {folder.name}", ("setting", "value"), rows, folded=True)


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested settings with dotted names, in order of name."""
    for key in sorted(value):
        if isinstance(value[key], Mapping) and value[key]:
            yield from flat(value[key], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value[key]
