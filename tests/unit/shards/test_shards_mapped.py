from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgeartheye.errors import DataError
from cgeartheye.shards import mapped
from cgeartheye.shards.format import INDEX_SCHEMA, Chip, Place
from cgeartheye.shards.mapped import identity, open_positions
from cgeartheye.shards.positions import ARRAYS, Positions
from cgeartheye.shards.reader import ShardReader
from cgeartheye.shards.writer import write_shards, write_table


def made(folder: Path, places: int = 40) -> Path:
    """Shards whose chips are no pictures: only bytes and positions matter here."""
    random = np.random.default_rng(places)
    found = []
    for i in range(places):
        chips = tuple(
            Chip(random.bytes(int(random.integers(1, 900))), {"quarter": j + 1, "scene": f"s{i}.{j}"}) for j in range(1 + i % 4)
        )
        found.append(Place(f"place-{i * 7919}", chips, {"label": "forest" if i % 3 else None}))
    return write_shards(folder, found, shard_bytes=40_000)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return made(tmp_path / "curated")


@pytest.fixture
def mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MAPPED_FROM", 1)
    monkeypatch.setattr(mapped, "_BATCH", 7)  # places are cut by batches


def copies(folder: Path) -> list[Path]:
    return sorted(folder.glob(".positions-*"))


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".tmp-*"))


def assert_equal(a: Positions, b: Positions) -> None:
    for field in fields(Positions):
        one, other = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(one, other), field.name
        assert field.name == "shards" or one.dtype == other.dtype


def test_opening_and_reading_import_no_pandas(folder: Path) -> None:
    """It takes two seconds, which every worker would spend before its first sample."""
    code = "import sys; from cgeartheye.shards import ShardReader as R; R(sys.argv[1]).read(0, 0); print('pandas' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_small_indexes_make_no_copy(folder: Path) -> None:
    ShardReader(folder)
    assert not copies(folder)


def test_positions_equal_the_rows_of_the_index(folder: Path) -> None:
    """Against the table itself, row by row."""
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    positions = open_positions(folder / "index.parquet")
    assert [positions.shards[k] for k in positions.shard] == [row["shard"] for row in rows]
    for name in ("offset", "length", "crc32"):
        assert getattr(positions, name).tolist() == [row[name] for row in rows]
    firsts = [k for k, row in enumerate(rows) if row["date_index"] == 0]
    assert positions.starts.tolist() == [*firsts, len(rows)]
    assert [positions.name(i) for i in range(len(firsts))] == [rows[k]["place"] for k in firsts]
    assert [positions.name(positions.place_of(k)) for k in range(len(rows))] == [row["place"] for row in rows]


@pytest.mark.usefixtures("mapping")
def test_a_mapped_index_reads_like_one_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = ShardReader(folder), ShardReader(folder)
    assert len(copies(folder)) == 1
    assert not leftovers(folder)
    with monkeypatch.context() as patch:
        patch.setattr(mapped, "MAPPED_FROM", 10**9)
        patch.setattr(mapped, "_mapped", lambda *_: None)
        plain = ShardReader(folder)
    for reader in (first, second):
        assert_equal(reader._chips, plain._chips)
        assert [reader.dates(i) for i in range(len(reader))] == [plain.dates(i) for i in range(len(plain))]
        assert [reader.read_place(i) for i in range(len(reader))] == [plain.read_place(i) for i in range(len(plain))]
    assert isinstance(second._chips.offset.base, np.memmap)


@pytest.mark.usefixtures("mapping")
def test_a_changed_index_gets_a_new_copy_and_loses_the_old_one(folder: Path) -> None:
    path = folder / "index.parquet"
    open_positions(path)
    before = copies(folder)
    table = pq.read_table(path)
    crc32 = table["crc32"].to_numpy() ^ 1
    write_table(path, table.set_column(table.schema.get_field_index("crc32"), INDEX_SCHEMA.field("crc32"), pa.array(crc32)))
    assert np.array_equal(open_positions(path).crc32, crc32)
    assert len(copies(folder)) == 1
    assert copies(folder) != before


def test_the_identity_follows_time_and_content(folder: Path) -> None:
    path = folder / "index.parquet"
    first = identity(path)
    assert identity(path) == first
    os.utime(path, ns=(0, 1))
    assert identity(path) != first


@pytest.mark.usefixtures("mapping")
@pytest.mark.parametrize("damage", ["cut", "absent", "other type", "other length", "evil shard"])
def test_a_damaged_copy_is_made_again(folder: Path, damage: str) -> None:
    path = folder / "index.parquet"
    found = open_positions(path)
    expected = replace(found, **{name: getattr(found, name).copy() for name in ARRAYS})  # the map itself is about to change
    copy = copies(folder)[0]
    if damage == "cut":
        os.truncate(copy / "offset.npy", 140)
    elif damage == "absent":
        (copy / "shards.json").unlink()
    elif damage == "evil shard":
        (copy / "shards.json").write_text(json.dumps(["../../etc/passwd"]))
    else:
        kind = np.int32 if damage == "other type" else np.int64
        np.save(copy / "offset.npy", np.zeros(3, kind))
    assert_equal(open_positions(path), expected)


@pytest.mark.usefixtures("mapping")
def test_where_the_folder_may_not_be_written_the_users_cache_takes_the_copy(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = open_positions(made(tmp_path / "other") / "index.parquet")
    make = Path.mkdir

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        if self.parent == folder:
            raise PermissionError(13, "read-only", str(self))
        make(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", refuse)
    for _ in range(2):
        assert_equal(open_positions(folder / "index.parquet"), plain)
    assert not copies(folder)
    assert len(copies(tmp_path / "user" / "cgeartheye")) == 1


@pytest.mark.usefixtures("mapping")
def test_where_nothing_may_be_written_memory_takes_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = open_positions(folder / "index.parquet")
    for copy in copies(folder):
        for file in copy.iterdir():
            file.unlink()
        copy.rmdir()

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(30, "read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_equal(open_positions(folder / "index.parquet"), expected)
    assert "keeps its own copy" in caplog.text


def _open(folder: Path) -> int:
    mapped.MAPPED_FROM = 1  # type: ignore[misc]
    return len(ShardReader(folder))


def test_processes_that_open_at_once_agree(folder: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(_open, [folder] * 6)) == [40] * 6
    assert len(copies(folder)) == 1
    assert not leftovers(folder)


@pytest.mark.usefixtures("mapping")
def test_a_torn_index_makes_no_copy(folder: Path) -> None:
    path = folder / "index.parquet"
    table = pq.read_table(path)
    for order in (np.arange(len(table))[::-1], np.delete(np.arange(len(table)), 1), np.repeat(np.arange(len(table)), 2)):
        write_table(path, table.take(pa.array(order)))
        with pytest.raises(DataError, match="not neighbours or not in order"):
            open_positions(path)
    assert not copies(folder)
    assert not leftovers(folder)


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("length", 0, "empty"),
        ("length", 2**31 - 1, "too long"),
        ("offset", -1, "before its shard"),
        ("offset", None, "without"),
        ("place", None, "without"),
        ("shard", "..", "outside"),
        ("shard", "a/b.tar", "outside"),
        ("shard", "..\\b.tar", "outside"),
    ],
)
def test_hostile_rows_are_refused(folder: Path, column: str, value: object, fault: str) -> None:
    table = pq.read_table(folder / "index.parquet")
    values = table[column].to_pylist()
    values[3] = value
    field = INDEX_SCHEMA.field(column)
    write_table(
        folder / "index.parquet", table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))
    )
    with pytest.raises(DataError, match=fault):
        ShardReader(folder)


@pytest.mark.parametrize("keep", [0, 3, 8, 500, -9, -1])
def test_a_cut_index_is_refused(folder: Path, keep: int) -> None:
    raw = (folder / "index.parquet").read_bytes()
    (folder / "index.parquet").write_bytes(raw[:keep])
    with pytest.raises(DataError, match=r"index\.parquet: cannot be read as an index"):
        ShardReader(folder)
