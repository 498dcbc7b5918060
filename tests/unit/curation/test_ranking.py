from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import rankdata

from cgeartheye.curation.ranking import rank_chips, ranks_within
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.shards.format import INDEX_SCHEMA


def index(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    return pa.table({name: [row.get(name) for row in rows] for name in INDEX_SCHEMA.names}, schema=INDEX_SCHEMA)


def chips(n_places: int, *, cloudy: int) -> pa.Table:
    """Two dates a place in two strata; the second date of one place in each stratum is cloudy."""
    rows = []
    for number in range(n_places):
        for date in (0, 1):
            bad = date == 1 and number // 2 == cloudy
            known = {"place": f"p{number:03d}", "date_index": date, "quarter": date + 1, "stratum": "ab"[number % 2]}
            measures = {"q_reblur": 0.3 + 0.001 * number, "q_dark": 40.0, "q_white": 0.5, "q_cloud": 0.4 if bad else 0.0}
            rows.append({**known, **measures})
    return index(rows)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=40))
def test_ranks_equal_scipys_within_each_group(pairs: list[tuple[int, int]]) -> None:
    groups, values = (np.array([pair[k] for pair in pairs], float) for k in (0, 1))
    found = ranks_within(groups.astype(np.int64), values)
    for group in set(groups):
        mine = groups == group
        assert found[mine] == pytest.approx((rankdata(values[mine]) - 0.5) / mine.sum())


def test_only_the_worst_of_each_stratum_and_quarter_go_and_dates_count_anew(tmp_path: Path) -> None:
    table = chips(40, cloudy=7)
    made = rank_chips(table, CurateSettings(quality={"cut_worst": {"cloud": 0.05}}), tmp_path)
    assert [row["place"] for row in made.rejected] == ["p014", "p015"]
    assert {row["reason"] for row in made.rejected} == {"among the worst of its stratum and quarter by cloud"}
    assert made.counts == {"among_worst": 2, "chips": -2, "places": 0, "places_with_too_few_dates": 0}
    assert made.places.all()
    kept = made.rows.to_pandas()
    assert len(kept) == 78
    assert kept.groupby("place")["date_index"].apply(list).map(tuple).value_counts().to_dict() == {(0, 1): 38, (0,): 2}


def test_a_place_left_with_too_few_dates_goes_whole(tmp_path: Path) -> None:
    made = rank_chips(chips(40, cloudy=7), CurateSettings(min_dates=2, quality={"cut_worst": {"cloud": 0.05}}), tmp_path)
    assert made.places.sum() == 38
    assert len(made.rows) == 76
    assert "1 good dates, 2 wanted" in {row["reason"] for row in made.rejected}
    assert made.counts == {"among_worst": 2, "chips": -4, "places": -2, "places_with_too_few_dates": 2}


def test_by_default_chips_are_ranked_and_none_is_lost(tmp_path: Path) -> None:
    table = chips(10, cloudy=2)
    made = rank_chips(table, CurateSettings(), tmp_path)
    assert made.rows.drop_columns(["q_rank_blur", "q_rank_haze", "q_rank_cloud"]).equals(
        table.drop_columns(["q_rank_blur", "q_rank_haze", "q_rank_cloud"])
    )
    ranks = made.rows.to_pandas()
    assert ranks["q_rank_haze"].eq(0.5).all()  # all are equal
    assert ranks.groupby(["stratum", "quarter"])["q_rank_blur"].apply(list).tolist() == [[0.1, 0.3, 0.5, 0.7, 0.9]] * 4
    first, turned = rank_chips(table, CurateSettings(), tmp_path), rank_chips(table.slice(10), CurateSettings(), tmp_path)
    assert len(turned.rows) == 10
    assert rank_chips(index([]), CurateSettings(), tmp_path).rows.schema.names == first.rows.schema.names


def test_without_other_dates_whiteness_stands_in_for_cloud(tmp_path: Path) -> None:
    known = {"date_index": 0, "quarter": 0, "q_reblur": 0.3, "q_dark": 9.0}
    rows = [{**known, "place": f"p{k}", "label": "town", "q_white": 0.1 * k} for k in range(4)]
    made = rank_chips(index(rows), CurateSettings(source="images", quality={"cut_worst": {"cloud": 0.3}}), tmp_path)
    assert made.rows["place"].to_pylist() == ["p0", "p1", "p2"]
    assert made.counts == {"among_worst": 1, "chips": -1}


def test_shares_are_checked() -> None:
    for given_ in ({"cloud": 0.0}, {"cloud": 0.7}, {"fog": 0.1}):
        with pytest.raises(ValidationError):
            CurateSettings(quality={"cut_worst": given_})
