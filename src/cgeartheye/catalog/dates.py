"""When a scene was taken: by a CSV file, its STAC item, a metadata file, a product's name, the tag DATETIME or its file name."""

from __future__ import annotations

import csv
import datetime as dt
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from cgeartheye.catalog.search import Found
from cgeartheye.errors import DataError, InputError
from cgeartheye.rasters.scenes import DateSource
from cgeartheye.settings.catalog import CatalogSettings

FIRST_YEAR: Final = 1930
"""Earlier dates are taken for errors [ours]."""
NO_DATE_REMEDY: Final = "give a CSV file of path and date: catalog.dates"
_QUARTER: Final = re.compile(r"(?P<year>(?:19|20)\d\d)[-_.]?[Qq](?P<quarter>[1-4])")
QUARTER_NOTE: Final = "only its quarter is known; its date is the middle of it"
_SEPARATORS: Final = re.compile(r"(?<=\d)[:/.](?=\d\d[:/. T]?)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the CSV file."""

    line: int
    date: str
    licence: str | None


@dataclass
class DateTable:
    """The CSV file of dates; empty if the user gave none."""

    path: Path | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    _names: Counter[str] = field(default_factory=Counter, repr=False)
    used: set[str] = field(default_factory=set)

    def expect(self, files: Sequence[Found]) -> None:
        """Count the file names there are, so that a name shared by several files is not dated by one row."""
        for found in files:
            self._names.update({found.named.name, found.named.stem})

    def find(self, found: Found) -> Entry | None:
        """Return the row of a file: by path, by path from the archive's or the CSV's folder, by name, or by stem.

        Raises:
            DataError: if only a row by name fits and several files have this name.
        """
        paths = [str(found.path), found.name]
        if self.path is not None:
            paths.append(Path(os.path.relpath(found.path, self.path.parent)).as_posix())
        for key in (*paths, found.named.name, found.named.stem):
            entry = self.entries.get(key)
            if entry is None:
                continue
            if key not in paths[:1] and "/" not in key and self._names[key] > 1:
                raise DataError(
                    f"{self.path}, line {entry.line}, names it by file name, but {self._names[key]} files have this name",
                    where=str(found.path),
                    remedy="give paths instead of names in the CSV file",
                )
            self.used.add(key)
            return entry
        return None


def read_dates(path: Path) -> DateTable:
    """Read the CSV file of dates; commas or semicolons, with a header.

    Raises:
        InputError: if the file cannot be read, lacks a column, or has two rows of one file that differ; all faults at once.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            lines = handle.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read ({error})", where=str(path), remedy="check catalog.dates") from error
    header = lines[0] if lines else ""
    reader = csv.DictReader(lines, delimiter=";" if ";" in header and "," not in header else ",", skipinitialspace=True)
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    key = columns.get("path") or columns.get("name")
    if key is None or "date" not in columns:
        raise InputError(
            f"its columns are {', '.join(columns) or 'none'}; needed are path (or name) and date",
            where=str(path),
            remedy="mend its header",
        )
    table, faults = DateTable(path), list[str]()
    for row in reader:
        text = (row[key] or "").strip()
        licence = (row.get(columns.get("licence", ""), "") or "").strip() or None
        entry = Entry(reader.line_num, (row[columns["date"]] or "").strip(), licence)
        name = str(PurePosixPath(text)) if text else ""
        before = table.entries.setdefault(name, entry)
        if not text:
            faults.append(f"line {entry.line} names no file")
        elif (before.date, before.licence) != (entry.date, entry.licence):
            faults.append(f"lines {before.line} and {entry.line} differ about {text}")
    if faults:
        raise InputError("; ".join(faults), where=str(path), remedy="mend these lines")
    return table


def parse_date(text: str) -> dt.datetime | None:
    """Return the moment a text names, in UTC, or None: 2018-07-16, 20180716, 2018:07:16 10:30:00, 2018-07-16T10:30:00+02:00."""
    head, tail = text.strip()[:10], text.strip()[10:]
    try:
        moment = dt.datetime.fromisoformat(_SEPARATORS.sub("-", head) + tail)
    except ValueError:
        return None
    return _sane(moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC))


def date_in_name(name: str, pattern: re.Pattern[str]) -> dt.datetime | None:
    """Return the first possible date in a file name, in UTC."""
    for match in pattern.finditer(name):
        parts = match.groupdict()
        year, month, day, hour, minute, second = (
            int(parts.get(part) or 0) for part in ("year", "month", "day", "hour", "minute", "second")
        )
        try:
            moment = _sane(dt.datetime(year, month, day, hour, minute, second, tzinfo=dt.UTC))
        except ValueError:
            continue
        if moment is not None:
            return moment
    return None


def quarter_in_name(name: str, pattern: re.Pattern[str]) -> dt.datetime | None:
    """Return the middle of the first quarter that a text names, the 15th of its second month in UTC, or None."""
    match = pattern.search(name)
    if match is None or not 1 <= int(match["quarter"]) <= 4:
        return None
    return _sane(dt.datetime(int(match["year"]), 3 * int(match["quarter"]) - 1, 15, tzinfo=dt.UTC))


@dataclass(frozen=True, slots=True)
class Clues:
    """What is told of a scene's date beside its name.

    Args:
        entry: its row in the CSV file.
        item: its STAC item's, UTC.
        meta: its metadata file's, UTC.
        product: its product name's, UTC.
        tag: its TIFF tag DATETIME.
    """

    entry: Entry | None = None
    item: dt.datetime | None = None
    meta: dt.datetime | None = None
    product: dt.datetime | None = None
    tag: str | None = None


def find_date(found: Found, clues: Clues, settings: CatalogSettings) -> tuple[dt.datetime, DateSource, tuple[str, ...]]:
    """Return when a scene was taken (UTC), where this is told, and what was assumed.

    Raises:
        DataError: if no source has a date, or the CSV file's is none.
    """
    order, stem, entry = settings.date_from, found.named.stem, clues.entry
    by_csv = _of_entry(entry) if entry and "csv" in order else None
    if by_csv is None and entry and "csv" in order:
        raise DataError(
            f"the CSV file's line {entry.line} has {entry.date!r} for a date",
            where=str(found.path),
            remedy="write it as year-month-day, for example 2018-07-16",
        )
    told: dict[DateSource, dt.datetime | None] = {
        "csv": by_csv,
        "item": clues.item,
        "meta": clues.meta,
        "product": clues.product and _sane(clues.product),
        "tag": parse_date(clues.tag) if clues.tag else None,
        "name": date_in_name(stem, re.compile(settings.date_pattern)),
    }
    for source in order:
        moment = told[source]
        if moment is not None:
            return moment, source, (QUARTER_NOTE,) if source == "csv" and entry and _is_quarter(entry) else ()
    middle = quarter_in_name(stem, re.compile(settings.quarter_pattern)) if "name" in order else None
    if middle is not None:
        return middle, "name", (QUARTER_NOTE,)
    raise DataError(f"has no date ({', '.join(order)} looked at)", where=str(found.path), remedy=NO_DATE_REMEDY)


def _is_quarter(entry: Entry) -> bool:
    return _QUARTER.fullmatch(entry.date) is not None


def _of_entry(entry: Entry) -> dt.datetime | None:
    return quarter_in_name(entry.date, _QUARTER) if _is_quarter(entry) else parse_date(entry.date)


def _sane(moment: dt.datetime) -> dt.datetime | None:
    tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    return moment if moment.year >= FIRST_YEAR and moment <= tomorrow else None
