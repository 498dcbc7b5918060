"""What curation changed: maps of strata and of what was dropped, histograms before and after, galleries, numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cgeartheye.errors import DataError
from cgeartheye.reporting.archive import MOST_GROUPS, group_places
from cgeartheye.reporting.blocks import UNREADABLE, Block, Missing, Picture, Table, attempt, reason_of
from cgeartheye.reporting.curation import STEPS, Balance, evenness, read_balance
from cgeartheye.reporting.figures.bars import Bars, bar_chart
from cgeartheye.reporting.figures.lines import Axes, Series, line_chart
from cgeartheye.reporting.figures.placemap import Ground, place_map
from cgeartheye.reporting.folders import Columns, StageFolder, read_columns
from cgeartheye.reporting.images import thumbnail
from cgeartheye.reporting.wording import count, percent, significant

MOST_CATEGORIES: Final = 16
MEASURES: Final = {
    "land_cover": "Land cover before and after",
    "elevation_bin": "Elevation before and after",
    "region": "Regions before and after",
    "seasons": "Seasons of a place before and after",
}
QUALITY: Final = {
    "q_nodata": "share without data",
    "q_saturated": "share of values at 255",
    "q_std": "contrast (standard deviation, grey levels)",
    "q_entropy": "entropy (bits)",
    "q_reblur": "gradient left by a further blur (higher is less sharp)",
}
STEP_WORDS: Final = {
    "available": "cells available",
    "drawn": "cells drawn",
    "good": "places with good chips",
    "kept": "places kept",
}
GALLERIES: Final = {
    "largest": ("The largest clusters", "Places of each, chosen by a hash of their names; those that balance dropped say so."),
    "smallest": ("The smallest clusters", "What is rare in the archive, or no more than odd."),
    "dropped": ("Dropped places", "Good chips that were not kept, those of the largest clusters first."),
}
_PICTURE_PX: Final = 112


@dataclass(frozen=True)
class GalleryRow:
    """Pictures of one cluster, or of all that was dropped."""

    name: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """A titled set of rows of pictures."""

    title: str
    caption: str
    rows: tuple[GalleryRow, ...]


def stratum_map(curated: StageFolder) -> Block:
    """Return the map of kept places by stratum, or by class where there are more strata than colours."""
    places = read_columns(curated.path / "places.parquet", ("lon", "lat", "stratum", "land_cover", "kept"))
    kept = places["kept"].astype(bool)
    strata = places["stratum"][kept]
    number = len(set(strata.tolist()))
    shown, caption = strata, "Each dot is a kept place; a stratum is region, class and elevation bin."
    if number > MOST_GROUPS:
        shown = places["land_cover"][kept]
        caption = (
            f"Each dot is a kept place, coloured by the class of its stratum: {count(number)} strata are too many to tell apart."
        )
    groups = group_places(places["lon"][kept], places["lat"][kept], shown.tolist())
    return place_map("Places by stratum", Ground((), (), groups), caption=caption)


def dropped_map(curated: StageFolder) -> Block:
    """Return the map of places kept, of good ones that were dropped, and of cells that were drawn but gave no good chip."""
    places = read_columns(curated.path / "places.parquet", ("lon", "lat", "cell", "kept"))
    cells = read_columns(curated.path / "cells.parquet", ("cell", "lon", "lat", "drawn"))
    kept = places["kept"].astype(bool)
    lost = cells["drawn"].astype(bool) & ~np.isin(cells["cell"], places["cell"])
    sets = {
        "kept": _points(places, kept),
        "good, but dropped": _points(places, ~kept),
        "drawn, without a good chip": _points(cells, lost),
    }
    groups = tuple((name, points) for name, points in sets.items() if len(points))
    caption = "Dropped: by the balance over clusters or as a duplicate; rejected.parquet has the reasons of the rest."
    return place_map("Kept and dropped places", Ground((), (), groups), caption=caption)


def _points(columns: Columns, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.column_stack([columns["lon"][chosen], columns["lat"][chosen]]).astype(np.float64)


def histograms(curated: StageFolder) -> list[Block]:
    """Return the histograms that the folder has: by class, elevation, region, seasons, and each measure of quality."""
    try:
        found = _balance(curated)
    except UNREADABLE as error:
        return [Missing("Before and after", reason_of(error))]
    blocks = [attempt(title, _bars(title, found[name])) for name, title in MEASURES.items() if name in found]
    for name, words in {**{n: n.removeprefix("q_") for n in found if n.startswith("q_")}, **QUALITY}.items():
        if name in found:
            title = f"Quality: {words.split(' (', maxsplit=1)[0]}"
            blocks.append(attempt(title, _curve(title, words, found[name])))
    return blocks


def _balance(curated: StageFolder) -> dict[str, Balance]:
    return read_balance(read_columns(curated.path / "balance.parquet", ("measure", "name", "low", "high", *STEPS)))


def _bars(title: str, measure: Balance) -> Callable[[], Block]:
    def draw() -> Block:
        if measure.categories == ("none",):
            raise DataError("no such layer was given")
        few = measure.head(MOST_CATEGORIES)
        series = [
            Bars(STEP_WORDS[step], shares, tuple(f"{STEP_WORDS[step]}: {count(n)}" for n in counts))
            for (step, counts), shares in zip(few.steps, few.shares, strict=True)
        ]
        totals = ", ".join(f"{count(sum(counts))} {STEP_WORDS[step]}" for step, counts in few.steps)
        names = [_bin_name(name, edges) for name, edges in zip(few.categories, few.edges, strict=True)]
        return bar_chart(title, names, series, unit="share of each", write=percent, caption=f"{totals}.")

    return draw


def _bin_name(name: str, edges: tuple[float | None, float | None]) -> str:
    low, high = edges
    if low is None or high is None:
        return name
    return f"{low:g} to {high:g} m" if high > low else f"{low:g} season{'' if low == 1 else 's'}"


def _curve(title: str, words: str, measure: Balance) -> Callable[[], Block]:
    def draw() -> Block:
        middle = np.array([((low or 0.0) + (high or 0.0)) / 2 for low, high in measure.edges])
        names = {"good": "good chips", "kept": "chips kept"}
        if len(middle) < 2:
            raise DataError(f"all chips have the same value, {significant(float(middle[0]), 3)}")
        series = [
            Series(names[step], middle, np.array(shares)) for (step, _), shares in zip(measure.steps, measure.shares, strict=True)
        ]
        return line_chart(title, series, Axes(words, "share of chips", include=(0.0,), ends=False))

    return draw


def numbers(curated: StageFolder) -> Block:
    """Return the table of evenness and coverage: of strata, classes, regions, bins, seasons and clusters, step by step."""
    measures = {name: m for name, m in _balance(curated).items() if not name.startswith("q_") and m.categories != ("none",)}
    clusters = read_columns(curated.path / "clusters.parquet", ("places", "kept"))
    steps = tuple((step, tuple(int(n) for n in clusters[name])) for step, name in (("good", "places"), ("kept", "kept")))
    n = len(clusters["places"])
    measures["cluster"] = Balance(("",) * n, ((None, None),) * n, steps)
    rows = [row for name, measure in measures.items() for row in _number_rows(name.replace("_", " "), measure)]
    header = ("by", "step", "present", "entropy, bits", "as even as so many equal ones", "coverage")
    caption = "Coverage: of the categories that any step has, the share that this one has."
    return Table("Balance in numbers", header, tuple(rows), frozenset({2, 3, 4, 5}), caption)


def _number_rows(name: str, measure: Balance) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in evenness(measure):
        bits = math.log2(one.effective) if one.effective > 0 else 0.0
        written = (count(one.present), significant(bits, 3), significant(one.effective, 3), percent(one.coverage))
        rows.append((name, STEP_WORDS[one.step], *written))
    return rows


def galleries(curated: StageFolder) -> list[Gallery | Missing]:
    """Return the pictures of the largest and the smallest clusters and of what was dropped."""
    try:
        table = read_columns(curated.path / "gallery.parquet", ("group", "cluster", "size", "place", "kept", "jpeg"))
        return [_gallery(table, name) for name in GALLERIES if (table["group"] == name).any()]
    except UNREADABLE as error:
        return [Missing("Galleries of clusters", reason_of(error))]


def _gallery(table: Columns, name: str) -> Gallery:
    title, caption = GALLERIES[name]
    rows = np.flatnonzero(table["group"] == name).tolist()
    if name == "dropped":
        return Gallery(title, caption, (GalleryRow("", tuple(_picture(table, i, dropped="") for i in rows)),))
    named = []
    for cluster in dict.fromkeys(int(table["cluster"][i]) for i in rows):
        members = [i for i in rows if table["cluster"][i] == cluster]
        size = int(table["size"][members[0]])
        pictures = tuple(_picture(table, i, dropped="dropped") for i in members)
        named.append(GalleryRow(f"Cluster {cluster}: {count(size)} place{'' if size == 1 else 's'}", pictures))
    return Gallery(title, caption, tuple(named))


def _picture(table: Columns, i: int, *, dropped: str) -> Picture:
    place, kept = str(table["place"][i]), bool(table["kept"][i])
    alt = f"Place {place} of cluster {table['cluster'][i]}{'' if kept else ', dropped'}"
    return thumbnail(table["jpeg"][i], _PICTURE_PX, alt=alt, caption="" if kept else dropped)
