from __future__ import annotations

import datetime
import hashlib
import io
import json
import multiprocessing
import pickle
import tarfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cgeartheye.errors import DataError, InputError
from cgeartheye.shards.format import INDEX_SCHEMA, Chip, Place
from cgeartheye.shards.reader import ShardReader, decode_chip
from cgeartheye.shards.sources import LocalShards
from cgeartheye.shards.writer import plan_shards, write_shards


def picture(number: int, side: int = 24) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)


def coded(number: int, side: int = 24) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number, side)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def places(count: int, dates: int = 3) -> list[Place]:
    made = []
    for i in range(count):
        chips = tuple(
            Chip(
                coded(100 * i + j),
                {
                    "date": datetime.date(2023, 3 * j + 1, 5),
                    "year": 2023,
                    "quarter": j + 1,
                    "width": 24,
                    "height": 24,
                    "q_std": 1.5,
                },
            )
            for j in range(dates)
        )
        made.append(Place(f"place{i:03d}", chips, {"lon": 10.0 + i, "lat": 50.0, "label": "forest" if i % 2 else None}))
    return made


def digest(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_round_trip_and_columns(tmp_path: Path) -> None:
    made = places(7)
    reader = ShardReader(write_shards(tmp_path, made, shard_bytes=30_000))
    assert len(reader) == 7
    assert [reader.place(i) for i in range(7)] == [p.name for p in made]
    for i, place in enumerate(made):
        for j, (chip, record) in enumerate(zip(place.chips, reader.dates(i), strict=True)):
            assert reader.read(i, j) == chip.jpeg
            assert (record.date, record.quarter, record.label) == (chip.columns["date"], j + 1, place.columns["label"])
            with Image.open(io.BytesIO(chip.jpeg)) as expected:
                assert np.array_equal(reader.decode(i, j), np.asarray(expected))
    table = pq.read_table(tmp_path / "index.parquet")
    assert table.schema.equals(INDEX_SCHEMA, check_metadata=False)
    assert table["shard"].to_pylist() == sorted(table["shard"].to_pylist())
    assert len(set(table["shard"].to_pylist())) > 1
    assert all(p.stat().st_size < 30_000 + 10_240 for p in (tmp_path / "shards").iterdir())


def test_same_places_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_shards(tmp_path / name, places(5), shard_bytes=30_000) for name in "ab")
    assert digest(first) == digest(second)


def test_plain_ustar_that_any_tar_opens(tmp_path: Path) -> None:
    write_shards(tmp_path, places(2))
    path = tmp_path / "shards" / "000000.tar"
    raw = path.read_bytes()
    with tarfile.open(path) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [
            f"place{i:03d}.{s}" for i in range(2) for s in ("d0.jpg", "d1.jpg", "d2.jpg", "json")
        ]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname, m.type) for m in members} == {
            (0, 0, 0, 0o644, "", "", tarfile.REGTYPE)
        }
        assert not any(m.pax_headers for m in members)
        note = json.load(tar.extractfile(members[3]))  # type: ignore[arg-type]
        rows = pq.read_table(tmp_path / "index.parquet").to_pylist()
        for row in rows:
            member = tar.getmember(f"{row['place']}.d{row['date_index']}.jpg")
            assert (member.offset_data, member.size) == (row["offset"], row["length"])
    assert raw[257:265] == b"ustar\x0000"
    assert note["schema_version"] == 1
    assert [d["date"] for d in note["dates"]] == ["2023-01-05", "2023-04-05", "2023-07-05"]


def test_a_changed_byte_is_found_and_named(tmp_path: Path) -> None:
    reader = ShardReader(write_shards(tmp_path, places(2)))
    chip = reader.dates(1)[2]
    path = tmp_path / "shards" / chip.shard
    raw = bytearray(path.read_bytes())
    raw[chip.offset + chip.length // 2] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"000000\.tar.*place001\.d2\.jpg.*checksum"):
        reader.read(1, 2)
    assert reader.read(1, 1)


def test_a_cut_or_missing_shard_is_found(tmp_path: Path) -> None:
    reader = ShardReader(write_shards(tmp_path, places(2)))
    path = tmp_path / "shards" / "000000.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="checksum"):
        reader.read(1, 2)
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        ShardReader(tmp_path).read(0, 0)


def test_no_shards_no_reader(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no shards"):
        ShardReader(tmp_path)
    (tmp_path / "index.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="index"):
        ShardReader(tmp_path)


def test_places_out_of_range(tmp_path: Path) -> None:
    reader = ShardReader(write_shards(tmp_path, places(2)))
    for i, j in [(2, 0), (-1, 0), (0, 3), (0, -1)]:
        with pytest.raises(IndexError):
            reader.read(i, j)


def _hash_all(reader: ShardReader) -> list[str]:
    return [hashlib.sha256(reader.read(i, j)).hexdigest() for i in range(len(reader)) for j in range(len(reader.dates(i)))]


def test_pickles_spawns_and_shares_threads(tmp_path: Path) -> None:
    reader = ShardReader(write_shards(tmp_path, places(4), shard_bytes=20_000))
    here = _hash_all(reader)
    assert _hash_all(pickle.loads(pickle.dumps(reader))) == here  # noqa: S301 - our own bytes
    with ThreadPoolExecutor(4) as threads:
        assert all(result == here for result in threads.map(_hash_all, [reader] * 8))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(_hash_all, reader).result() == here


@pytest.mark.parametrize("name", ["a.b", "a/b", "", "ü", "x" * 81])
def test_names_that_break_a_key_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="cannot name a place"):
        Place(name, (Chip(b"x", {}),), {})


def test_unknown_columns_are_refused() -> None:
    with pytest.raises(DataError, match="colour"):
        Place("a", (Chip(b"x", {"colour": 1}),), {})


def test_a_place_twice_is_refused_and_leaves_no_shard(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        write_shards(tmp_path, [places(1)[0], places(1)[0]])
    assert not list((tmp_path / "shards").iterdir())


def test_plan_is_bounded_and_complete() -> None:
    sizes = [[1000, 1000]] * 10 + [[10**6]] + [[10]] * 3
    plan = plan_shards(sizes, 20_000)
    assert [i for part in plan for i in part] == list(range(14))
    assert range(10, 11) in plan
    assert plan_shards([], 10) == []


def foreign(path: Path, members: list[tuple[str, bytes]], odd: Callable[[tarfile.TarFile], None] | None = None) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if odd:
            odd(tar)


def test_a_strangers_tar_is_indexed_by_its_headers(tmp_path: Path) -> None:
    foreign(tmp_path / "x-01.tar", [("b.d1.jpg", coded(2)), ("a.jpg", coded(1)), ("a.cls", b"3"), ("b.d0.jpg", coded(3))])
    reader = ShardReader(tmp_path)
    assert [reader.place(i) for i in range(len(reader))] == ["b", "a"]
    assert (reader.read(0, 0), reader.read(0, 1), reader.read(1, 0)) == (coded(3), coded(2), coded(1))
    assert reader.dates(0)[0].date is None
    assert reader.dates(0)[0].crc32 is None


def _link(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("l.jpg")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    tar.addfile(info)


@pytest.mark.parametrize(
    ("members", "odd", "fault"),
    [
        ([], _link, "link"),
        ([("../up.jpg", b"x")], None, "outside"),
        ([("/abs.jpg", b"x")], None, "outside"),
        ([("a.jpg", b"x"), ("a.jpg", b"y")], None, "twice"),
        ([("a.jpg", b"x"), ("a.d0.jpg", b"y")], None, "twice"),
    ],
)
def test_what_a_hostile_tar_may_hold_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], odd: Callable[[tarfile.TarFile], None] | None, fault: str
) -> None:
    foreign(tmp_path / "x.tar", members, odd)
    with pytest.raises(DataError, match=fault):
        ShardReader(tmp_path)


def test_a_strangers_tar_that_ends_too_soon(tmp_path: Path) -> None:
    foreign(tmp_path / "x.tar", [("a.jpg", coded(1, 64))])
    raw = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(raw[:1024])
    with pytest.raises(DataError, match=r"beyond the file's end|readable tar"):
        ShardReader(tmp_path)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (9000, 9000)).save(buffer, "JPEG")
    foreign(tmp_path / "x.tar", [("a.jpg", buffer.getvalue()), ("b.jpg", b"no picture")])
    reader = ShardReader(tmp_path)
    with pytest.raises(DataError, match="9000 x 9000"):
        reader.decode(0, 0)
    with pytest.raises(DataError, match="cannot be decoded"):
        reader.decode(1, 0)


def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, places(1))
    table = pq.read_table(tmp_path / "index.parquet")
    evil = table.set_column(table.schema.get_field_index("shard"), "shard", [["../../etc/passwd"] * len(table)])
    pq.write_table(evil, tmp_path / "index.parquet")
    with pytest.raises(DataError, match="outside its folder"):
        ShardReader(tmp_path)


@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize(("width", "height"), [(96, 64), (33, 47), (8, 9)])
def test_scaled_decoding_is_a_smaller_version(divisor: int, width: int, height: int) -> None:
    """Sides are rounded up, and every pixel is near the mean of the pixels it stands for (a smooth picture)."""
    coarse = np.random.default_rng(0).integers(60, 200, (3, 3, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    smooth.save(buffer, "JPEG", quality=95, subsampling=0)
    found = decode_chip(buffer.getvalue(), divisor=divisor)
    assert found.shape == (-(-height // divisor), -(-width // divisor), 3)
    whole = np.asarray(smooth, dtype=float)[: height // divisor * divisor, : width // divisor * divisor]
    means = whole.reshape(height // divisor, divisor, width // divisor, divisor, 3).mean((1, 3))
    assert np.abs(found[: height // divisor, : width // divisor] - means).mean() < 3


def test_grey_chips_become_rgb() -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(0)[..., 0]).save(buffer, "JPEG")
    for divisor in (1, 2):
        found = decode_chip(buffer.getvalue(), divisor=divisor)
        assert found.shape == (24 // divisor, 24 // divisor, 3)
        assert (found[..., 0] == found[..., 2]).all()


def test_neighbours_are_told_ahead_as_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wanted byte is asked for once, and what is asked for between chips is their headers and padding."""
    folder = write_shards(tmp_path, [Place(f"p{i}", tuple(Chip(coded(4 * i + j), {}) for j in range(4)), {}) for i in range(3)])
    reader = ShardReader(folder)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(LocalShards, "expect", lambda *at: asked.append((at[2], at[2] + at[3])))
    reader.expect([0, 1, 2, 3, 9, 5])
    chips = [reader.dates(row // 4)[row % 4] for row in (0, 3, 9, 5)]
    ends = [(chip.offset, chip.offset + chip.length) for chip in chips]
    assert asked == [(ends[0][0], ends[1][1]), ends[2], ends[3]]


def test_telling_ahead_of_what_cannot_be_read_is_no_fault(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, [Place("p", (Chip(coded(1), {}),), {})])
    reader = ShardReader(folder)
    (folder / "shards" / "000000.tar").unlink()
    reader.expect([0])
    with pytest.raises(DataError, match="missing"):
        reader.read_row(0)
