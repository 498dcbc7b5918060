"""Parts of a job array, and borders between pieces that stay where they are when items are added."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgeartheye.curation import curate
from cgeartheye.curation.parts import Part, cut_list
from cgeartheye.errors import InputError, ResourceError
from cgeartheye.seeding import derive
from cgeartheye.settings.curate import CurateSettings
from cgeartheye.stage import open_part

Make = Callable[..., CurateSettings]


Results = Callable[[Path], dict[str, str]]


@given(total=st.integers(0, 60), n=st.integers(1, 12))
def test_parts_cover_every_piece_once(total: int, n: int) -> None:
    numbers = [number for i in range(1, n + 1) for number in Part(i, n).numbers(total)]
    assert sorted(numbers) == list(range(total))


@given(total=st.integers(0, 60), n=st.integers(1, 12), data=st.data())
def test_a_part_and_the_rest_are_all_pieces(total: int, n: int, data: st.DataObject) -> None:
    part = Part(data.draw(st.integers(1, n)), n)
    rest = list(part.rest(total))
    assert sorted([*part.numbers(total), *rest]) == list(range(total))
    if n > 1 and total >= n:
        assert rest[0] == part.i % n


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "-1/2", "1/2/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="3/8"):
        Part.parse(text)


@given(st.lists(st.integers(0, 10**6), unique=True), st.integers(1, 20))
def test_runs_are_the_list_again_and_bounded(items: list[int], size: int) -> None:
    runs = list(cut_list(items, size, lambda item: derive(0, "x", item)))
    assert list(itertools.chain(*runs)) == items
    assert all(0 < len(run) <= 4 * size for run in runs)


@given(st.sets(st.integers(0, 10**6), min_size=200, max_size=400), st.integers(0, 10**6))
def test_an_item_that_is_added_changes_only_the_runs_beside_it(items: set[int], added: int) -> None:
    def runs(of: set[int]) -> set[tuple[int, ...]]:
        return {tuple(run) for run in cut_list(sorted(of), 8, lambda item: derive(0, "x", item))}

    before, after = runs(items), runs(items | {added})
    assert len(before - after) <= 12


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_parts_in_any_order_and_the_rest_give_the_same_bytes(
    tmp_path: Path, archive_settings: Make, order: tuple[int, ...], listener: Any, results_of: Results
) -> None:
    whole = results_of(curate(archive_settings(shard_mb=0.08), tmp_path / "whole"))
    out = tmp_path / "parts"
    for i in order:
        curate(archive_settings(shard_mb=0.08, work={"part": f"{i}/3", "piece_places": 8}), out, progress=listener)
        assert not (out / "manifest.json").exists()
    assert "all others are there; the command without --part does the rest" in listener.said[-1]
    curate(archive_settings(shard_mb=0.08, work={"piece_places": 8}), out, progress=listener)
    assert "missing" not in " ".join(listener.said[-2:])
    assert results_of(out) == whole


def test_a_part_that_never_ran_is_named_and_its_pieces_made(
    tmp_path: Path, archive_settings: Make, listener: Any, results_of: Results
) -> None:
    whole = results_of(curate(archive_settings(), tmp_path / "whole"))
    out = tmp_path / "parts"
    for i in (1, 3):
        curate(archive_settings(work={"part": f"{i}/3", "piece_places": 8}), out)
    curate(archive_settings(work={"piece_places": 8}), out, progress=listener)
    assert any("those of the parts 2/3; they are made here" in text for text in listener.said)
    assert results_of(out) == whole


def test_the_rest_waits_for_parts_that_are_at_work(tmp_path: Path, archive_settings: Make, archive: Path) -> None:
    settings = archive_settings()
    layers = {"land_cover": "cover.tif", "elevation": "heights.tif", "regions": "regions.geojson"}
    inputs = {"catalog": archive / "catalog", **{name: archive / "layers" / file for name, file in layers.items()}}
    with open_part(tmp_path, "curate", settings, inputs, part="1-of-2"), pytest.raises(ResourceError, match="part 1-of-2"):
        curate(settings, tmp_path)
