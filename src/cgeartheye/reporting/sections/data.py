"""The data section: scenes, their dates, sampled places on a map, and what was left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cgeartheye.errors import DataError
from cgeartheye.files import read_json
from cgeartheye.reporting.archive import by_quarter, dates_words, group_places, head, spread
from cgeartheye.reporting.blocks import Block, Fact, Section, Table, attempt
from cgeartheye.reporting.figures.bars import Bars, bar_chart
from cgeartheye.reporting.figures.placemap import MOST_OUTLINES, Ground, Ring, place_map
from cgeartheye.reporting.folders import Columns, StageFolder, outlines, read_areas, read_columns
from cgeartheye.reporting.wording import count, plain, unbroken

SCENE_COLUMNS = ("id", "date", "year", "quarter", "gsd_m", "width", "height", "licence")
MORE_SCENE_COLUMNS = ("geometry", "dtype", "count", "mask_kind", "date_source", "notes")
MOST_ROWS = 40


def data_section(catalog: StageFolder | None, curated: StageFolder | None, hold_out: Path | None) -> Section:
    """Return the section on the archive and the places that were sampled from it; either folder may be absent."""
    scenes = None if catalog is None else read_columns(catalog.path / "catalog.parquet", SCENE_COLUMNS, MORE_SCENE_COLUMNS)
    figures = [attempt("Scenes and sampled places", lambda: _map(scenes, curated, hold_out))]
    tables: list[Block] = []
    if catalog is not None and scenes is not None:
        figures.append(attempt("Scenes by quarter", lambda: _quarters(scenes)))
        tables = [
            attempt("Scenes", lambda: _scene_table(scenes)),
            attempt("Files that were left out", lambda: left_out_table("Files that were left out", catalog)),
        ]
    facts = () if scenes is None else _facts(scenes)
    return Section("data", "Data", "data.html.j2", {"figures": figures, "tables": tables}, facts)


def _facts(scenes: Columns) -> tuple[Fact, ...]:
    dates = sorted({str(d) for d in scenes["date"].tolist()})
    dates = [unbroken(d) for d in dates]
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}" if dates else "not known"
    return (
        Fact(count(len(scenes["id"])), "scenes"),
        Fact(when, f"{len(dates)} date{'s' if len(dates) != 1 else ''}"),
        Fact(spread(scenes["gsd_m"], "m"), "ground sampling distance"),
        Fact(count(float(np.sum(scenes["width"].astype(float) * scenes["height"].astype(float))) / 1e6), "megapixels"),
    )


def _map(scenes: Columns | None, curated: StageFolder | None, hold_out: Path | None) -> Block:
    rings: tuple[Ring, ...] = ()
    if scenes is not None and "geometry" in scenes:
        rings = outlines(scenes["geometry"], MOST_OUTLINES)
    groups: tuple[tuple[str, Ring], ...] = ()
    if curated is not None:
        groups = _place_groups(curated)
    held = read_areas(hold_out) if hold_out is not None else ()
    caption = "Each dot is the middle of a place."
    return place_map("Scenes and sampled places", Ground(rings, held, groups), caption=caption if groups else "")


def _place_groups(curated: StageFolder) -> tuple[tuple[str, Ring], ...]:
    chips = read_columns(curated.path / "index.parquet", ("place", "date_index"), ("lon", "lat", "land_cover"))
    if "lon" not in chips or "lat" not in chips or not np.isfinite(chips["lon"].astype(float)).any():
        return ()
    _, first, n_dates = np.unique(chips["place"].astype(str), return_index=True, return_counts=True)
    lon, lat = chips["lon"][first], chips["lat"][first]
    words = dates_words(n_dates)
    if len(set(words)) == 1 and "land_cover" in chips:
        return group_places(lon, lat, chips["land_cover"][first].tolist())
    return group_places(lon, lat, words)


def _quarters(scenes: Columns) -> Block:
    found = by_quarter(scenes["year"], scenes["quarter"])
    return bar_chart("Scenes by quarter", found.names, [Bars("scenes", tuple(map(float, found.counts)))], unit="scenes")


def _scene_table(scenes: Columns) -> Block:
    order = np.argsort(scenes["date"].astype(str), kind="stable").tolist()
    noted = "notes" in scenes and any(len(n) for n in scenes["notes"] if n is not None)
    optional = [n for n in ("dtype", "mask_kind", "date_source") if n in scenes]
    rows = [
        (
            plain(scenes["id"][i]),
            unbroken(str(scenes["date"][i])),
            f"Q{scenes['quarter'][i]}",
            f"{float(scenes['gsd_m'][i]):.4g} m",
            f"{scenes['width'][i]} \N{MULTIPLICATION SIGN} {scenes['height'][i]}",
            *(plain(scenes[n][i]) for n in optional),
            plain(scenes["licence"][i] or "not recorded"),
            *((plain(list(scenes["notes"][i])),) if noted else ()),
        )
        for i in order
    ]
    names = {"dtype": "type", "mask_kind": "no-data by", "date_source": "date from"}
    header = (
        "scene",
        "date",
        "quarter",
        "GSD",
        "pixels",
        *(names[n] for n in optional),
        "licence",
        *(("notes",) if noted else ()),
    )
    shown, more = head(rows, MOST_ROWS)
    return Table("Scenes", header, shown, frozenset({3, 4}), more, folded=len(rows) > 8)


def left_out_table(title: str, folder: StageFolder) -> Table:
    """Return what a stage's ``left_out.json`` lists, with reasons and remedies.

    Raises:
        DataError: if the file is absent or holds no list.
    """
    records = read_json(folder.path / "left_out.json")
    if not isinstance(records, list):
        raise DataError("left_out.json holds no list")
    header = ("file", "reason", "remedy")
    rows = [
        (plain(r.get("path")), plain(r.get("reason")), plain(r.get("remedy") or "\N{EN DASH}"))
        for r in records
        if isinstance(r, dict)
    ]
    if not rows:
        return Table(title, header, (("none", "every file could be used", "\N{EN DASH}"),))
    shown, more = head(rows, MOST_ROWS)
    return Table(f"{title} ({count(len(rows))})", header, shown, caption=more)
