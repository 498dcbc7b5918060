from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cgeartheye.errors import DataError
from cgeartheye.files import fingerprint
from cgeartheye.shards import scan, tar
from cgeartheye.shards.kept_scans import KEPT_FROM, SCAN_SCHEMA
from cgeartheye.shards.reader import ShardReader

OLD_S = 1_700_000_000


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    return tmp_path / "user" / "cgeartheye"


def coded(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level % 256, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def packed(path: Path, members: list[tuple[str, bytes]], *, seconds: int = OLD_S) -> Path:
    """A tar that changed long ago."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    os.utime(path, (seconds, seconds))
    return path


def foreign(folder: Path, *, count: int = KEPT_FROM, first: int = 0, name: str = "x.tar", seconds: int = OLD_S) -> Path:
    return packed(folder / name, [(f"{first + k:05d}.jpg", coded(first + k)) for k in range(count)], seconds=seconds)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of tars that were walked."""
    seen: list[int] = []

    def walk(descriptor: int, end: int) -> object:
        seen.append(end)
        return tar.walk(descriptor, end)

    monkeypatch.setattr(scan, "walk", walk)
    return seen


def bytes_of(folder: Path) -> list[bytes]:
    reader = ShardReader(folder)
    return [reader.read(i, 0) for i in range(len(reader))]


def test_a_tar_is_walked_once(tmp_path: Path, walks: list[int]) -> None:
    expected = [coded(k) for k in range(KEPT_FROM)]
    folder = foreign(tmp_path / "f").parent
    before = fingerprint(folder)
    for _ in range(3):
        assert bytes_of(folder) == expected
    assert len(walks) == 1
    assert fingerprint(folder) == before  # a copy of what is known is no part of the data
    foreign(folder, name="y.tar", first=5000)
    assert len(bytes_of(folder)) == 2 * KEPT_FROM
    assert len(walks) == 2  # only the new one


@pytest.mark.parametrize("changed", ["time", "size", "name"])
def test_another_tar_is_walked_again(changed: str, tmp_path: Path, walks: list[int]) -> None:
    path = foreign(tmp_path / "f")
    bytes_of(path.parent)
    if changed == "time":  # other pictures of the same number of bytes in all
        foreign(path.parent, first=7, seconds=OLD_S + 1)
    elif changed == "size":
        foreign(path.parent, first=7, count=KEPT_FROM + 100)
    else:
        path.rename(path.with_name("z.tar"))
        path.with_name(".x.tar.scan.parquet").rename(path.with_name(".z.tar.scan.parquet"))
    first, count = (0 if changed == "name" else 7), KEPT_FROM + 100 * (changed == "size")
    assert bytes_of(path.parent) == [coded(first + k) for k in range(count)]
    assert len(walks) == 2
    bytes_of(path.parent)
    assert len(walks) == 2


@pytest.mark.parametrize("why", ["few chips", "still changing"])
def test_scans_that_are_of_no_use_or_not_safe_are_not_kept(why: str, tmp_path: Path) -> None:
    path = foreign(tmp_path / "f", count=KEPT_FROM - (why == "few chips"))
    if why == "still changing":
        os.utime(path)
    bytes_of(path.parent)
    assert [file.name for file in path.parent.iterdir()] == ["x.tar"]


WRONG = {"beyond": ("offset", 10**9), "before": ("offset", -1), "long": ("length", 2**30), "null": ("length", None)}


def damaged(file: Path, how: str) -> None:
    table = pq.read_table(file)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:100])
        return
    if how == "empty":
        changed = table.slice(0, 0)
    else:
        name, value = WRONG[how]
        field = SCAN_SCHEMA.field(name)
        values = pa.array([value, *table[name].to_pylist()[1:]], field.type)
        changed = table.set_column(table.schema.get_field_index(name), field, values)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), file)


@pytest.mark.parametrize("how", ["cut", "empty", "beyond", "before", "long", "null"])
def test_a_damaged_scan_is_made_again(how: str, tmp_path: Path, walks: list[int]) -> None:
    path = foreign(tmp_path / "f")
    expected = bytes_of(path.parent)
    damaged(path.with_name(".x.tar.scan.parquet"), how)
    assert bytes_of(path.parent) == expected
    assert len(walks) == 2
    assert bytes_of(path.parent) == expected
    assert len(walks) == 2


def test_where_the_folder_may_not_be_written_the_user_s_cache_is_used(tmp_path: Path, user: Path, walks: list[int]) -> None:
    path = foreign(tmp_path / "f")
    path.with_name(".x.tar.scan.parquet").mkdir()  # stands for a folder without rights, which stop no root
    for _ in range(2):
        assert len(bytes_of(path.parent)) == KEPT_FROM
    assert len(walks) == 1
    assert [file.name[:5] for file in user.iterdir()] == ["scan-"]
    shutil.rmtree(user)
    user.parent.mkdir(exist_ok=True)
    user.write_text("no folder")
    for _ in range(2):
        assert len(bytes_of(path.parent)) == KEPT_FROM
    assert len(walks) == 3


def test_kept_scans_find_keys_that_come_twice(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "f").parent
    bytes_of(folder)
    foreign(folder, name="y.tar", first=KEPT_FROM - 1)
    for _ in range(2):
        with pytest.raises(DataError, match=r"'00099' comes twice.*y\.tar|y\.tar.*'00099' comes twice"):
            ShardReader(folder)


def test_what_is_refused_is_refused_each_time(tmp_path: Path) -> None:
    path = packed(tmp_path / "f" / "x.tar", [(f"{k}.jpg", coded(k)) for k in range(KEPT_FROM)] + [("../x.jpg", coded(1))])
    for _ in range(2):
        with pytest.raises(DataError, match="outside the archive"):
            ShardReader(path.parent)
    assert [file.name for file in path.parent.iterdir()] == ["x.tar"]


MEMBERS = [(f"{k:05d}.jpg", coded(k)) for k in range(KEPT_FROM)]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_tar_that_is_damaged_later_gives_its_bytes_or_a_named_fault(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whether its kept scan still holds (same size and time) or not: nothing but this tar's own bytes, or a DataError."""
    path = packed(tmp_path_factory.mktemp("f") / "x.tar", MEMBERS)
    ShardReader(path.parent)
    raw = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=6)):
        raw[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(raw)) | st.just(len(raw)))
    path.write_bytes(raw[:end])
    os.utime(path, (OLD_S, OLD_S))
    try:
        reader = ShardReader(path.parent)
        chips = [record for i in range(len(reader)) for record in reader.dates(i)]
        for record in chips:
            assert reader.read_row(record.row) == bytes(raw[record.offset : record.offset + record.length])
            with contextlib.suppress(DataError):
                reader.decode_row(record.row)
    except DataError as error:
        assert "x.tar" in str(error)


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_kept_scan_of_any_bytes_is_right_or_made_again(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = packed(tmp_path_factory.mktemp("f") / "x.tar", MEMBERS)
    ShardReader(path.parent)
    kept = path.with_name(".x.tar.scan.parquet")
    raw = bytearray(kept.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[at] = data.draw(st.integers(0, 255))
    kept.write_bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))])
    assert bytes_of(path.parent) == [data for _, data in MEMBERS]
