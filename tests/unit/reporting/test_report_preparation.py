"""Pure preparation of tables, and numbers as words."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.errors import DataError
from cgeartheye.reporting.archive import MOST_GROUPS, by_quarter, group_places, spread, tally
from cgeartheye.reporting.curation import (
    Balance,
    cluster_sizes,
    effective,
    evenness,
    funnel,
    pick_examples,
    read_balance,
    rejections,
)
from cgeartheye.reporting.wording import compact, count, duration, interval, listed, percent, plain, points, significant, size

names = st.sampled_from(["forest", "water", "other", None])


def _columns(rows: list[tuple[str, str, float | None, float | None, list[float | None]]]) -> dict[str, np.ndarray]:
    names = ("measure", "name", "low", "high", "available", "drawn", "good", "kept")
    lines = [(measure, name, low, high, *counts) for measure, name, low, high, counts in rows]
    return {name: np.array(column, dtype=object) for name, column in zip(names, zip(*lines, strict=True), strict=True)}


@given(st.lists(st.tuples(*[st.integers(0, 99)] * 4), min_size=1, max_size=40), st.integers(2, 20))
def test_shortened_measures_lose_nothing(counts: list[tuple[int, ...]], most: int) -> None:
    rows = [("land_cover", f"c{i}", None, None, list(map(float, four))) for i, four in enumerate(counts)]
    measure = read_balance(_columns(rows))["land_cover"]
    few = measure.head(most)
    assert len(few.categories) == min(most, len(counts))
    assert [sum(values) for _, values in few.steps] == [sum(column) for column in zip(*counts, strict=True)]
    for shares, (_, values) in zip(few.shares, few.steps, strict=True):
        assert sum(shares) == pytest.approx(1 if sum(values) else 0)


def test_a_measure_has_only_the_steps_that_all_its_rows_count() -> None:
    nan = float("nan")
    rows = [("q_std", "0", 0.0, 1.0, [nan, nan, 5.0, 2.0]), ("region", "north", None, None, [9.0, 4.0, 4.0, 0.0])]
    found = read_balance(_columns(rows))
    assert found["q_std"].steps == (("good", (5,)), ("kept", (2,)))
    assert [step for step, _ in found["region"].steps] == ["available", "drawn", "good", "kept"]
    assert found["q_std"].edges == ((0.0, 1.0),)


def test_evenness_is_closed_form_where_all_are_equal() -> None:
    measure = Balance(("a", "b", "c", "d"), ((None, None),) * 4, (("available", (5, 5, 5, 5)), ("kept", (8, 8, 0, 0))))
    before, after = evenness(measure)
    assert (before.present, before.effective, before.coverage) == (4, pytest.approx(4), 1)
    assert (after.present, after.effective, after.coverage) == (2, pytest.approx(2), 0.5)


def test_cluster_sizes_count_before_and_after() -> None:
    clusters = np.array([0, 0, 0, 5, 5, -1, None, float("nan")], dtype=object)
    kept = np.array([True, False, False, True, True, True, True, True])
    before, after = cluster_sizes(clusters, kept)
    assert (before.tolist(), after.tolist()) == ([3, 2], [2, 1])
    with pytest.raises(DataError):
        cluster_sizes(np.array([-1, -1]), np.array([True, True]))


def test_effective_number_of_equal_clusters() -> None:
    assert effective(np.array([7, 7, 7, 7])) == pytest.approx(4)
    assert effective(np.array([10, 0, 0])) == pytest.approx(1)
    assert 1 < effective(np.array([90, 10])) < 2


def test_the_funnel_is_in_order_of_work_and_loses_no_count() -> None:
    steps = {"kept": 4, "cells_covered": 9, "chips": 30, "chips_cut": 34, "no_data": 4, "something_new": 1}
    found = funnel({"schema_version": 1, "steps": steps})
    assert [s.number for s in found.places] == [9, 4]
    assert [s.number for s in found.chips] == [34, 4, 30]
    assert [(s.name, s.number) for s in found.others] == [("something new", 1)]


@pytest.mark.parametrize("value", [{"schema_version": 1, "steps": {}}, {"steps": {"cells": -1}}, [], {"steps": {"cells": "9"}}])
def test_a_funnel_without_numbers_is_an_error(value: object) -> None:
    with pytest.raises(DataError):
        funnel(value)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4)), min_size=1, max_size=30), st.integers(1, 12))
def test_examples_show_every_group_before_repeating_one(places: list[tuple[str, int]], most: int) -> None:
    groups, dates = [g for g, _ in places], np.array([n for _, n in places])
    picked = pick_examples(groups, dates, np.arange(len(places))[::-1].copy(), most)
    assert len(picked) == len(set(picked)) == min(most, len(places))
    shown = {groups[i] for i in picked}
    assert len(shown) == min(most, len(set(groups)))
    for name in shown:
        chosen = max(dates[i] for i in picked if groups[i] == name)
        assert chosen == max(d for g, d in places if g == name)


def test_reasons_that_differ_in_numbers_only_are_one() -> None:
    reasons = ["shifted by 3.2 px against 2024-02-14", "shifted by 11 px against 2024-05-20", "seam", None]
    found = rejections(reasons)
    assert dict(zip(found.names, found.counts, strict=True)) == {
        "shifted by n px against another date": 2,
        "seam": 1,
        "not known": 1,
    }


def test_quarters_are_in_order_of_time() -> None:
    found = by_quarter(np.array([2024, 2023, 2024]), np.array([1, 4, 1]))
    assert (found.names, found.counts) == (("2023 Q4", "2024 Q1"), (1, 2))


def test_many_groups_of_places_become_eight() -> None:
    labels = [f"class {i:02d}" for i in range(20)]
    groups = group_places(np.arange(20.0), np.zeros(20), labels)
    assert len(groups) == MOST_GROUPS
    assert groups[-1][0] == "other"
    assert sum(len(points) for _, points in groups) == 20


def test_tally_and_spread() -> None:
    assert tally(["b", "a", "b", None]).names == ("b", "a", "not known")
    assert spread(np.array([0.75, 0.75, np.nan]), "m") == "0.75 m"
    assert spread(np.array([0.5, 0.75]), "m") == "0.5 to 0.75 m"
    assert spread(np.array([np.nan]), "m") == "not known"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (count(12345.0), "12 345"),
        (count(-1234), "\N{MINUS SIGN}1 234"),
        (compact(2_995), "3 k"),
        (compact(901_760), "902 k"),
        (compact(0.0005), "0.0005"),
        (significant(0.0000000343, 3), "3.43e\N{MINUS SIGN}8"),
        (significant(123456, 3), "123456"),
        (percent(0.6217), "62.2 %"),
        (points(-0.036), "\N{MINUS SIGN}3.6"),
        (points(0.1), "+10.0"),
        (interval(-0.086, 0.011, signed=True), "[\N{MINUS SIGN}8.6, +1.1]"),
        (duration(3.14), "3.1 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(1188), "19 min 48 s"),
        (duration(3600 * 5 + 59), "5 h 01 min"),
        (duration(3600 * 24 * 3), "3 d 0 h"),
        (size(2_230_000), "2.23 MB"),
        (plain(None), "not set"),
        (plain([0.9, True, {"a": 1}]), "0.9, yes, a: 1"),
        (plain(datetime.date(2023, 1, 2)), "2023-01-02"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_as_words(made: str, expected: str) -> None:
    assert made.replace("\N{NARROW NO-BREAK SPACE}", " ") == expected


def test_near_duplicates_are_one_kind_whatever_they_repeat() -> None:
    near = ["near duplicate of beach-052-0a1b, correlation 0.987", "near duplicate of c12_7, correlation 1.000"]
    found = rejections([*near, "excluded: shows test-2-ff, correlation 0.991"])
    assert sorted(found.counts) == [1, 2]
