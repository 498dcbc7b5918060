from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgeartheye.errors import DataError
from cgeartheye.shards import writer
from cgeartheye.shards.format import Chip, Place
from cgeartheye.shards.reader import ShardReader
from cgeartheye.shards.writer import plan_shards, table_of, write_index, write_shard, write_shards


def rows(count: int) -> pa.Table:
    return table_of(
        [
            {
                "place": f"p{k // 2}",
                "date_index": k % 2,
                "shard": f"{k // 30:06d}.tar",
                "offset": 512 + 1024 * k,
                "length": 9,
                "crc32": k,
            }
            for k in range(count)
        ]
    )


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(1, 9000), min_size=1, max_size=16), min_size=1, max_size=30),
    bound=st.integers(40_000, 150_000),
)
def test_no_shard_is_larger_than_its_bound(tmp_path_factory: pytest.TempPathFactory, sizes: list[list[int]], bound: int) -> None:
    """The file on disk, notes and end mark included, unless a single place is larger."""
    scene = "a scene with a long name " * 8
    told = {
        "scene": scene,
        "width": 512,
        "height": 512,
        "q_std": 0.1 + 0.2,
        "q_entropy": 1 / 3,
        "q_reblur": 1 / 7,
        "licence": "CC BY 4.0",
    }
    places = [
        Place(f"p{i}", tuple(Chip(b"x" * size, told) for size in chips), {"lon": 1 / 3, "stratum": "region/forest/3"})
        for i, chips in enumerate(sizes)
    ]
    folder = write_shards(tmp_path_factory.mktemp("shards"), places, shard_bytes=bound)
    reader = ShardReader(folder)
    assert len(reader) == len(places)
    counts = dict(zip(sorted(p.name for p in (folder / "shards").iterdir()), reader.shard_sizes().tolist(), strict=True))
    for path in (folder / "shards").iterdir():
        assert path.stat().st_size <= bound or counts[path.name] == 1


def test_the_index_does_not_depend_on_how_its_parts_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "ROW_GROUP", 16)
    table = rows(100)
    digests = set()
    for number, cuts in enumerate([[0, 100], [0, 1, 2, 50, 50, 100], [0, 16, 32, 99, 100], [0, 77, 100]]):
        parts = [table.slice(a, b - a) for a, b in itertools.pairwise(cuts)]
        path = write_index(tmp_path / str(number), parts)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
        told = pq.ParquetFile(path).metadata
        assert [told.row_group(k).num_rows for k in range(told.num_row_groups)] == [16] * 6 + [4]
        assert pq.read_table(path).equals(table)
    assert len(digests) == 1


def test_parts_are_read_when_their_turn_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of many parts must not lie in memory at once."""
    monkeypatch.setattr(writer, "ROW_GROUP", 30)
    table, alive = rows(3000), 0

    def parts() -> Iterator[pa.Table]:
        nonlocal alive
        for start in range(0, 3000, 30):
            part = pa.Table.from_pylist(table.slice(start, 30).to_pylist(), schema=table.schema)
            alive = max(alive, pa.total_allocated_bytes())
            yield part

    before = pa.total_allocated_bytes()
    write_index(tmp_path, parts())
    assert alive - before < 12 * table.slice(0, 30).nbytes + 200_000


@pytest.mark.parametrize("order", [[1, 0], [0, 0], [0, 2, 1]])
def test_parts_out_of_order_leave_no_index(tmp_path: Path, order: list[int]) -> None:
    table = rows(90)
    with pytest.raises(DataError, match="not in order"):
        write_index(tmp_path, [table.slice(30 * k, 30) for k in order])
    assert not list(tmp_path.iterdir())


def test_rows_out_of_order_leave_no_index(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not in order"):
        write_index(tmp_path, [rows(30).take(pa.array(np.arange(30)[::-1]))])


def test_no_parts_make_an_empty_index(tmp_path: Path) -> None:
    write_index(tmp_path, [rows(0)])
    assert len(ShardReader(tmp_path)) == 0


def test_a_shard_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    def places() -> Iterator[Place]:
        yield Place("a", (Chip(b"x" * 5000, {}),), {})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "000000.tar", places())
    assert not list(tmp_path.iterdir())


def test_plan_keeps_order_and_loses_nothing() -> None:
    plan = plan_shards([[10, 20]] * 9, 60_000)
    assert [i for part in plan for i in part] == list(range(9))
