"""Files are whole or absent; fingerprints see every change."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cgeartheye.errors import DataError, InputError, ResourceError
from cgeartheye.files import atomic_path, fingerprint, read_json, write_bytes, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    write_bytes(target, b"old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_resource_error_that_names_the_file(tmp_path: Path, code: int) -> None:
    with pytest.raises(ResourceError, match="disk is full") as caught, atomic_path(tmp_path / "a.bin"):
        raise OSError(code, os.strerror(code))
    assert "a.bin" in str(caught.value)
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back_and_broken_json_names_its_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, None, "ü"]})
    assert read_json(tmp_path / "a.json") == {"b": [1, None, "ü"]}
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DataError, match=r"broken\.json"):
        read_json(tmp_path / "broken.json")
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "absent.json")


def test_a_fingerprint_changes_with_content_names_and_large_files(tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    (folder / "a.tif").write_bytes(b"1")
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    (folder / ".a.tmp").write_bytes(b"ignored")
    assert fingerprint(folder) == before
    (folder / "a.tif").write_bytes(b"2")
    changed = fingerprint(folder)
    (folder / "a.tif").rename(folder / "b.tif")
    assert len({before, changed, fingerprint(folder)}) == 3
    big = tmp_path / "big.bin"
    with big.open("wb") as handle:
        handle.truncate(65 * 2**20)
    assert fingerprint(big).startswith("size")
    assert not fingerprint(big, whole=True).startswith("size")


def test_a_missing_input_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or folder"):
        fingerprint(tmp_path / "nowhere")
