"""The record: times, versions, fingerprints, settings and licences of every stage that is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cgeartheye
from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.reporting.blocks import Block, Fact, Section, Table, attempt
from cgeartheye.reporting.figures.bars import Bars, bar_chart
from cgeartheye.reporting.folders import StageFolder, read_columns
from cgeartheye.reporting.wording import count, duration, plain, size, unknown


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


def licences_of(folders: Mapping[str, StageFolder]) -> dict[str, tuple[str, ...]]:
    """Return the licences that scenes, chips, backbone and benchmarks recorded; a folder without any has no entry."""
    found: dict[str, tuple[str, ...]] = {}
    for name, what, file in (("catalog", "scenes", "catalog.parquet"), ("curated", "chips", "index.parquet")):
        if name in folders:
            found[what] = _from_table(folders[name], file)
    if "pretrained" in folders:
        found["backbone"] = _from_json(folders["pretrained"], "backbone.json")
    if "evaluated" in folders:
        found["benchmarks and methods"] = _from_json(folders["evaluated"], "results.json")
    return {what: names for what, names in found.items() if names}


def _from_table(folder: StageFolder, file: str) -> tuple[str, ...]:
    try:
        values = read_columns(folder.path / file, ("licence",))["licence"]
    except DataError:
        return ()
    return tuple(sorted({"not recorded" if unknown(v) else str(v) for v in values.tolist()}))


def _from_json(folder: StageFolder, file: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(set(_licence_values(read_json(folder.path / file)))))
    except DataError:
        return ()


def _licence_values(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in {"licence", "license"} and isinstance(inner, str) and inner:
                yield inner
            else:
                yield from _licence_values(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _licence_values(inner)


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
    return Table(
        "Licences", ("of what", "licences"), rows, caption="As recorded by the catalogue, the backbone and the benchmarks."
    )


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
