"""Which dates pair, and how many season slots a batch has."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cgeartheye.errors import DataError
from cgeartheye.pretraining.places import Drawn, Places
from cgeartheye.settings.pretrain_sections import SeasonSettings
from cgeartheye.shards.format import Place
from cgeartheye.shards.reader import ShardReader
from cgeartheye.shards.writer import write_shards

Maker = Callable[..., Path]
Builder = Callable[..., Place]


def draw(places: Places, samples: np.ndarray, *, seed: int, slots: int) -> Drawn:
    """One microbatch."""
    return places.draw(samples[None], seed=seed, slots=slots)[0]


def partners(places: Places, quarters: np.ndarray) -> set[tuple[int, int]]:
    """All (anchor quarter, other quarter) pairs that 400 samples draw."""
    drawn = draw(places, np.arange(400), seed=0, slots=1200)
    pairs = zip(drawn.anchors[drawn.place], drawn.season, drawn.filled, strict=True)
    return {(int(quarters[a]), int(quarters[b])) for a, b, filled in pairs if filled}


def test_quarters_pair_with_other_quarters_only(shards: Maker, place: Builder) -> None:
    reader = ShardReader(shards([place("a", (1, 1, 2))]))
    quarters = np.array([1, 1, 2])
    assert partners(Places(reader, SeasonSettings(pair="quarter")), quarters) == {(1, 2), (2, 1)}
    assert partners(Places(reader, SeasonSettings(pair="date")), quarters) == {(1, 1), (1, 2), (2, 1)}
    assert partners(Places(reader, SeasonSettings(mode="off")), quarters) == set()


def test_a_date_never_pairs_with_itself_nor_with_another_place(shards: Maker, place: Builder) -> None:
    places = Places(ShardReader(shards([place(f"p{k}", (1, 2, 3), seed=k) for k in range(5)])), SeasonSettings(pair="date"))
    drawn = draw(places, np.arange(300), seed=1, slots=places.slots(300))
    anchors = drawn.anchors[drawn.place]
    assert drawn.filled.all()
    assert (anchors != drawn.season).all()
    assert (places.place_of_row[anchors] == places.place_of_row[drawn.season]).all()
    by_sample = {b: sorted(drawn.season[drawn.place == b].tolist()) for b in range(300)}
    assert all(len(set(rows)) == len(rows) == 2 for rows in by_sample.values())


def test_dates_without_a_quarter_do_not_pair_by_quarter(shards: Maker, place: Builder) -> None:
    reader = ShardReader(shards([place("a", (0, 0))]))
    assert Places(reader, SeasonSettings(pair="quarter")).slots(8) == 0
    assert Places(reader, SeasonSettings(pair="date")).slots(8) == 8


def test_dates_that_lie_elsewhere_are_not_paired(shards: Maker, place: Builder) -> None:
    moved = place("a", (1, 2, 3), shift_px=[0.0, None, 9.0])
    places = Places(ShardReader(shards([moved])), SeasonSettings(max_shift_px=3.0))
    assert partners(places, np.array([1, 2, 3])) == {
        (1, 2),
        (2, 1),
    }  # of the second nothing is known


def test_slots_are_what_a_batch_expects(shards: Maker, place: Builder) -> None:
    four = [place(f"p{k}", (1, 2, 3, 4), seed=k) for k in range(2)]
    one = [place(f"s{k}", (1,), seed=k) for k in range(2)]
    assert Places(ShardReader(shards(four, "a")), SeasonSettings()).slots(10) == 30
    assert Places(ShardReader(shards(four, "b")), SeasonSettings(views=2)).slots(10) == 20
    assert Places(ShardReader(shards([*four, *one], "c")), SeasonSettings()).slots(10) == 15
    assert Places(ShardReader(shards(one, "d")), SeasonSettings()).slots(10) == 0


def test_too_many_seasonal_views_leave_every_place_its_first(shards: Maker, place: Builder) -> None:
    places = Places(ShardReader(shards([place(f"p{k}", (1, 2, 3, 4), seed=k) for k in range(4)])), SeasonSettings())
    drawn = draw(places, np.arange(6), seed=0, slots=9)
    assert drawn.filled.all()
    assert sorted(set(drawn.place.tolist())) == list(range(6))
    short = draw(places, np.arange(2), seed=0, slots=9)
    assert short.filled.sum() == 6
    assert short.season.shape == (9,)


def test_a_sample_is_the_same_in_any_batch(shards: Maker, place: Builder) -> None:
    places = Places(ShardReader(shards([place(f"p{k}", (1, 2, 3, 4), seed=k) for k in range(7)])), SeasonSettings())
    whole = draw(places, np.arange(20), seed=5, slots=60)
    parts = [draw(places, np.arange(t, t + 5), seed=5, slots=15) for t in range(0, 20, 5)]
    np.testing.assert_array_equal(whole.anchors, np.concatenate([part.anchors for part in parts]))
    of = {b: whole.season[whole.place == b].tolist() for b in range(20)}
    assert of == {5 * k + b: part.season[part.place == b].tolist() for k, part in enumerate(parts) for b in range(5)}


def test_an_epoch_sees_every_place_and_all_dates_in_time(shards: Maker, place: Builder) -> None:
    places = Places(ShardReader(shards([place(f"p{k}", (1, 2), seed=k) for k in range(9)])), SeasonSettings())
    rows = draw(places, np.arange(9), seed=0, slots=0).anchors
    assert sorted(places.place_of_row[rows].tolist()) == list(range(9))
    assert len(set(draw(places, np.arange(180), seed=0, slots=0).anchors.tolist())) == 18


def test_no_places_at_all(shards: Maker) -> None:
    with pytest.raises(DataError, match="no place"):
        Places(ShardReader(shards([])), SeasonSettings())


def test_dates_far_apart_or_unknown_do_not_pair_under_a_gap(shards: Maker, place: Builder) -> None:
    days = [datetime.date(2020, 1, 1), datetime.date(2020, 4, 1), datetime.date(2021, 12, 1), None]
    reader = ShardReader(shards([place("a", (1, 2, 4, 0), date=days)]))
    quarters = np.array([1, 2, 4, 0])
    assert partners(Places(reader, SeasonSettings(max_gap_days=91)), quarters) == {(1, 2), (2, 1)}
    assert partners(Places(reader, SeasonSettings(max_gap_days=90)), quarters) == set()
    by_date = SeasonSettings(pair="date", max_gap_days=10_000)
    assert {q for pair in partners(Places(reader, by_date), quarters) for q in pair} == {1, 2, 4}
    assert (0, 1) in partners(Places(reader, SeasonSettings(pair="date")), quarters)


def test_saturated_dates_neither_pair_nor_are_paired(shards: Maker, place: Builder) -> None:
    reader = ShardReader(shards([place("a", (1, 2, 3), q_saturated=[0.1, 0.5, None])]))
    assert partners(Places(reader, SeasonSettings()), np.array([1, 2, 3])) == {(1, 3), (3, 1)}
    assert Places(reader, SeasonSettings()).slots(30) == 20
    assert Places(reader, SeasonSettings(max_saturated=1.0)).slots(30) == 60


_CHIP = st.tuples(st.integers(0, 4), st.integers(0, 900), st.sampled_from([0.0, None, 9.0]), st.booleans())
_WORLD = st.lists(st.lists(_CHIP, min_size=1, max_size=5), min_size=1, max_size=4)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_WORLD, st.sampled_from(["quarter", "date"]), st.sampled_from([None, 100, 400]), st.integers(1, 4))
def test_slots_are_exact_under_all_guards(
    tmp_path_factory: pytest.TempPathFactory, place: Builder, world: list[Any], pair: Any, gap: int | None, views: int
) -> None:
    """Partners counted one by one from the rules."""
    made = []
    for number, chips in enumerate(world):
        quarters, days, shift, cloudy = zip(*chips, strict=True)
        dates = [
            datetime.date(2020, 1, 1) + datetime.timedelta(days=d) if q else None for q, d in zip(quarters, days, strict=True)
        ]
        columns = {"shift_px": list(shift), "q_saturated": [0.9 * c for c in cloudy]}
        made.append(place(f"p{number}", quarters, side=8, date=dates, **columns))
    asked = SeasonSettings(pair=pair, max_gap_days=gap, views=views)
    places = Places(ShardReader(write_shards(tmp_path_factory.mktemp("world") / "curated", made)), asked)

    def pairs(a: Any, b: Any) -> bool:
        sound = all((chip[2] or 0) <= 3 and not chip[3] for chip in (a, b))
        quarter = pair == "date" or (a[0] > 0 and b[0] > 0 and a[0] != b[0])
        near = gap is None or (a[0] > 0 and b[0] > 0 and abs(a[1] - b[1]) <= gap)
        return sound and quarter and near

    found = [[sum(pairs(a, b) for b in chips if b is not a) for a in chips] for chips in world]
    expected = np.mean([np.mean(np.minimum(of_place, views)) for of_place in found])
    assert places.slots(10_000) == int(np.ceil(round(10_000 * expected, 6)))
    drawn = draw(places, np.arange(64), seed=0, slots=64 * views)
    flat = [count for of_place in found for count in of_place]
    np.testing.assert_array_equal(
        np.bincount(drawn.place[drawn.filled], minlength=64), [min(flat[row], views) for row in drawn.anchors.tolist()]
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4, 8]), st.integers(0, 30))
def test_weights_count_places_the_same_over_all_microbatches(curated: Path, step: int, pieces: int, slots: int) -> None:
    places = Places(ShardReader(curated), SeasonSettings())
    samples = np.arange(8 * step, 8 * step + 8).reshape(pieces, -1)
    drawn = places.draw(samples, seed=3, slots=slots)
    again = places.draw(samples, seed=3, slots=slots)
    of_place = np.concatenate([np.bincount(part.place, weights=part.weight, minlength=samples.shape[1]) for part in drawn])
    with_pairs = of_place[of_place > 0]
    assert np.isclose(of_place.sum(), pieces if len(with_pairs) else 0, atol=1e-5)
    np.testing.assert_allclose(with_pairs, pieces / max(len(with_pairs), 1), rtol=1e-5)
    for a, b in zip(drawn, again, strict=True):
        assert all(np.array_equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)


def test_splitting_a_batch_changes_no_chip(shards: Maker, place: Builder) -> None:
    places = Places(ShardReader(shards([place(f"p{k}", (1, 2, 3, 4)[: 1 + k % 4], seed=k) for k in range(9)])), SeasonSettings())
    (whole,) = places.draw(np.arange(40, 64)[None], seed=2, slots=72)
    parts = places.draw(np.arange(40, 64).reshape(6, 4), seed=2, slots=12)
    np.testing.assert_array_equal(np.concatenate([part.anchors for part in parts]), whole.anchors)
    for number, part in enumerate(parts):
        for b in range(4):
            of_part, of_whole = part.filled & (part.place == b), whole.filled & (whole.place == 4 * number + b)
            np.testing.assert_array_equal(part.season[of_part], whole.season[of_whole])
            np.testing.assert_allclose(part.weight[of_part], 6 * whole.weight[of_whole], rtol=1e-6)
