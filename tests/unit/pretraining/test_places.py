"""Which dates pair, and how many season slots a batch has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cgeartheye.errors import DataError
from cgeartheye.pretraining.places import Places
from cgeartheye.settings.pretrain import SeasonSettings
from cgeartheye.shards.format import Place
from cgeartheye.shards.reader import ShardReader

Maker = Callable[..., Path]
Builder = Callable[..., Place]


def partners(places: Places, quarters: np.ndarray) -> set[tuple[int, int]]:
    """All (anchor quarter, other quarter) pairs that 400 samples draw."""
    drawn = places.draw(np.arange(400), seed=0, slots=1200)
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
    drawn = places.draw(np.arange(300), seed=1, slots=places.slots(300))
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
    moved = place("a", (1, 2, 3), shift_px=[0.0, 9.0, 9.0], shift_confidence=[9.0, 1.1, 2.0])
    places = Places(ShardReader(shards([moved])), SeasonSettings(max_shift_px=3.0))
    assert partners(places, np.array([1, 2, 3])) == {(1, 2), (2, 1)}  # the third surely lies elsewhere, the second perhaps


def test_slots_are_what_a_batch_expects(shards: Maker, place: Builder) -> None:
    four = [place(f"p{k}", (1, 2, 3, 4), seed=k) for k in range(2)]
    one = [place(f"s{k}", (1,), seed=k) for k in range(2)]
    assert Places(ShardReader(shards(four, "a")), SeasonSettings()).slots(10) == 30
    assert Places(ShardReader(shards(four, "b")), SeasonSettings(views=2)).slots(10) == 20
    assert Places(ShardReader(shards([*four, *one], "c")), SeasonSettings()).slots(10) == 15
    assert Places(ShardReader(shards(one, "d")), SeasonSettings()).slots(10) == 0


def test_too_many_seasonal_views_leave_every_place_its_first(shards: Maker, place: Builder) -> None:
    places = Places(ShardReader(shards([place(f"p{k}", (1, 2, 3, 4), seed=k) for k in range(4)])), SeasonSettings())
    drawn = places.draw(np.arange(6), seed=0, slots=9)
    assert drawn.filled.all()
    assert sorted(set(drawn.place.tolist())) == list(range(6))
    short = places.draw(np.arange(2), seed=0, slots=9)
    assert short.filled.sum() == 6
    assert short.season.shape == (9,)


def test_a_sample_is_the_same_in_any_batch(shards: Maker, place: Builder) -> None:
    places = Places(ShardReader(shards([place(f"p{k}", (1, 2, 3, 4), seed=k) for k in range(7)])), SeasonSettings())
    whole = places.draw(np.arange(20), seed=5, slots=60)
    parts = [places.draw(np.arange(t, t + 5), seed=5, slots=15) for t in range(0, 20, 5)]
    np.testing.assert_array_equal(whole.anchors, np.concatenate([part.anchors for part in parts]))
    of = {b: whole.season[whole.place == b].tolist() for b in range(20)}
    assert of == {5 * k + b: part.season[part.place == b].tolist() for k, part in enumerate(parts) for b in range(5)}


def test_an_epoch_sees_every_place_and_all_dates_in_time(shards: Maker, place: Builder) -> None:
    places = Places(ShardReader(shards([place(f"p{k}", (1, 2), seed=k) for k in range(9)])), SeasonSettings())
    rows = places.draw(np.arange(9), seed=0, slots=0).anchors
    assert sorted(places.place_of_row[rows].tolist()) == list(range(9))
    assert len(set(places.draw(np.arange(180), seed=0, slots=0).anchors.tolist())) == 18


def test_no_places_at_all(shards: Maker) -> None:
    with pytest.raises(DataError, match="no place"):
        Places(ShardReader(shards([])), SeasonSettings())
