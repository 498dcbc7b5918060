"""The curation section: funnel, balance before and after, clusters, strata and example chips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.reporting.archive import head, tally
from cgeartheye.reporting.blocks import UNREADABLE, Block, Fact, Missing, Picture, Section, Table, attempt, reason_of
from cgeartheye.reporting.curation import cluster_sizes, effective, funnel, named, pick_examples, rejections
from cgeartheye.reporting.figures.bars import Bars, bar_chart
from cgeartheye.reporting.figures.lines import Axes, Series, line_chart
from cgeartheye.reporting.folders import StageFolder, column_names, read_columns
from cgeartheye.reporting.images import photograph
from cgeartheye.reporting.sections.balance import dropped_map, galleries, histograms, numbers, stratum_map
from cgeartheye.reporting.wording import compact, count, plain, significant, unbroken, unknown
from cgeartheye.seeding import stream
from cgeartheye.settings.report import ReportSettings
from cgeartheye.shards.reader import ChipRecord, ShardReader

MOST_STRATA = 60
LEAST_CLUSTERS = 3
MOST_DATES = 6
"""Up to so many dates each has a column of its own; more are gathered by quarter."""
COLOUR_WORDS = (
    "The clusters are made of a colour histogram (8 \N{MULTIPLICATION SIGN} 8 \N{MULTIPLICATION SIGN} 8 joint RGB, square root), "
    "not of a network's features."
)
STRATA_WORDS = (
    "alpha = max(1, M \N{MULTIPLICATION SIGN} A \N{MULTIPLICATION SIGN} k / N) is the published number of samples of a stratum; "
    "capped: it has fewer cells than that; floored: raised to 1."
)
STRATA_HEADER = {
    "stratum": "stratum: region/class/elevation bin",
    "cells": "cells N",
    "alpha": "published alpha",
    "drawn": "cells drawn",
}
_PARTS_OF_STRATUM = ("region", "land_cover", "elevation_bin")
DROPPED = "Kept and dropped places"


Column = tuple[str, Callable[[ChipRecord], str]]
"""A column's name, and what names the column of a chip."""


@dataclass(frozen=True)
class ExampleRow:
    """One place: its name, what is known of it, and its pictures by column."""

    name: str
    note: str
    cells: tuple[tuple[Picture, ...], ...]


@dataclass(frozen=True)
class Examples:
    """The grid of example chips."""

    columns: tuple[str, ...]
    rows: tuple[ExampleRow, ...]
    caption: str
    dated: bool


def curation_section(curated: StageFolder, settings: ReportSettings) -> Section:
    """Return the section on how the data set was made from the archive."""
    archive = curated.settings.get("source", "archive") != "images"
    first = "From cells to places" if archive else "From pictures to places"
    figures = [
        attempt(first, lambda: _funnel(curated, first)),
        attempt("Chips cut and lost", lambda: _chip_funnel(curated)),
    ]
    tables: list[Block] = []
    if archive:
        figures += [attempt("Places by stratum", lambda: stratum_map(curated)), attempt(DROPPED, lambda: dropped_map(curated))]
        tables.append(attempt("Strata", lambda: _strata(curated)))
    else:
        figures.append(attempt("Chips by class folder", lambda: _labels(curated)))
    figures += histograms(curated)
    figures.append(attempt("Cluster sizes before and after balance", lambda: _clusters(curated)))
    tables = [attempt("Balance in numbers", lambda: numbers(curated)), attempt("Rejected", lambda: _rejected(curated)), *tables]
    content: dict[str, object] = {"figures": figures, "tables": tables, "examples": _examples(curated, settings)}
    content["galleries"] = galleries(curated)
    return Section("curation", "Curation", "curation.html.j2", content, _facts(curated), (_embedding(curated),))


def _facts(curated: StageFolder) -> tuple[Fact, ...]:
    chips = read_columns(curated.path / "index.parquet", ("place", "length", "width", "height"))
    places = len(set(chips["place"].tolist()))
    sizes = sorted({(int(w), int(h)) for w, h in zip(chips["width"].tolist(), chips["height"].tolist(), strict=True)})
    size = f"{sizes[0][0]} \N{MULTIPLICATION SIGN} {sizes[0][1]} px" if len(sizes) == 1 else f"{len(sizes)} sizes"
    return (
        Fact(count(places), "places"),
        Fact(count(len(chips["place"])), "chips"),
        Fact(size, "chip size"),
        Fact(f"{compact(float(chips['length'].sum()))}B", "of JPEG in the shards"),
    )


def _embedding(curated: StageFolder) -> str:
    made = curated.summary.get("embedding", curated.settings.get("embedding"))
    made = made if isinstance(made, dict) else {}
    backbone = made.get("backbone")
    if backbone is None:
        return "The manifest does not say which embedding the clusters are made of."
    if backbone == "colour":
        return COLOUR_WORDS
    return f"The clusters are made of features of {plain(backbone)}, {plain(made.get('readout'))}."


def _funnel(curated: StageFolder, title: str) -> Block:
    steps = funnel(read_json(curated.path / "funnel.json")).places
    bars = Bars("left", tuple(float(s.number) for s in steps))
    return bar_chart(title, [s.name for s in steps], [bars], unit="how many were left")


def _chip_funnel(curated: StageFolder) -> Block:
    found = funnel(read_json(curated.path / "funnel.json"))
    bars = Bars("chips", tuple(float(s.number) for s in found.chips))
    others = ", ".join(f"{s.name} {count(s.number)}" for s in found.others)
    caption = f"Also counted: {others}." if others else ""
    return bar_chart("Chips cut and lost", [s.name for s in found.chips], [bars], unit="chips", caption=caption)


def _labels(curated: StageFolder) -> Block:
    chips = read_columns(curated.path / "index.parquet", ("label",))
    found = tally([named(label) for label in chips["label"].tolist()])
    return bar_chart("Chips by class folder", found.names, [Bars("chips", tuple(map(float, found.counts)))], unit="chips")


def _clusters(curated: StageFolder) -> Block:
    places = read_columns(curated.path / "places.parquet", ("cluster", "kept"))
    before, after = cluster_sizes(places["cluster"], places["kept"].astype(bool))
    if before.size < LEAST_CLUSTERS:
        raise DataError(f"{'one cluster makes' if before.size == 1 else 'two clusters make'} no distribution")
    ranks = np.arange(1, before.size + 1, dtype=np.float64)
    series = [Series("before", ranks, before.astype(np.float64)), Series("after", ranks, after.astype(np.float64))]
    even = [significant(effective(sizes), 3) for sizes in (before, after)]
    words = f"{before.size} clusters; as even as {even[0]} equal ones before and {even[1]} after."
    if int(before.sum()) == int(after.sum()):
        words += " Balance kept every clustered place: the two curves are one."
    axes = Axes("rank of the cluster by size", "places in the cluster", include=(0.0,))
    return line_chart("Cluster sizes before and after balance", series, axes, caption=words)


def _rejected(curated: StageFolder) -> Block:
    found = rejections(read_columns(curated.path / "rejected.parquet", ("reason",))["reason"].tolist())
    rows = tuple((name, count(number)) for name, number in zip(found.names, found.counts, strict=True)) or (("none", "0"),)
    caption = "n stands for numbers, which differ from case to case; rejected.parquet names each place, scene and date."
    return Table(
        "Rejected, by reason", ("reason", "how many"), rows[:MOST_STRATA], frozenset({1}), caption if found.names else ""
    )


def _strata(curated: StageFolder) -> Block:
    path = curated.path / "strata.parquet"
    more = [name for name in column_names(path) if name not in _PARTS_OF_STRATUM]
    columns = read_columns(path, ("stratum", "cells", "alpha", "drawn"), more)
    order = np.argsort(-columns["drawn"].astype(np.float64), kind="stable").tolist()
    names = ["stratum", "cells", *(name for name in more if name not in {"stratum", "cells", "drawn"}), "drawn"]
    few, rest = head([tuple(_cell(columns[name][i]) for name in names) for i in order], MOST_STRATA)
    header = tuple(STRATA_HEADER.get(name, name.replace("_", " ")) for name in names)
    texts = {number for number, name in enumerate(names) if columns[name].dtype.kind in "OUb"}
    numbers_ = frozenset(range(len(names))) - texts
    return Table(f"Strata ({count(len(order))})", header, few, numbers_, f"{STRATA_WORDS} {rest}".strip(), folded=True)


def _cell(value: Any) -> str:  # noqa: ANN401 - of any column
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "\N{EN DASH}"
    if isinstance(value, float | np.floating):
        return "\N{EN DASH}" if np.isnan(value) else significant(float(value), 4)
    return count(float(value)) if isinstance(value, int | np.integer) else plain(value)


def _examples(curated: StageFolder, settings: ReportSettings) -> Examples | Missing:
    try:
        reader = ShardReader(curated.path)
        return _grid(reader, settings)
    except UNREADABLE as error:
        return Missing("Example places", reason_of(error))


def _grid(reader: ShardReader, settings: ReportSettings) -> Examples:
    if not len(reader):
        raise DataError("there is no place in the shards")
    starts = reader.starts()
    known = reader.table(("land_cover", "label", "region")).take(starts).to_pydict()
    groups = [named(c if c is not None else b) for c, b in zip(known["land_cover"], known["label"], strict=True)]
    order = stream(settings.seed, "report examples").permutation(len(reader)).astype(np.int64)
    picked = pick_examples(groups, reader.n_dates(), order, settings.example_places)
    chips = [chip for i in picked for chip in reader.dates(i)]
    key = _by_date if len({_by_date(chip) for chip in chips}) <= MOST_DATES else _by_quarter
    columns = tuple(sorted({key(chip) for chip in chips}))
    rows = tuple(_example(reader, i, groups[i], [(name, key) for name in columns], settings.chip_px) for i in picked)
    caption = "Chips as stored, shrunk where they are larger; a place's dates share one grid of pixels."
    return Examples(columns, rows, caption, dated=key is _by_date)


def _by_date(chip: ChipRecord) -> str:
    return "no date" if chip.date is None else f"{unbroken(chip.date.isoformat())} Q{chip.quarter}"


def _by_quarter(chip: ChipRecord) -> str:
    return f"Q{chip.quarter}" if chip.quarter else "no date"


def _example(reader: ShardReader, i: int, group: str, columns: Sequence[Column], chip_px: int) -> ExampleRow:
    cells = []
    for name, key in columns:
        chips = [chip for chip in reader.dates(i) if key(chip) == name]
        cells.append(tuple(_chip(reader.decode(i, chip.date_index), chip, group, chip_px) for chip in chips))
    return ExampleRow(reader.place(i), "" if group == "none" else group, tuple(cells))


def _chip(pixels: NDArray[np.uint8], chip: ChipRecord, group: str, chip_px: int) -> Picture:
    when = "no date" if chip.date is None else unbroken(chip.date.isoformat())
    return photograph(pixels, chip_px, alt=f"Place {chip.place}, {group}, {when}", caption=when)


def headline(curated: StageFolder) -> tuple[Fact, ...]:
    """Return the facts of the page's head: places, chips and dates."""
    chips = read_columns(curated.path / "index.parquet", ("place", "date"))
    dates = {str(d) for d in chips["date"].tolist() if not unknown(d)}
    facts = (Fact(count(len(set(chips["place"].tolist()))), "places"), Fact(count(len(chips["place"])), "chips"))
    return (*facts, Fact(count(len(dates)), f"date{'s' if len(dates) != 1 else ''}")) if dates else facts
