from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cgeartheye.errors import DataError
from cgeartheye.shards.reader import ShardReader
from cgeartheye.shards.tar import EXTENDED_LIMIT, Member, TarFaultError, walk

NAMES = ["a.jpg", "b.d0.jpg", "folder/c.jpg", "n" * 90 + ".jpg", "p" * 80 + "/" + "q" * 90 + ".jpg", "ü" * 60 + ".jpg"]


def coded(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def packed(members: list[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT, **changed: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in changed.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def walked(path: Path, raw: bytes) -> list[Member]:
    path.write_bytes(raw)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return list(walk(descriptor, len(raw)))
    finally:
        os.close(descriptor)


def resealed(raw: bytes, at: int = 0) -> bytes:
    """Give the header at ``at`` a right checksum again."""
    header = bytearray(raw[at : at + 512])
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return raw[:at] + bytes(header) + raw[at + 512 :]


def patched(raw: bytes, field: slice, value: bytes) -> bytes:
    changed = bytearray(raw)
    changed[field] = value.ljust(field.stop - field.start, b"\0")
    return resealed(bytes(changed))


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=1500)), max_size=6),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    time=st.sampled_from([0, 1.5]),
)
def test_members_are_those_that_tarfile_finds(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], form: int, time: float
) -> None:
    raw = packed(members, form, mtime=time)
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        expected = [Member(info.name, "file", info.offset_data, info.size) for info in tar]
    assert walked(tmp_path_factory.mktemp("tar") / "x.tar", raw) == expected


@pytest.mark.parametrize(
    "kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"Z"]
)
def test_what_is_no_file_is_told(tmp_path: Path, kind: bytes) -> None:
    raw = packed([("a.jpg", b"")], type=kind)
    assert [member.kind for member in walked(tmp_path / "x.tar", raw)] == ["other"]
    with pytest.raises(DataError, match=r"x\.tar.*'a\.jpg' is a link, a device or sparse"):
        ShardReader(tmp_path)


def test_folders_are_passed_over(tmp_path: Path) -> None:
    buffer = io.BytesIO(packed([("f/a.jpg", coded(1))]))
    with tarfile.open(fileobj=buffer, mode="a", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("g")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    (tmp_path / "x.tar").write_bytes(buffer.getvalue())
    assert ShardReader(tmp_path).read(0, 0) == coded(1)


HEADER = packed([("a.jpg", b"x" * 600)])


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", "cut short"),
        (b"no tar at all" * 100, "no tar"),
        (HEADER[:1024], "beyond the file's end"),
        (HEADER[:1536], "without an end mark"),
        (HEADER[:300], "cut short"),
        (HEADER[:100] + b"7" + HEADER[101:], "checksum"),
        (patched(HEADER, slice(124, 136), b"00000000009"), "number that is none"),
        (patched(HEADER, slice(124, 136), b"-0000000512"), "number that is none"),
        (patched(HEADER, slice(124, 136), b"\xff" * 12), "number that is none"),
        (patched(HEADER, slice(124, 136), b"\x80" + b"\x7f" * 11), "beyond the file's end"),
        (patched(HEADER, slice(124, 136), b"77777777777"), "beyond the file's end"),
        (patched(HEADER, slice(0, 100), b"\xff\xfe.jpg"), "not UTF-8"),
        (patched(packed([("f", b"x")]), slice(156, 157), b"5"), "folder at byte 0 with content"),
        (packed([("a.jpg", b"x")], tarfile.PAX_FORMAT, pax_headers={"size": "9999999"}), "beyond the file's end"),
        (packed([("a.jpg", b"x")], tarfile.PAX_FORMAT, pax_headers={"size": "-512"}), "whose size is"),
        (packed([("a.jpg", b"x")], tarfile.PAX_FORMAT, pax_headers={"path": "../../a.jpg"}), "outside"),
        (packed([("a.jpg", b"x")], tarfile.PAX_FORMAT, pax_headers={"path": "/etc/a.jpg"}), "outside"),
        (packed([("..\\a.jpg", b"x")]), "outside"),
        (packed([("a.jpg", b"")]), "is empty"),
        (packed([("a.jpg", b"x")], tarfile.PAX_FORMAT, pax_headers={"GNU.sparse.major": "1"}), "sparse"),
        (packed([("a.jpg", b"x")], tarfile.PAX_FORMAT, pax_headers={"comment": "x" * EXTENDED_LIMIT}), "more than any name"),
    ],
)
def test_broken_and_hostile_headers_are_refused_by_name(tmp_path: Path, raw: bytes, fault: str) -> None:
    (tmp_path / "evil.tar").write_bytes(raw)
    with pytest.raises(DataError, match=rf"evil\.tar.*{fault}"):
        ShardReader(tmp_path)


def test_a_sparse_file_with_a_giant_name_is_not_read_into_memory(tmp_path: Path) -> None:
    """8 GB of zeros on no disk: ``tarfile`` would ask for all of them as a name."""
    giant = patched(packed([("a.jpg", b"")]), slice(124, 136), b"\x80" + (2**33).to_bytes(11, "big"))
    path = tmp_path / "x.tar"
    path.write_bytes(patched(giant, slice(156, 157), b"L")[:512])
    os.truncate(path, 2**33 + 2048)
    with pytest.raises(DataError, match=r"x\.tar.*extended header of 8589934592 bytes"):
        ShardReader(tmp_path)


@pytest.mark.parametrize(
    "record", [b"9 path=..", b"0 path=a\n", b"999999 path=a\n", b"x path=a\n", b"7 path\n", b"12345678901 a=b\n"]
)
def test_broken_extended_headers_are_refused(tmp_path: Path, record: bytes) -> None:
    raw = patched(packed([("h", record), ("a.jpg", b"x")]), slice(156, 157), b"x")
    with pytest.raises(TarFaultError, match="cannot be read"):
        walked(tmp_path / "x.tar", raw)


VALID = packed(
    [("a.d0.jpg", coded(1)), ("a.d1.jpg", coded(2)), ("a.json", b"{}"), ("b" * 120 + ".jpg", coded(3))], tarfile.PAX_FORMAT
)


def damages() -> st.SearchStrategy[bytes]:
    header_bytes = st.one_of(*(st.integers(start, start + 511) for start in range(0, len(VALID) - 511, 512)))

    def set_bytes(changes: list[tuple[int, int]], *, seal: bool) -> bytes:
        raw = bytearray(VALID)
        for at, value in changes:
            raw[at] = value
        first = changes[0][0] // 512 * 512
        return resealed(bytes(raw), first) if seal else bytes(raw)

    changed = st.lists(st.tuples(header_bytes, st.integers(0, 255)), min_size=1, max_size=4)
    return st.one_of(
        changed.map(lambda changes: set_bytes(changes, seal=True)),
        changed.map(lambda changes: set_bytes(changes, seal=False)),
        st.integers(0, len(VALID)).map(lambda end: VALID[:end]),
        st.tuples(st.integers(0, len(VALID)), st.binary(max_size=600)).map(
            lambda cut: VALID[: cut[0]] + cut[1] + VALID[cut[0] :]
        ),
    )


@settings(max_examples=300, deadline=None)
@given(raw=damages())
def test_a_damaged_tar_is_read_or_refused_and_never_anything_else(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("tar")
    (folder / "x.tar").write_bytes(raw)
    try:
        reader = ShardReader(folder)
    except DataError as error:
        assert "x.tar" in str(error)
        return
    for i in range(len(reader)):
        assert "/" not in reader.place(i)[:1]
        for record in reader.dates(i):
            assert record.offset + record.length <= len(raw)
            assert reader.read_row(record.row) == raw[record.offset : record.offset + record.length]
            try:
                reader.decode_row(record.row)
            except DataError as error:
                assert "x.tar" in str(error)
