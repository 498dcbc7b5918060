from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.catalog.dates import QUARTER_NOTE, Clues, DateTable, Entry, date_in_name, find_date, parse_date, read_dates
from cgeartheye.catalog.search import Found
from cgeartheye.errors import DataError, InputError
from cgeartheye.settings.catalog import DATE_PATTERN, CatalogSettings

PATTERN = re.compile(DATE_PATTERN)
DAYS = st.dates(dt.date(1930, 1, 1), dt.date(2020, 12, 31))


def utc(*parts: int) -> dt.datetime:
    return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc,arg-type]  # up to six ints


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m_4709963_se_14_1_20180716", utc(2018, 7, 16)),
        ("JL1KF01A_PMS01_20210501103015_200012", utc(2021, 5, 1, 10, 30, 15)),
        ("S2_20180716T103015_x", utc(2018, 7, 16, 10, 30, 15)),
        ("scene 2018-07-16 north", utc(2018, 7, 16)),
        ("2018_07_16", utc(2018, 7, 16)),
        ("2018.07.16b", utc(2018, 7, 16)),
        ("GF2_PMS1_E116.3_N39.9_20200229_L1A", utc(2020, 2, 29)),
        ("19991231235959", utc(1999, 12, 31, 23, 59, 59)),
        ("id20181316_20180101", utc(2018, 1, 1)),
        ("m_3907833_nw_17_1_20140604_20140923", utc(2014, 6, 4)),
        ("20190229", None),
        ("20189999", None),
        ("20180716256161", None),
        ("201404_13SED190110_201404_0x1500m_CL_1", None),
        ("3320D_2010_315_RGB_LATLNG", None),
        ("1220180716", None),
        ("201807161", None),
        ("2018-0716", None),
        ("99991231", None),
        ("20991231", None),
        ("QB_Toulouse_Ortho_XS", None),
    ],
)
def test_dates_in_file_names(name: str, expected: dt.datetime | None) -> None:
    assert date_in_name(name, PATTERN) == expected


@given(DAYS, st.sampled_from(["%Y%m%d", "%Y-%m-%d", "%Y_%m_%d", "%Y.%m.%d"]), st.sampled_from(["", "a_", "tile7_"]))
def test_every_day_is_found_in_a_name(day: dt.date, form: str, prefix: str) -> None:
    found = date_in_name(f"{prefix}{day:%Y}{day.strftime(form)[4:]}_x", PATTERN)
    assert found is not None and found.date() == day


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2018-07-16", utc(2018, 7, 16)),
        (" 20180716 ", utc(2018, 7, 16)),
        ("2018/07/16", utc(2018, 7, 16)),
        ("2018:07:16 10:30:00", utc(2018, 7, 16, 10, 30)),
        ("2025:06:10 11:14:03+00:00", utc(2025, 6, 10, 11, 14, 3)),
        ("2018-07-16T23:30:00-02:00", utc(2018, 7, 17, 1, 30)),
        ("2018-07-16T10:30:00Z", utc(2018, 7, 16, 10, 30)),
        ("0000:00:00 00:00:00", None),
        ("16.07.2018", None),
        ("July 2018", None),
        ("2018-02-30", None),
        ("1850-01-01", None),
        ("2190-01-01", None),
        ("", None),
    ],
)
def test_dates_as_texts(text: str, expected: dt.datetime | None) -> None:
    assert parse_date(text) == expected


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "dates.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_by_path_by_relative_path_by_name_and_by_stem(tmp_path: Path) -> None:
    files = [Found(tmp_path / "x" / name, f"sub/{name}") for name in ("a.tif", "b.tif", "c.tif", "d.tif", "e.tif")]
    lines = [
        f"{files[0].path},2018-01-01,CC0",
        "sub/b.tif,2018-01-02,",
        "x/c.tif,2018-01-03,",
        "d.tif,20180104,",
        "e,2018-01-05,",
    ]
    dates = read_dates(table(tmp_path, "\ufeffPath, Date, Licence\r\n" + "\r\n".join(lines) + "\r\nother,2018-01-01,\r\n"))
    dates.expect(files)
    entries = [dates.find(found) for found in files]
    assert [entry.date[-2:] for entry in entries if entry] == ["01", "02", "03", "04", "05"]
    assert entries[0] is not None and entries[0].licence == "CC0" and entries[1] is not None and entries[1].licence is None
    assert dates.entries.keys() - dates.used == {"other"}
    assert dates.find(Found(tmp_path / "z.tif", "z.tif")) is None


def test_semicolons_and_the_column_name(tmp_path: Path) -> None:
    dates = read_dates(table(tmp_path, "name;date\na.tif;2018-01-01\n"))
    assert dates.entries["a.tif"].date == "2018-01-01"


def test_one_row_for_two_files_of_one_name_is_no_date(tmp_path: Path) -> None:
    files = [Found(tmp_path / "one" / "a.tif", "one/a.tif"), Found(tmp_path / "two" / "a.tif", "two/a.tif")]
    dates = read_dates(table(tmp_path, "name,date\na.tif,2018-01-01\n"))
    dates.expect(files)
    with pytest.raises(DataError, match=r"2 files have this name(?s:.*)paths"):
        dates.find(files[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["columns are none"]),
        ("file,day\na,b\n", ["file, day", "path (or name) and date"]),
        (
            "path,date\na.tif,2018-01-01\na.tif,2018-01-02\n,2019-01-01\n",
            ["lines 2 and 3 differ about a.tif", "line 4 names no file"],
        ),
    ],
)
def test_a_wrong_csv_file_is_the_users_fault(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read_dates(table(tmp_path, text))
    assert all(word in str(caught.value) for word in [*words, "dates.csv"])


def test_a_csv_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.csv"):
        read_dates(tmp_path / "missing.csv")
    (tmp_path / "latin.csv").write_bytes(b"path,date\n\xff\xfe,2018\n")
    with pytest.raises(InputError, match=r"latin\.csv"):
        read_dates(tmp_path / "latin.csv")


def look_for(found: Found, clues: Clues, *order: str) -> tuple[int, str]:
    moment, source, _ = find_date(found, clues, CatalogSettings(date_from=order))  # type: ignore[arg-type]  # literals
    return moment.year, source


def test_the_order_of_sources() -> None:
    found = Found(Path("a_20180716.tif"), "a_20180716.tif")
    clues = Clues(Entry(2, "2020-05-05", None), utc(2015, 1, 1), utc(2016, 1, 1), utc(2017, 1, 1), "2019:01:01 00:00:00")
    years = {"csv": 2020, "item": 2015, "meta": 2016, "product": 2017, "tag": 2019, "name": 2018}
    for source, year in years.items():
        assert look_for(found, clues, source, *years) == (year, source)
    assert look_for(found, Clues(tag="0000:00:00 00:00:00"), *years) == (2018, "name")


def test_a_wrong_date_in_the_csv_file_is_not_replaced_by_another(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 7 has '16\.7\.18'(?s:.*)year-month-day"):
        look_for(Found(tmp_path / "a_20180716.tif", "a"), Clues(Entry(7, "16.7.18", None)), "csv", "name")


@pytest.mark.parametrize(
    ("text", "expected"), [("2023Q1", (2023, 2, 15)), ("2023-q4", (2023, 11, 15)), ("2023_Q3", (2023, 8, 15))]
)
def test_a_quarter_without_a_day_is_its_middle(text: str, expected: tuple[int, int, int]) -> None:
    in_name = find_date(Found(Path(f"mosaic_{text}_R1C2.tif"), "x"), Clues(), CatalogSettings())
    in_table = find_date(Found(Path("mosaic.tif"), "x"), Clues(Entry(2, text, None)), CatalogSettings())
    assert in_name == (utc(*expected), "name", (QUARTER_NOTE,)) and in_table == (utc(*expected), "csv", (QUARTER_NOTE,))


def test_no_date_at_all() -> None:
    with pytest.raises(DataError, match=r"no date(?s:.*)catalog\.dates"):
        look_for(Found(Path("a.tif"), "a.tif"), Clues(), "csv", "tag", "name")
    assert DateTable().find(Found(Path("a.tif"), "a.tif")) is None


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("date_pattern", "(", "regular expression"),
        ("date_pattern", r"(?P<year>\d{4})", "no group (?P<month>"),
        ("rgb_bands", (0, 1, 2), "counted from 1"),
        ("gsd_min_m", 50.0, "larger than gsd_max_m"),
        ("workers", -1, "greater than"),
    ],
)
def test_settings_are_checked(field: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        CatalogSettings(**{field: value})


def test_endings_are_compared_in_lower_case() -> None:
    assert CatalogSettings(extensions=("TIF", ".Jp2", "tif")).extensions == (".jp2", ".tif")
